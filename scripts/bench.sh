#!/usr/bin/env bash
# What `wiretag replay --null` costs next to other tools, on synthetic captures and on a real mix; memory; flow rate.
# Prints Markdown to stdout (docs/performance.md is made of it), progress to stderr.
#
# usage: scripts/bench.sh [--quick] [--flows N] [--rounds N] [--wiretag BINARY]
#   --quick     small captures, three rounds, no million flows
#   --wiretag   measure this binary instead of building one
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/setup.sh
export LC_ALL=C.UTF-8

flows=270000 rounds=5 many=1000000 reps=180 wiretag=
while [ $# -gt 0 ]; do
  case $1 in
    --quick) flows=30000 rounds=3 many=100000 reps=20 ;;
    --flows) flows=$2; shift ;;
    --rounds) rounds=$2; shift ;;
    --wiretag) wiretag=$2; shift ;;
    *) say "error: unknown option \`$1\`; hint: --quick, --flows N, --rounds N, --wiretag BINARY"; exit 2 ;;
  esac
  shift
done

need_build_tools
need_packages python3 tcpdump
# A peer that cannot be installed is left out, and said.
for package in tshark argus-server softflowd nfdump pmacct libndpi-bin valgrind; do
  (need_packages "$package") || say "left out: Debian package $package cannot be installed"
done
examples=${CARGO_TARGET_DIR:-target}/release/examples
if [ -z "$wiretag" ]; then
  build_release
  wiretag=${CARGO_TARGET_DIR:-target}/release/wiretag
fi
cargo build --release --locked -q -p wiretag-capture --example gensynth --example footprint
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/nf"
shared=../shared/bench

# A number of a truth file.
truth() { python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))[sys.argv[2]])' "$1" "$2"; }

floor=
if [ -e "$shared/flowfloor.c" ]; then
  cc -O2 -w -o "$work/flowfloor" "$shared/flowfloor.c" && floor=$work/flowfloor
else
  say "left out: the floor (no $shared/flowfloor.c)"
fi

# One line a program that is there: name, packets of its own or 0, command, whether once.
programs() {
  local file=$1 part=$2 part_packets=$3
  add() {
    if [ -x "$(command -v "${3%% *}")" ]; then printf '%s\t%s\t%s\t%s\n' "$1" "$2" "$3" "${4:-}"; else say "left out: $1"; fi
  }
  add 'cat > /dev/null' 0 "cat $file"
  [ -z "$floor" ] || add 'flowfloor 2 (C)' 0 "$floor 2 $file"
  add 'wiretag replay --null' 0 "$wiretag replay --null $file"
  add 'tcpdump -w /dev/null' 0 "tcpdump -r $file -w /dev/null"
  add softflowd 0 "softflowd -d -r $file"
  add nfpcapd 0 "nfpcapd -r $file -l $work/nf"
  add argus 0 "argus -X -r $file -w /dev/null"
  add 'argus -J -R -A -Z' 0 "argus -X -J -R -A -Z -r $file -w /dev/null"
  add ndpiReader 0 "ndpiReader -q -i $file"
  # Given more at once, it drops what its second process does not take over in time; and it waits for the full minute.
  add pmacctd "$part_packets" "pmacctd -I $part -c src_host,dst_host,src_port,dst_port,proto -P print -O csv" once
  add 'tshark -z conv,tcp' "$part_packets" "tshark -r $part -q -z conv,tcp" once
}

compare() {
  local title=$1 file=$2 packets=$3
  tcpdump -r "$file" -c 200000 -w "$work/part.pcap" 2>/dev/null
  local part_packets=$((packets < 200000 ? packets : 200000))
  programs "$file" "$work/part.pcap" "$part_packets" | python3 benches/measure.py "$title" "$packets" "$rounds"
}

say "synthetic capture of $flows flows"
"$examples/gensynth" "$work/synth.pcap" "$work/synth.json" --flows "$flows" --span 300
compare "synthetic, containers" "$work/synth.pcap" "$(truth "$work/synth.json" packets)"

