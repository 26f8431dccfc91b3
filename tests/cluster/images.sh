#!/usr/bin/env bash
# Makes two images out of busybox, without a registry or a builder, and imports them into the cluster's containerd:
#   local/box:1    busybox with links for all its commands, and /www/index.html
#   local/pause:1  the same, sleeping: what holds a pod's network namespace
#   images.sh STATE
set -euo pipefail
# shellcheck source=tests/cluster/common.sh
. "$(dirname "$0")/common.sh"
# shellcheck source=scripts/archive.sh
. "$(dirname "$0")/../../scripts/archive.sh"

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
pack_layer "$image"
add_image "$image" docker.io/local/box:1 /bin/sh
add_image "$image" docker.io/local/pause:1 /bin/sleep 1000000000
write_archive "$image" "$state/images.tar"
containerd_ctr images import "$state/images.tar" >/dev/null
rm -rf "$image" "$state/images.tar"
