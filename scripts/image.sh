#!/usr/bin/env bash
# Makes an image of the appliance out of its binary and this machine's libraries, without a registry or a builder:
#   scripts/image.sh FILE [BINARY]
# The image is called wiretag:VERSION. `docker load -i FILE` and, on a Kubernetes node, `ctr -n k8s.io images import FILE` take it.
# Without BINARY the one of the release build is taken, and built if it is not there.
set -euo pipefail
# shellcheck source=scripts/setup.sh
. "$(dirname "$0")/setup.sh"
# shellcheck source=scripts/archive.sh
. "$(dirname "$0")/archive.sh"

if [ $# -lt 1 ] || [ $# -gt 2 ]; then
  say "error: the file is missing; hint: scripts/image.sh wiretag.tar"
  exit 1
fi
output=$(realpath "$1")
binary=${2:+$(realpath "$2")}
cd "$(dirname "$0")/.."
need_packages binutils jq ca-certificates
if [ -z "$binary" ]; then
  need_build_tools
  build_release
  binary=$(realpath "${CARGO_TARGET_DIR:-target}/release/wiretag")
fi

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
mkdir -p "$folder"/root/{usr/local/bin,etc/ssl/certs,tmp,var/lib/wiretag}
strip -o "$folder/root/usr/local/bin/wiretag" "$binary"
# The loader and the libraries, where the binary looks for them.
ldd "$binary" | grep -o '/[^ ]*' | while read -r library; do
  mkdir -p "$folder/root$(dirname "$library")"
  cp -L "$library" "$folder/root$library"
done
cp /etc/ssl/certs/ca-certificates.crt "$folder/root/etc/ssl/certs/"
printf 'root:x:0:0:root:/:/bin/false\n' >"$folder/root/etc/passwd"
name=wiretag:$("$binary" --version | cut -d ' ' -f 2)
pack_layer "$folder"
add_image "$folder" "$name" /usr/local/bin/wiretag run
write_archive "$folder" "$output"
say "$output has the image $name"