if [ -e "$shared/mkreal.c" ] && [ -d ../shared/corpus/pcaps ]; then
  say "real mix"
  cc -O2 -w -o "$work/mkreal" "$shared/mkreal.c"
  "$work/mkreal" "$work/real.pcap" "$reps" 300 1 ../shared/corpus/pcaps/* >"$work/real.json"
  compare "real mix" "$work/real.pcap" "$(truth "$work/real.json" packets)"
  rm -f "$work/real.pcap"
else
  say "left out: the real mix (no $shared/mkreal.c or no corpus)"
fi

# Other mixes: ours and the floor.
printf '\n**Other mixes**, CPU of `wiretag replay --null`, medians of %s\n\n' "$rounds"
printf '| mix | packets | flows | ns/packet | flows/s of CPU | peak MiB |\n| --- | ---: | ---: | ---: | ---: | ---: |\n'
mixes() {
  local name=$1; shift
  "$examples/gensynth" "$work/mix.pcap" "$work/mix.json" "$@"
  python3 - "$name" "$work/mix.json" "$rounds" "$wiretag" "$work/mix.pcap" <<'PY'
import json, os, statistics, subprocess, sys
name, truth, rounds, wiretag, file = sys.argv[1], json.load(open(sys.argv[2])), int(sys.argv[3]), *sys.argv[4:]
cpu, rss = [], 0
for _ in range(rounds):
    child = subprocess.Popen([wiretag, "replay", "--null", file], stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    cpu.append(usage.ru_utime + usage.ru_stime)
    rss = max(rss, usage.ru_maxrss // 1024)
middle = statistics.median(cpu)
print(f"| {name} | {truth['packets']:,} | {truth['flows']:,} | {middle / truth['packets'] * 1e9:,.0f} "
      f"| {truth['flows'] / middle:,.0f} | {rss:,} |")
PY
}
mixes 'web: DNS, TLS, HTTP/1' --mix web --flows "$((flows / 2))"
mixes 'containers in VXLAN' --vxlan --flows "$((flows / 2))"
mixes 'scan: half of the flows are unanswered SYNs' --mix scan --flows "$flows"
mixes "many: $many connections that stay open" --mix many --flows "$many" --span 50

say "memory"
printf '\n**Memory**, flow engine alone, before the table is emptied\n\n'
printf '| open connections | resident MiB | bytes a tracked flow |\n| ---: | ---: | ---: |\n'
for count in "$((many / 10))" "$many"; do
  "$examples/gensynth" "$work/mix.pcap" "$work/mix.json" --mix many --flows "$count" --span 50
  "$examples/footprint" "$work/mix.pcap" | python3 -c '
import json, sys
seen = json.load(sys.stdin)
print("| {:,} | {:,.0f} | {:,} |".format(seen["flows_active"], seen["resident"] / 2**20, seen["bytes_a_flow"]))'
done
rm -f "$work/mix.pcap" "$work/synth.pcap"

if command -v valgrind >/dev/null; then
  say "instructions"
  printf '\n**Instructions a packet** under callgrind (difference of two sizes, so start and end do not count)\n\n'
  printf '| mix | instructions/packet |\n| --- | ---: |\n'
  for mix in container web many; do
    for count in 1000 5000; do
      "$examples/gensynth" "$work/small.pcap" "$work/small-$count.json" --mix "$mix" --flows "$count" --span 30
      valgrind --tool=callgrind --callgrind-out-file="$work/callgrind.$mix.$count" \
        "$wiretag" replay --null "$work/small.pcap" 2>"$work/valgrind-$count.log"
    done
    python3 - "$mix" "$work" <<'PY'
import json, re, sys
mix, work = sys.argv[1:]
seen = []
for count in (1000, 5000):
    text = open(f"{work}/valgrind-{count}.log").read()
    instructions = int(re.search(r"Collected : (\d+)", text).group(1))
    seen.append((json.load(open(f"{work}/small-{count}.json"))["packets"], instructions))
(few, less), (many, more) = seen
print(f"| {mix} | {(more - less) / (many - few):,.0f} |")
PY
  done
  printf '\n**Where they go** (containers, share of instructions, functions of 1.5 %% and more)\n\n'
  callgrind_annotate --auto=no "$work/callgrind.container.5000" 2>/dev/null | python3 -c '
import re, sys
print("| share | function |\n| ---: | --- |")
for line in sys.stdin:
    found = re.match(r"\s*[\d,]+ \(\s*([\d.]+)%\)\s+(.*)", line)
    if found and float(found.group(1)) >= 1.5 and "PROGRAM TOTALS" not in line:
        name = re.sub(r" \[.*", "", found.group(2)).split(":", 1)[-1]
        print(f"| {found.group(1)} % | `{name[:110]}` |")'
fi
say "done"
