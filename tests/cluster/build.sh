#!/usr/bin/env bash
# Makes all ready for start.sh: installs Debian's packages, and builds kube-apiserver and kubelet once, from Debian's source package, into
# a cache folder, whose path it prints.
# Takes some 6 minutes of one processor; when the folder is there, no time and no network. An interrupted build goes on where it was.
#   WIRETAG_CLUSTER_CACHE  the cache folder (default: ~/.cache/wiretag-cluster)
set -euo pipefail
# shellcheck source=tests/cluster/common.sh
. "$(dirname "$0")/common.sh"

# Debian's packages of today have this version; another one is another folder.
version=1.20.2
cache=${WIRETAG_CLUSTER_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/wiretag-cluster}
binaries=$cache/kubernetes-$version
programs=(kube-apiserver kubelet)
# Without the libraries of cloud providers, which are half of the work, and without Docker.
tags=-tags=providerless,dockerless
map_library=github.com/modern-go/reflect2

complete() {
  local program
  for program in "${programs[@]}"; do
    [ -x "$binaries/$program" ] || return 1
  done
}

# apt, with the source packages of the Debian archives that this machine uses, in lists of its own: the machine's stay as they are.
sources() {
  local keyring=/usr/share/keyrings/debian-archive-keyring.gpg signed=''
  [ -e "$keyring" ] && signed="[signed-by=$keyring] "
  mkdir -p "$work/apt/lists/partial" "$work/apt/parts"
  # shellcheck disable=SC2016 # apt expands them
  apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' 'Origin: Debian' |
    sort -u | sed "s|^|deb-src $signed|" >"$work/apt/sources.list"
  [ -s "$work/apt/sources.list" ] || fail "apt knows no archive of Debian" "the Kubernetes source comes from Debian's: use Debian, or copy $binaries from there"
  apt_sources=(-o "Dir::Etc::SourceList=$work/apt/sources.list" -o "Dir::Etc::SourceParts=$work/apt/parts"
    -o "Dir::State::Lists=$work/apt/lists" -o "Dir::Cache::SrcPkgCache=" -o "Dir::Cache::PkgCache=" -o APT::Sandbox::User=root)
  apt-get "${apt_sources[@]}" update -qq >&2
}

# The newest Debian revision of the version.
revision() {
  apt-cache "${apt_sources[@]}" showsrc --only-source kubernetes |
    sed -n 's/^Version: //p' | grep -F "$version" | sort -V | tail -n 1
}

unpack() {
  local revision
  sources
  revision=$(revision)
  [ -n "$revision" ] || fail "Debian has no source of Kubernetes $version here" "copy $binaries from a machine that has built it"
  say "fetching the source of Kubernetes $revision"
  (cd "$work" && apt-get "${apt_sources[@]}" source --download-only -qq "kubernetes=$revision" >&2)
  rm -rf "$tree"
  mkdir -p "$(dirname "$tree")"
  dpkg-source --no-check -x "$work"/kubernetes_*.dsc "$tree" >/dev/null
  # The copy of this library in the source corrupts memory under Go 1.18 and later: it calls a function of the runtime with the
  # arguments of before. Debian's own package of it is right.
  rm -rf "$tree/vendor/$map_library"
  cp -rL "/usr/share/gocode/src/$map_library" "$tree/vendor/$map_library"
}

# The Makefile runs the code generators first; a plain `go build` lacks what they make.
compile() {
  local program started=$SECONDS
  mkdir -p "$work/tmp"
  cd "$tree"
  for program in "${programs[@]}"; do
    say "building $program $version (minutes of one processor: 5 for the first, 1 more for the second)"
    nice env GO111MODULE=off GOFLAGS="$tags" GOPATH="$work/go" GOCACHE="$work/cache" GOTMPDIR="$work/tmp" \
      CGO_ENABLED=0 KUBE_GIT_VERSION="v$version" make "WHAT=cmd/$program" >"$work/$program.log" 2>&1 ||
      { tail -n 40 "$work/$program.log" >&2; fail "$program does not build" "the whole log is $work/$program.log"; }
  done
  say "built in $((SECONDS - started)) s"
}

build() {
  [ "$(id -u)" -eq 0 ] || fail "the build installs Debian packages" "run it as root once; later runs need the cache only"
  need_packages golang-go golang-github-modern-go-reflect2-dev rsync jq make gcc libc6-dev dpkg-dev ca-certificates
  work=$cache/building
  tree=$work/go/src/k8s.io/kubernetes
  unpack
  (compile)
  mkdir -p "$work/done"
  local program
  for program in "${programs[@]}"; do
    mv "$tree/_output/local/bin/linux/"*/"$program" "$work/done/"
  done
  rm -rf "$binaries"
  mv "$work/done" "$binaries"
  rm -rf "$work"
}

need_node_packages
mkdir -p "$cache"
# Two builds at once would take twice as long: the second waits for the first and finds its result.
exec 9>"$cache/lock"
flock 9
complete || build
printf '%s\n' "$binaries"
