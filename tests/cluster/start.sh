#!/usr/bin/env bash
# Starts a Kubernetes node of its own on loopback: etcd, kube-apiserver, containerd, kubelet, and a bridge for pods with Debian's CNI
# plugins. Returns when the node is Ready; a start that fails stops what it has started. The first start on a machine builds for some
# 6 minutes of one processor (build.sh); later ones take about 20 seconds.
#   start.sh STATE [--owner PID] [--plugin PROGRAM [--plugin-config JSON]]
# STATE is a new or empty folder with a short path: it holds unix sockets. --owner stops the cluster when that process ends, however it
# ends. --plugin is a CNI plugin to chain behind the bridge. STATE/env has addresses and paths, STATE/kubeconfig is for kubectl.
# shellcheck disable=SC2154 # names that are not assigned here come from `env`
set -euo pipefail
# shellcheck source=tests/cluster/common.sh
. "$(dirname "$0")/common.sh"

usage="start.sh STATE [--owner PID] [--plugin PROGRAM [--plugin-config JSON]]"

# Sets `state`, `owner`, `plugin` and `plugin_config`.
read_arguments() {
  [ $# -ge 1 ] || fail "the state folder is missing" "$usage"
  state=$1 owner='' plugin='' plugin_config='{}'
  shift
  while [ $# -gt 0 ]; do
    [ $# -ge 2 ] || fail "$1 needs a value" "$usage"
    case $1 in
      --owner) owner=$2 ;;
      --plugin) plugin=$2 ;;
      --plugin-config) plugin_config=$2 ;;
      *) fail "there is no option \`$1\`" "$usage" ;;
    esac
    shift 2
  done
  [ "$(id -u)" -eq 0 ] || fail "a node needs root" "run this as root"
  mkdir -p "$state"
  state=$(realpath "$state")
  [ -z "$(ls -A "$state")" ] || fail "$state is not empty" "stop the cluster in it with stop.sh, or give another folder"
  [ ${#state} -le 40 ] || fail "$state is too long for unix sockets" "give a folder with at most 40 characters"
}

# A port below those that the kernel gives to clients, so that none takes it between here and its use.
free_port() {
  local port
  while :; do
    port=$((20000 + RANDOM % 12000))
    grep -qw "$port" "$state/env" && continue
    ss -Hltn "sport = :$port" | grep -q . || break
  done
  printf '%s\n' "$port"
}

# The first bridge and pod network that no other cluster on this machine has: making the link is what claims it. Its address is the
# node's.
claim_bridge() {
  local number
  for number in $(seq 0 99); do
    ip link add "wtk$number" type bridge 2>/dev/null || continue
    printf 'bridge=wtk%s\npod_subnet=10.244.%s.0/24\npod_subnet6=fd00:244:%s::/64\nnode_ip=10.244.%s.1\nnode=wiretag-node-%s\n' \
      "$number" "$number" "$number" "$number" "$number" >>"$state/env"
    ip address add "10.244.$number.1/24" dev "wtk$number"
    ip address add "fd00:244:$number::1/64" dev "wtk$number" nodad
    ip link set "wtk$number" up
    return
  done
  fail "there are a hundred bridges \`wtk…\`" "stop the clusters that are not needed"
}

# Where Docker has been, the machine forwards nothing that no rule allows. The chains for translation are empty: there is no proxy for
# services, and a test adds the rules that one would.
add_rules() {
  iptables -w -N "$bridge"
  iptables -w -A "$bridge" -i "$bridge" -j ACCEPT
  iptables -w -A "$bridge" -o "$bridge" -j ACCEPT
  iptables -w -I FORWARD -j "$bridge"
  iptables -w -t nat -N "$bridge-to"
  iptables -w -t nat -I PREROUTING -j "$bridge-to"
  iptables -w -t nat -I OUTPUT -j "$bridge-to"
  iptables -w -t nat -N "$bridge-from"
  iptables -w -t nat -I POSTROUTING -j "$bridge-from"
}

write_env() {
  local name
  (umask 077 && printf 'state=%s\nbinaries=%s\n' "$state" "$binaries" >"$state/env")
  claim_bridge
  for name in etcd_port etcd_peer_port api_port kubelet_port kubelet_health_port; do
    printf '%s=%s\n' "$name" "$(free_port)" >>"$state/env"
  done
  load_env
  # The API server makes its certificate itself, with its authority in the same file.
  cat >>"$state/env" <<END
etcd=http://127.0.0.1:$etcd_port
api=https://127.0.0.1:$api_port
kubelet=https://127.0.0.1:$kubelet_port
ca=$state/certs/apiserver.crt
token=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
kubeconfig=$state/kubeconfig
containerd_socket=$state/containerd/sock
cni_conf=$state/cni/conf
cni_bin=$state/cni/bin
END
  load_env
}

# Who may do what: one token that may do everything, for the kubelet and the tests.
write_access() {
  openssl genrsa -out "$state/sa.key" 2048 2>/dev/null
  printf '%s,admin,admin,"system:masters"\n' "$token" >"$state/tokens.csv"
  cat >"$kubeconfig" <<END
apiVersion: v1
kind: Config
current-context: wiretag
clusters: [{name: wiretag, cluster: {server: "$api", certificate-authority: "$ca"}}]
users: [{name: admin, user: {token: "$token"}}]
contexts: [{name: wiretag, context: {cluster: wiretag, user: admin}}]
END
}

write_containerd_config() {
  local snapshotter=overlayfs
  # overlayfs does not stack on itself, where the machine is a container.
  [ "$(stat -f -c %T "$state")" = overlayfs ] && snapshotter=native
  cat >"$state/containerd/config.toml" <<END
version = 2
root = "$state/containerd/root"
state = "$state/containerd/state"
disabled_plugins = [
  "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.zfs", "io.containerd.tracing.processor.v1.otlp", "io.containerd.internal.v1.tracing",
]
[grpc]
address = "$containerd_socket"
[plugins."io.containerd.internal.v1.opt"]
path = "$state/containerd/opt"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "local/pause:1"
# The capability to lower it may be missing.
restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "$snapshotter"
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "$cni_bin"
conf_dir = "$cni_conf"
END
}

# Small limits: the disk of a test machine may be nearly full. No rules of its own in iptables.
write_kubelet_config() {
  cat >"$state/kubelet.yaml" <<END
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: 127.0.0.1
port: $kubelet_port
readOnlyPort: 0
healthzPort: $kubelet_health_port
failSwapOn: false
cgroupDriver: cgroupfs
cgroupsPerQOS: false
enforceNodeAllocatable: []
makeIPTablesUtilChains: false
authentication: {anonymous: {enabled: true}, webhook: {enabled: false}}
authorization: {mode: AlwaysAllow}
evictionHard: {memory.available: 10Mi, nodefs.available: 10Mi, imagefs.available: 10Mi, nodefs.inodesFree: "1%"}
imageGCHighThresholdPercent: 100
syncFrequency: 5s
nodeStatusUpdateFrequency: 2s
volumeStatsAggPeriod: 2s
volumePluginDir: $state/kubelet/volume-plugins
featureGates: {EphemeralContainers: true, IPv6DualStack: true}
END
}

# What the kubelet changes in the kernel's settings is put back by stop.sh.
remember_settings() {
  local name
  for name in "${kubelet_settings[@]}"; do
    printf '%s=%s\n' "$name" "$(sysctl -n "$name")"
  done >"$state/sysctl"
}

launch() {
  start_etcd
  start_containerd
  part_ready etcd
  start_apiserver
  part_ready containerd
  "$here/images.sh" "$state"
  part_ready apiserver
  start_kubelet
  part_ready kubelet
}

read_arguments "$@"
binaries=$("$here/build.sh")
started=$SECONDS
mkdir -p "$state"/{pids,logs,certs,etcd,kubelet,containerd} "$state"/cni/{conf,bin}
chmod 700 "$state" "$state/etcd"
trap '[ $? -eq 0 ] || "$here/stop.sh" "$state" --keep' EXIT
if [ -n "$owner" ]; then
  # shellcheck disable=SC2016 # the watcher expands them
  spawn watch bash -c 'while kill -0 "$1"; do sleep 1; done; exec "$2/stop.sh" "$3"' watch "$owner" "$here" "$state"
fi
write_env
add_rules
write_access
write_containerd_config
write_kubelet_config
remember_settings
ln -s /usr/lib/cni/* "$cni_bin/"
"$here/network.sh" "$state" ${plugin:+"$plugin" "$plugin_config"}
launch
say "node $node is Ready after $((SECONDS - started)) s: $kubeconfig"
