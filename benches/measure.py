"""CPU time of programs on one capture, in interleaved rounds, as a Markdown table.

usage: measure.py TITLE PACKETS ROUNDS < PROGRAMS    one line a program: NAME<tab>PACKETS or 0<tab>COMMAND<tab>ONCE or empty

A program that has a packet count of its own reads a part of the capture. CPU time is user + sys of the program and all
that it starts, from a control group where one can be made, else from wait4 (which misses children that nobody waits for).
Prints the table to stdout, progress to stderr.
"""

import os
import shlex
import statistics
import subprocess
import sys
import time

GROUPS = ["/sys/fs/cgroup/cpuacct", "/sys/fs/cgroup"]


class Group:
    """A control group that counts the CPU time of what runs in it."""

    def __init__(self):
        self.path = None
        for root in GROUPS:
            usage = "cpuacct.usage" if root.endswith("cpuacct") else "cpu.stat"
            path = f"{root}/wiretag-bench-{os.getpid()}"
            try:
                os.mkdir(path)
                if os.path.exists(f"{path}/{usage}") and os.path.exists(f"{path}/cgroup.procs"):
                    self.path, self.usage = path, usage
                    return
                os.rmdir(path)
            except OSError:
                continue

    def enter(self):
        if self.path:
            with open(f"{self.path}/cgroup.procs", "w") as procs:
                procs.write(str(os.getpid()))

    def seconds(self):
        with open(f"{self.path}/{self.usage}") as usage:
            text = usage.read()
        if self.usage == "cpuacct.usage":
            return int(text) / 1e9
        return int(next(line.split()[1] for line in text.splitlines() if line.startswith("usage_usec"))) / 1e6

    def close(self):
        if self.path:
            try:
                os.rmdir(self.path)
            except OSError:
                pass


def run(command, group):
    """CPU seconds, wall seconds, peak RSS in KiB; None if it fails."""
    before = group.seconds() if group.path else 0
    start = time.monotonic()
    child = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=group.enter,
    )
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    wall = time.monotonic() - start
    if child.returncode != 0:
        return None
    cpu = group.seconds() - before if group.path else usage.ru_utime + usage.ru_stime
    return cpu, wall, usage.ru_maxrss


def main():
    title, packets, rounds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    programs = []
    for line in sys.stdin:
        name, own, command, once = (line.rstrip("\n").split("\t") + ["", ""])[:4]
        programs.append((name, int(own) or packets, shlex.split(command), bool(once)))
    results = {name: [] for name, *_ in programs}
    group = Group()
    try:
        for round_number in range(rounds):
            for name, _, command, once in programs:
                if results[name] is None or (once and round_number > 0):
                    continue
                measured = run(command, group)
                if measured is None:
                    results[name] = None
                else:
                    results[name].append(measured)
            print(f"==> {title}: round {round_number + 1} of {rounds}", file=sys.stderr)
    finally:
        group.close()
    costs = {}
    for name, count, *_ in programs:
        if results[name]:
            costs[name] = statistics.median(cpu for cpu, _, _ in results[name]) / count * 1e9
    bases = [name for name in ("flowfloor 2 (C)", "softflowd", "argus") if name in costs]
    print(f"\n**{title}**: {packets:,} packets, medians of {rounds} interleaved rounds (`once`: one run on a part)\n")
    print("| program | CPU ns/packet | range | packets/s of CPU | peak MiB |" + "".join(f" × {base} |" for base in bases))
    print("| --- | ---: | ---: | ---: | ---: |" + " ---: |" * len(bases))
    for name, count, _, once in programs:
        if not results[name]:
            print(f"| {name} | fails here | | | |" + " |" * len(bases))
            continue
        each = sorted(cpu / count * 1e9 for cpu, _, _ in results[name])
        rss = max(rss for _, _, rss in results[name]) / 1024
        label = f"{name} (once)" if once else name
        ratios = "".join(f" {costs[name] / costs[base]:.2f} |" for base in bases)
        print(
            f"| {label} | {costs[name]:,.0f} | {each[0]:,.0f}–{each[-1]:,.0f} | {1e9 / costs[name]:,.0f} | {rss:,.0f} |{ratios}"
        )


main()
