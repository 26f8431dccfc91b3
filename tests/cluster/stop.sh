#!/usr/bin/env bash
# Stops a cluster, whole or half started, and removes what it made on the machine: pods, processes, mounts, namespaces, links, rules,
# cgroups, logs, and the state folder.
#   stop.sh STATE [--keep]
# --keep leaves the state folder, with its logs.
# Of what is to be removed some may be gone already, or never have been there after half a start: that fails nothing (`|| true`),
# and what comes after it is removed all the same.
set -euo pipefail
# shellcheck source=tests/cluster/common.sh
. "$(dirname "$0")/common.sh"

[ $# -ge 1 ] || fail "the state folder is missing" "stop.sh STATE [--keep]"
state=$(realpath "$1")
[ -d "$state/pids" ] || fail "$state holds no cluster" "give the folder that start.sh was given"
keep=${2:-}
bridge='' containerd_socket=$state/containerd/sock
if [ -e "$state/env" ]; then
  load_env
fi
tasks=$state/containerd/state/io.containerd.runtime.v2.task/k8s.io

# The pods' end as Kubernetes makes it, if it is up: the kubelet takes down their networks and mounts itself.
end_pods() {
  local part namespace
  for part in etcd apiserver containerd kubelet; do
    part_pid "$part" >/dev/null || return 0
  done
  for namespace in $(api GET /api/v1/namespaces | jq -r '.items[].metadata.name'); do
    api DELETE "/api/v1/namespaces/$namespace/pods?gracePeriodSeconds=0" >/dev/null || return 0
  done
  wait_for 20 no_tasks || say "some pods have not ended in 20 s and are killed"
}

no_tasks() { [ -z "$(ls -A "$tasks" 2>/dev/null)" ]; }

# Namespaces of the pods' networks, by what their containers were given.
remember_namespaces() {
  grep -ohE '"/(var/)?run/netns/cni-[0-9a-f-]+"' "$tasks"/*/config.json 2>/dev/null | tr -d '"' | sort -u >"$state/namespaces" || true
}

# Containers that are left: their first processes die, and the shims, which have the socket's path in their arguments.
kill_containers() {
  local task pid
  for task in "$tasks"/*/; do
    [ -e "$task/init.pid" ] || continue
    pid=$(cat "$task/init.pid")
    # Only if it is still in the container's cgroup: the number may be another's by now.
    grep -qF "$(basename "$task")" "/proc/$pid/cgroup" 2>/dev/null && kill -KILL "$pid" 2>/dev/null
  done
  if part_pid containerd >/dev/null; then
    containerd_ctr tasks ls -q 2>/dev/null | xargs -r -n 1 -- timeout 5 ctr --address "$containerd_socket" -n k8s.io tasks rm -f >/dev/null 2>&1 || true
  fi
}

kill_shims() {
  local process path socket
  # Their sockets are outside the state folder.
  for path in "$tasks"/*/address; do
    [ -e "$path" ] || continue
    socket=$(cat "$path")
    rm -f "${socket#unix://}"
  done
  for process in /proc/[0-9]*; do
    if [[ $(command_line "${process#/proc/}") == *containerd-shim*" -address $containerd_socket "* ]]; then
      kill -KILL "${process#/proc/}" 2>/dev/null || true
    fi
  done
}

unmount() {
  local path
  # The kernel writes spaces in paths as \040; there are none in these.
  awk -v below="$state/" 'index($5, below) == 1 {print $5}' /proc/self/mountinfo | sort -r | while read -r path; do
    umount "$path" 2>/dev/null || umount -l "$path"
  done
  while read -r path; do
    umount "$path" 2>/dev/null || true
    rm -f "$path"
  done <"$state/namespaces"
}

remove_links() {
  local link
  [ -n "$bridge" ] || return 0
  for link in $(ip -o link show master "$bridge" 2>/dev/null | sed 's/^[0-9]*: \([^@:]*\).*/\1/'); do
    ip link delete "$link" 2>/dev/null || true
  done
  ip link delete "$bridge" 2>/dev/null || true
}

# `remove_chain TABLE CHAIN HOOK…`: the jumps from the hooks, what is in the chain, and the chain.
remove_chain() {
  local table=$1 chain=$2 hook
  shift 2
  iptables -w -t "$table" -n -L "$chain" >/dev/null 2>&1 || return 0
  for hook in "$@"; do
    iptables -w -t "$table" -D "$hook" -j "$chain" 2>/dev/null || true
  done
  iptables -w -t "$table" -F "$chain"
  iptables -w -t "$table" -X "$chain" || true
}

remove_rules() {
  [ -n "$bridge" ] || return 0
  remove_chain filter "$bridge" FORWARD
  remove_chain nat "$bridge-to" PREROUTING OUTPUT
  remove_chain nat "$bridge-from" POSTROUTING
}

# Logs, records and cgroups that the kubelet, the plugins and runc left outside the state folder.
remove_traces() {
  local path id
  for path in "$state"/kubelet/pods/*/; do
    rm -rf "/var/log/pods/"*"_$(basename "$path")"
  done
  find /var/log/containers -maxdepth 1 -xtype l -delete 2>/dev/null || true
  for path in "$state"/containerd/root/io.containerd.grpc.v1.cri/{sandboxes,containers}/*/; do
    id=$(basename "$path")
    rm -f /var/lib/cni/results/*"-$id-"*
    find /sys/fs/cgroup -maxdepth 3 -depth -type d -path "*/k8s.io/$id" -exec rmdir {} + 2>/dev/null || true
  done
  rmdir /sys/fs/cgroup/*/k8s.io 2>/dev/null || true
}

restore_settings() {
  [ -e "$state/sysctl" ] || return 0
  sysctl -q -p "$state/sysctl" || true
}

# The watcher that start.sh left runs this very script in the end.
[ "$(part_pid watch || true)" = "$$" ] || stop_part watch
end_pods
remember_namespaces
stop_part kubelet
kill_containers
stop_part containerd
kill_shims
# What they hold is thrown away, and they take their time to end in good order.
stop_part apiserver KILL
stop_part etcd KILL
unmount
remove_links
remove_rules
remove_traces
restore_settings
if [ "$keep" != --keep ]; then
  rm -rf "$state"
fi
