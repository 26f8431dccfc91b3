#!/usr/bin/env bash
# Writes the pods' network of a cluster: Debian's bridge, host-local and portmap, and optionally one more plugin chained behind them.
# containerd reads it again by itself, so that a running cluster can get or lose the plugin.
#   network.sh STATE [PLUGIN [JSON]]
# PLUGIN is the path of a program; JSON, an object, is its configuration. The plugin's type is in it, or else the name of the program.
# shellcheck disable=SC2154 # names that are not assigned here come from `env`
set -euo pipefail
# shellcheck source=tests/cluster/common.sh
. "$(dirname "$0")/common.sh"

[ $# -ge 1 ] || fail "the state folder is missing" "network.sh STATE [PLUGIN [JSON]]"
state=$(realpath "$1")
load_env
plugin=${2:-}
rest=${3:-"{}"}
chained='[]'
if [ -n "$plugin" ]; then
  [ -x "$plugin" ] || fail "$plugin is no program" "give the path of the plugin"
  chained=$(jq -n --arg type "$(basename "$plugin")" --argjson rest "$rest" '[{type: $type} + $rest]')
  ln -sfn "$(realpath "$plugin")" "$cni_bin/$(jq -r '.[0].type' <<<"$chained")"
fi
# Renamed into place, so that containerd reads no half of it, and within the folder: of what comes from elsewhere it takes no notice.
jq -n --arg name "$bridge" --arg subnet "$pod_subnet" --arg subnet6 "$pod_subnet6" \
  --arg data "$state/cni/addresses" --argjson chained "$chained" '{
  cniVersion: "1.0.0",
  name: $name,
  plugins: ([
    {type: "bridge", bridge: $name, isGateway: true, hairpinMode: true,
     ipam: {type: "host-local", dataDir: $data, ranges: [[{subnet: $subnet}], [{subnet: $subnet6}]],
       routes: [{dst: "0.0.0.0/0"}, {dst: "::/0"}]}},
    {type: "portmap", capabilities: {portMappings: true}}
  ] + $chained)
}' >"$cni_conf/new"
mv "$cni_conf/new" "$cni_conf/10-pods.conflist"
