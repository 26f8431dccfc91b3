#!/usr/bin/env bash
# CPU time per packet of `wiretag replay --null` next to tcpdump and tshark, on a synthetic capture, in one run.
# usage: scripts/bench.sh [PACKETS] [REPEATS]   (medians; CPU time is user + sys)
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/setup.sh
need_build_tools
need_packages tcpdump tshark python3
build_release
packets=${1:-1000000}
repeats=${2:-5}
file=$(mktemp --suffix=.pcap)
trap 'rm -f "$file"' EXIT
python3 benches/generate.py "$file" "$packets"
python3 - "$file" "$packets" "$repeats" <<'PY'
import os, resource, statistics, subprocess, sys, time
file, packets, repeats = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
programs = [
    ("cat > /dev/null", ["cat", file], repeats),
    ("tcpdump -w /dev/null", ["tcpdump", "-r", file, "-w", "/dev/null"], repeats),
    ("wiretag replay --null", ["target/release/wiretag", "replay", "--null", file], repeats),
    ("wiretag replay", ["target/release/wiretag", "replay", file], repeats),
    ("tshark -q -z conv,tcp", ["tshark", "-r", file, "-q", "-z", "conv,tcp"], 1),
]
results = {name: [] for name, _, _ in programs}
for round in range(repeats):
    for name, command, times in programs:
        if round >= times:
            continue
        before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
        subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
        after, end = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        results[name].append((cpu, end - start))
base = statistics.median(cpu for cpu, _ in results["tcpdump -w /dev/null"])
print(f"{packets} packets, {os.path.getsize(file)} bytes, medians of {repeats} (tshark: one)")
print(f"{'program':<24}{'CPU s':>8}{'ns/packet':>11}{'packets/s':>12}{'x tcpdump':>11}")
for name, _, _ in programs:
    cpu = statistics.median(cpu for cpu, _ in results[name])
    wall = statistics.median(wall for _, wall in results[name])
    print(f"{name:<24}{cpu:>8.2f}{cpu / packets * 1e9:>11.0f}{packets / wall:>12.0f}{cpu / base:>11.2f}")
PY
