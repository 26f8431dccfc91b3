# shellcheck shell=bash
# shellcheck disable=SC2154 # names that are not assigned here come from `env` and the scripts
# Sourced by the other scripts of this folder: words for errors and waiting, the state folder, and the four parts of the cluster.
#
# A state folder holds one cluster: `env` (addresses, ports, paths; sourced here, read by the tests), `kubeconfig`, `pids/`, `logs/`, and a
# folder for each part. Every process has the folder's path in its arguments, so a pid from `pids/` can be told from a stranger's.
# shellcheck source=scripts/setup.sh
. "$(dirname "${BASH_SOURCE[0]}")/../../scripts/setup.sh"

# Settings of the kernel that a kubelet changes.
# shellcheck disable=SC2034 # start.sh reads it
kubelet_settings=(vm.overcommit_memory vm.panic_on_oom kernel.panic kernel.panic_on_oops kernel.keys.root_maxkeys kernel.keys.root_maxbytes)

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

# Ends with an error and what to do about it.
fail() {
  say "error: $1; hint: $2"
  exit 1
}

# What a node is made of, but for what is built.
need_node_packages() {
  need_packages etcd-server containerd runc containernetworking-plugins busybox-static iptables iproute2 procps jq curl openssl ca-certificates
}

# Tries a command twice a second until it succeeds: `wait_for SECONDS COMMAND…`.
wait_for() {
  local end=$((SECONDS + $1))
  shift
  until "$@" >/dev/null 2>&1; do
    [ "$SECONDS" -lt "$end" ] || return 1
    sleep 0.2
  done
}

# What start.sh wrote about the cluster in `$state`.
load_env() {
  [ -r "$state/env" ] || fail "$state holds no cluster" "start one with $here/start.sh $state"
  # shellcheck source=/dev/null
  . "$state/env"
}

# A request to the API server, its answer on stdout: `api METHOD PATH [CURL ARGUMENTS…]`.
api() {
  local method=$1 path=$2
  shift 2
  curl -sS --fail --max-time 20 --cacert "$ca" -H "Authorization: Bearer $token" -X "$method" "$api$path" "$@"
}

# The arguments of a process, which may be gone.
command_line() { { tr '\0' ' ' <"/proc/$1/cmdline"; } 2>/dev/null; }

# The pid of a part, if it is alive and ours.
part_pid() {
  local pid
  pid=$(cat "$state/pids/$1" 2>/dev/null) || return 1
  [[ $(command_line "$pid") == *"$state"* ]] || return 1
  printf '%s\n' "$pid"
}

# Starts a program of its own session, which outlives the script; its output goes to logs/NAME.
spawn() {
  local name=$1
  shift
  setsid "$@" >>"$state/logs/$name" 2>&1 </dev/null &
  printf '%s\n' "$!" >"$state/pids/$name"
}

start_etcd() {
  spawn etcd etcd --name etcd --data-dir "$state/etcd" --log-level warn \
    --listen-client-urls "$etcd" --advertise-client-urls "$etcd" \
    --listen-peer-urls "http://127.0.0.1:$etcd_peer_port" --initial-advertise-peer-urls "http://127.0.0.1:$etcd_peer_port" \
    --initial-cluster "etcd=http://127.0.0.1:$etcd_peer_port"
}

etcd_ready() { curl -sS --fail --max-time 2 "$etcd/health"; }

start_apiserver() {
  spawn apiserver "$binaries/kube-apiserver" --etcd-servers="$etcd" --cert-dir="$state/certs" \
    --bind-address=127.0.0.1 --secure-port="$api_port" --endpoint-reconciler-type=none \
    --service-account-issuer=api --service-account-key-file="$state/sa.key" --service-account-signing-key-file="$state/sa.key" \
    --token-auth-file="$state/tokens.csv" --authorization-mode=RBAC --disable-admission-plugins=ServiceAccount \
    --service-cluster-ip-range=10.96.0.0/16,fd00:96::/112 --feature-gates=EphemeralContainers=true,IPv6DualStack=true
}

apiserver_ready() { api GET /readyz && api GET /api/v1/namespaces/default; }

start_containerd() { spawn containerd containerd --config "$state/containerd/config.toml"; }

containerd_ready() { containerd_ctr version; }

containerd_ctr() { ctr --address "$containerd_socket" --namespace k8s.io "$@"; }

start_kubelet() {
  spawn kubelet "$binaries/kubelet" --kubeconfig="$state/kubeconfig" --config="$state/kubelet.yaml" --root-dir="$state/kubelet" \
    --cert-dir="$state/kubelet/pki" --hostname-override="$node" --node-ip="$node_ip" \
    --container-runtime=remote --container-runtime-endpoint="unix://$containerd_socket"
}

kubelet_ready() {
  api GET "/api/v1/nodes/$node" | jq -e '.status.conditions[] | select(.type == "Ready" and .status == "True")'
}

# Waits until a part serves; the end of its log if it does not.
part_ready() {
  local name=$1
  wait_for 90 "${name}_ready" && return
  tail -n 30 "$state/logs/$name" >&2
  fail "$name is not ready within 90 s" "its log is $state/logs/$name"
}

# Ends a part by its pid: `stop_part NAME [SIGNAL]`; SIGKILL if it has not gone in five seconds.
stop_part() {
  local pid
  pid=$(part_pid "$1") || return 0
  kill "-${2:-TERM}" "$pid" 2>/dev/null || return 0
  wait_for 5 part_gone "$1" || kill -KILL "$pid" 2>/dev/null || true
  wait_for 5 part_gone "$1"
}

part_gone() { ! part_pid "$1"; }
