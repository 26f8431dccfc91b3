# shellcheck shell=bash
# Sourced by other scripts: image archives as `docker load` and `ctr images import` take them, made without a registry or a builder.
# A folder holds one archive in the making; what is in its folder `root` is the one layer of all its images. Needs jq.

# Closes the layer: `pack_layer FOLDER`.
pack_layer() {
  tar -C "$1/root" --owner=0 --group=0 --numeric-owner -cf "$1/layer.tar" .
  printf '[]' >"$1/manifest.json"
}

# Adds an image that starts a command: `add_image FOLDER NAME COMMAND…`.
add_image() {
  local folder=$1 name=$2 architecture digest manifest
  shift 2
  architecture=$(dpkg --print-architecture)
  digest=$(sha256sum "$folder/layer.tar" | cut -d ' ' -f 1)
  manifest=$(jq --arg name "$name" '. + [{Config: "\(length).json", RepoTags: [$name], Layers: ["layer.tar"]}]' "$folder/manifest.json")
  jq -n --arg architecture "$architecture" --arg layer "sha256:$digest" '{
    architecture: $architecture, os: "linux",
    config: {Env: ["PATH=/usr/local/bin:/bin"], Cmd: $ARGS.positional},
    rootfs: {type: "layers", diff_ids: [$layer]}
  }' --args "$@" >"$folder/$(jq -r '.[-1].Config' <<<"$manifest")"
  printf '%s' "$manifest" >"$folder/manifest.json"
}

# Writes the archive: `write_archive FOLDER FILE`.
write_archive() { tar -C "$1" --exclude ./root -cf "$2" .; }
