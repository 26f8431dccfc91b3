#!/usr/bin/env bash
# What live capture costs: a sender in one network namespace, captures in another, a veth between; then what capture takes
# from a saturated link (iperf3). All traffic stays in namespaces that this script makes and removes. About 15 minutes; 4 with --quick.
# Prints Markdown to stdout (docs/performance.md is made of it), progress to stderr.
#
# usage: scripts/bench-live.sh [--quick] [--iperf-only] [--rounds N] [--wiretag BINARY]
#   --quick     two rounds of one second
#   --wiretag   measure this binary instead of building one
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/setup.sh
export LC_ALL=C.UTF-8

rounds=5 seconds=2 rates=200000,0 wiretag=
while [ $# -gt 0 ]; do
  case $1 in
    --quick) rounds=2 seconds=1 ;;
    --iperf-only) rates= ;;
    --rounds) rounds=$2; shift ;;
    --wiretag) wiretag=$2; shift ;;
    *) say "error: unknown option \`$1\`; hint: --quick, --iperf-only, --rounds N, --wiretag BINARY"; exit 2 ;;
  esac
  shift
done
if [ "$(id -u)" -ne 0 ]; then
  say "error: network namespaces need root; hint: sudo scripts/bench-live.sh"
  exit 1
fi

need_build_tools
need_packages python3
for package in tcpdump softflowd iperf3; do
  (need_packages "$package") || say "left out: Debian package $package cannot be installed"
done
examples=${CARGO_TARGET_DIR:-target}/release/examples
if [ -z "$wiretag" ]; then
  build_release
  wiretag=${CARGO_TARGET_DIR:-target}/release/wiretag
fi
cargo build --release --locked -q -p wiretag-capture --example gensynth --example blast --example live

work=$(mktemp -d)
sender=wiretag-bench-a-$$ receiver=wiretag-bench-b-$$
# Also runs when making them failed half way: what is not there need not be removed.
cleanup() {
  ip netns delete "$sender" 2>/dev/null || true
  ip netns delete "$receiver" 2>/dev/null || true
  rm -rf "$work"
}
trap cleanup EXIT
ip netns add "$sender"
ip netns add "$receiver"
ip -n "$sender" link add wtb0 type veth peer name wtb1 netns "$receiver"
for end in "$sender 10.99.0.1 wtb0" "$receiver 10.99.0.2 wtb1"; do
  read -r namespace address interface <<<"$end"
  # Neighbour discovery would add packets; a kernel without IPv6 has none to turn off.
  ip netns exec "$namespace" sysctl -qw net.ipv6.conf.all.disable_ipv6=1 2>/dev/null || true
  ip -n "$namespace" address add "$address/24" dev "$interface"
  ip -n "$namespace" link set lo up
  ip -n "$namespace" link set "$interface" up
done

bare=
if [ -e ../shared/bench/tp3.c ]; then
  cc -O2 -w -o "$work/tp3" ../shared/bench/tp3.c && bare=$work/tp3
else
  say "left out: the bare ring loop (no ../shared/bench/tp3.c)"
fi
"$examples/gensynth" "$work/traffic.pcap" "$work/traffic.json" --flows 30000 --span 60
captures=(--capture "synthetic containers=$work/traffic.pcap")
if [ -e ../shared/bench/mkreal.c ] && [ -d ../shared/corpus/pcaps ]; then
  cc -O2 -w -o "$work/mkreal" ../shared/bench/mkreal.c
  "$work/mkreal" "$work/real.pcap" 25 300 1 ../shared/corpus/pcaps/* >/dev/null
  captures+=(--capture "real mix=$work/real.pcap")
else
  say "left out: the real mix (no ../shared/bench/mkreal.c or no corpus)"
fi
timeout 1180 python3 benches/live.py --sender "$sender" --receiver "$receiver" --sender-interface wtb0 --interface wtb1 \
  --address 10.99.0.2 "${captures[@]}" --blast "$examples/blast" --live "$examples/live" --work "$work" \
  --wiretag "$wiretag" --bare "$bare" --rounds "$rounds" --seconds "$seconds" --rates "$rates"
say "done"
