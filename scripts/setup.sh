# shellcheck shell=bash
# Sourced by the other scripts: Debian packages, the Rust toolchain, the build.

say() { printf '==> %s\n' "$*" >&2; }

# Installs those of the given Debian packages that are missing.
need_packages() {
  local missing=() package
  for package in "$@"; do
    dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
  done
  [ ${#missing[@]} -eq 0 ] && return
  say "installing ${missing[*]}"
  if [ "$(id -u)" -ne 0 ]; then
    say "error: installing packages needs root; hint: sudo apt-get install ${missing[*]}"
    exit 1
  fi
  export DEBIAN_FRONTEND=noninteractive
  # One script at a time: apt does not wait for its own locks.
  (
    flock 8
    apt-get update -qq >&2
    apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
  ) 8>/run/lock/wiretag-packages
}

# What the build and `wiretag run` need: a C compiler (SQLite, zstd), iproute2 (the demonstration), a Rust toolchain.
need_build_tools() {
  need_packages gcc libc6-dev iproute2 ca-certificates curl
  [ -x "$HOME/.cargo/bin/cargo" ] && export PATH="$HOME/.cargo/bin:$PATH"
  if ! command -v cargo >/dev/null; then
    say "error: there is no Rust toolchain; hint: install rustup (the Rust installer) and run this again"
    exit 1
  fi
}

# The one build that running, tests and benchmarks share.
build_release() {
  if [ ! -x target/release/wiretag ]; then
    say "the first build compiles everything: 10 to 20 minutes on two cores; later starts take seconds"
  fi
  cargo build --release --locked
}
