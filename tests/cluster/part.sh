#!/usr/bin/env bash
# Stops, kills, starts or restarts one part of a running cluster, and waits until it serves again or is gone.
#   part.sh STATE start|stop|kill|restart etcd|apiserver|containerd|kubelet
set -euo pipefail
# shellcheck source=tests/cluster/common.sh
. "$(dirname "$0")/common.sh"

[ $# -eq 3 ] || fail "three arguments are needed" "part.sh STATE start|stop|kill|restart etcd|apiserver|containerd|kubelet"
state=$(realpath "$1")
load_env
case $3 in
  etcd | apiserver | containerd | kubelet) part=$3 ;;
  *) fail "there is no part \`$3\`" "etcd, apiserver, containerd or kubelet" ;;
esac

start() {
  part_pid "$part" >/dev/null && return
  "start_$part"
  part_ready "$part"
}

case $2 in
  start) start ;;
  stop) stop_part "$part" ;;
  kill) stop_part "$part" KILL ;;
  restart)
    stop_part "$part"
    start
    ;;
  *) fail "there is no action \`$2\`" "start, stop, kill or restart" ;;
esac
