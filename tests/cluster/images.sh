#!/usr/bin/env bash
# Makes two images out of busybox, without a registry or a builder, and imports them into the cluster's containerd:
#   local/box:1    busybox with links for all its commands, and /www/index.html
#   local/pause:1  the same, sleeping: what holds a pod's network namespace
#   images.sh STATE
set -euo pipefail
# shellcheck source=tests/cluster/common.sh
. "$(dirname "$0")/common.sh"

[ $# -eq 1 ] || fail "the state folder is missing" "images.sh STATE"
state=$(realpath "$1")
load_env
image=$state/image
rm -rf "$image"
mkdir -p "$image/root/bin" "$image/root/www" "$image/root/tmp" "$image/root/etc"
busybox=$(command -v busybox) || fail "there is no busybox" "apt-get install busybox-static"
cp "$busybox" "$image/root/bin/busybox"
"$busybox" --list | while read -r command; do
  [ "$command" = busybox ] || ln -s busybox "$image/root/bin/$command"
done
printf 'hello\n' >"$image/root/www/index.html"
tar -C "$image/root" --owner=0 --group=0 --numeric-owner -cf "$image/layer.tar" .
digest=$(sha256sum "$image/layer.tar" | cut -d ' ' -f 1)

# The configuration of an image that starts the given command.
image_config() {
  local architecture
  architecture=$(dpkg --print-architecture)
  jq -n --arg architecture "$architecture" --arg layer "sha256:$digest" '{
    architecture: $architecture, os: "linux",
    config: {Env: ["PATH=/bin"], Cmd: $ARGS.positional},
    rootfs: {type: "layers", diff_ids: [$layer]}
  }' --args "$@"
}

image_config /bin/sh >"$image/box.json"
image_config /bin/sleep 1000000000 >"$image/pause.json"
jq -n '[
  {Config: "box.json", RepoTags: ["docker.io/local/box:1"], Layers: ["layer.tar"]},
  {Config: "pause.json", RepoTags: ["docker.io/local/pause:1"], Layers: ["layer.tar"]}
]' >"$image/manifest.json"
tar -C "$image" -cf "$image/images.tar" manifest.json box.json pause.json layer.tar
containerd_ctr images import "$image/images.tar" >/dev/null
rm -rf "$image"
