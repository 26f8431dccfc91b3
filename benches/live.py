"""Captures on one end of a veth while `blast` or iperf3 sends through it; prints Markdown tables.

Called by scripts/bench-live.sh, which makes the namespaces. All that is started is stopped here.
"""

import argparse
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import time



def say(text):
    print(f"==> {text}", file=sys.stderr, flush=True)


def settle(arguments):
    """What the run before wrote must not be written back during the next."""
    for name in os.listdir(arguments.work):
        if name.startswith("out"):
            os.remove(f"{arguments.work}/{name}")
    os.sync()
    time.sleep(0.5)


def rotated(items, number):
    """Each round begins with another, so that none always comes after the same."""
    number %= len(items)
    return items[number:] + items[:number]


def in_namespace(namespace, *command):
    return ["ip", "netns", "exec", namespace, *map(str, command)]


def cpu(pid):
    """CPU seconds, user and system, by thread name; to the nanosecond, unlike the ticks in `stat`."""
    seconds = {}
    for thread in os.listdir(f"/proc/{pid}/task"):
        try:
            with open(f"/proc/{pid}/task/{thread}/comm") as comm, open(f"/proc/{pid}/task/{thread}/schedstat") as stat:
                name, ran = comm.read().strip(), int(stat.read().split()[0])
        except OSError:
            continue
        seconds[name] = seconds.get(name, 0) + ran / 1e9
    return seconds


class Receiver:
    """A program that captures. `counts` gives (received, drops as it reports them)."""

    def __init__(self, name, command, work):
        self.name, self.command, self.work = name, command, work

    def start(self, arguments):
        self.out = open(f"{self.work}/out", "w+")
        self.child = subprocess.Popen(
            in_namespace(arguments.receiver, *self.command), stdin=subprocess.PIPE, stdout=self.out, stderr=self.out
        )
        self.wait_until_ready()

    def wait_until_ready(self):
        time.sleep(1.2)
        if self.child.poll() is not None:
            raise RuntimeError(f"{self.name} ended: {self.text()}")

    def text(self):
        with open(f"{self.work}/out") as out:
            return out.read()

    def stop(self):
        if self.child.poll() is None:
            self.child.send_signal(signal.SIGTERM)
        try:
            self.child.wait(30)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait()
        self.out.close()

    def counts(self):
        return None, None

    # Bytes that were written, for those that keep packets.
    stored = None


class Tcpdump(Receiver):
    def stop(self):
        self.child.send_signal(signal.SIGINT)
        self.child.wait(30)
        self.stored = os.path.getsize(f"{self.work}/out.pcap")

    def counts(self):
        text = self.text()
        find = lambda what: int(re.search(rf"(\d+) packets? {what}", text).group(1))
        return find("captured"), find("dropped by kernel")


class Softflowd(Receiver):
    def stop(self):
        command = ["softflowctl", "-c", f"{self.work}/softflowd.ctl", "statistics"]
        self.statistics = subprocess.run(command, capture_output=True, text=True).stdout
        super().stop()

    def counts(self):
        received = re.search(r"Packets processed: (\d+)", self.statistics)
        drops = re.search(r"Dropped[^:]*: *(\d+)|(\d+) dropped", self.statistics, re.IGNORECASE)
        return received and int(received.group(1)), drops and int(next(filter(None, drops.groups()), 0))


class Timed(Receiver):
    """Ends at SIGTERM or the end of its input, at the latest after its time, and prints a line of JSON."""

    def stop(self):
        self.child.stdin.close()
        if self.command[-1] == "touch":
            self.child.send_signal(signal.SIGTERM)
        self.child.wait(30)

    def counts(self):
        line = next(line for line in self.text().splitlines() if line.startswith("{"))
        seen = json.loads(line)
        return seen["packets"], seen["drops"]


class Wiretag(Receiver):
    def start(self, arguments):
        self.data = f"{self.work}/data"
        self.namespace = arguments.receiver
        super().start(arguments)

    def wait_until_ready(self):
        for _ in range(200):
            if self.child.poll() is not None:
                raise RuntimeError(f"wiretag ended: {self.text()}")
            if os.path.exists(f"{self.data}/run.json"):
                time.sleep(1)
                return
            time.sleep(0.1)
        raise RuntimeError("wiretag does not start")

    def stop(self):
        with open(f"{self.data}/run.json") as run, open(f"{self.data}/token") as token:
            url, secret = json.load(run)["url"], token.read().strip()
        command = ["curl", "-s", "-H", f"Authorization: Bearer {secret}", f"{url}/metrics"]
        self.metrics = subprocess.run(in_namespace(self.namespace, *command), capture_output=True, text=True).stdout
        super().stop()
        folders = os.walk(f"{self.data}/packets")
        self.stored = sum(os.path.getsize(f"{folder}/{name}") for folder, _, names in folders for name in names)
        shutil.rmtree(self.data, ignore_errors=True)

    def metric(self, name):
        return sum(float(line.split()[-1]) for line in self.metrics.splitlines() if re.match(rf"{name}[ {{]", line))

    def counts(self):
        drops = self.metric("wiretag_capture_kernel_drops_total") + self.metric("wiretag_capture_queue_drops_total")
        return int(self.metric("wiretag_capture_packets_total")), int(drops)


# Name, snap length, `[packets] compression`.
WIRETAG = [
    ("wiretag run", 65535, None),
    ("wiretag run, compression none", 65535, '"none"'),
    ("wiretag run, headers only", 128, None),
]


def receivers(arguments):
    """Those that are there."""
    work, interface, seconds = arguments.work, arguments.interface, arguments.seconds + 20
    found = []
    if arguments.bare:
        found.append(Timed("bare ring loop (C)", [arguments.bare, interface, seconds, "touch"], work))
    found.append(Timed("ring + flow engine", [arguments.live, interface, seconds], work))
    found.append(Timed("ring + flow engine, headers only", [arguments.live, interface, seconds, 128], work))
    if arguments.wiretag:
        for name, snap, compression in WIRETAG:
            config = f"{work}/wiretag-{len(found)}.toml"
            with open(config, "w") as out:
                out.write(f"[capture]\nsnap_length = {snap}\nring_mib = 64\n")
                if compression is not None:
                    out.write(f"[packets]\ncompression = {compression}\n")
            command = [arguments.wiretag, "run", "--config", config, "--data", f"{work}/data"]
            found.append(Wiretag(name, [*command, "--listen", "127.0.0.1:0", "-i", interface], work))
    if shutil.which("tcpdump"):
        command = ["tcpdump", "-Z", "root", "-n", "-i", interface, "-B", 65536, "-w", f"{work}/out.pcap"]
        found.append(Tcpdump("tcpdump -B 65536 -w", command, work))
    if shutil.which("softflowd"):
        command = ["softflowd", "-d", "-i", interface, "-p", f"{work}/softflowd.pid", "-c", f"{work}/softflowd.ctl"]
        found.append(Softflowd("softflowd", command, work))
    wanted = arguments.only.split(";") if arguments.only else None
    return [receiver for receiver in found if wanted is None or receiver.name in wanted]


def blast_round(receiver, arguments):
    """(CPU µs a packet by thread, sent, received, reported drops, bytes written for each byte sent)"""
    receiver.start(arguments)
    before = cpu(receiver.child.pid)
    command = [arguments.blast, arguments.sender_interface, arguments.path, arguments.seconds, arguments.rate]
    sent = json.loads(subprocess.run(in_namespace(arguments.sender, *command), capture_output=True, check=True).stdout)
    time.sleep(1)
    after = cpu(receiver.child.pid)
    receiver.stop()
    received, drops = receiver.counts()
    used = {name: (after[name] - before.get(name, 0)) / sent["sent"] * 1e6 for name in after}
    return used, sent, received, drops, receiver.stored and receiver.stored / sent["bytes"]


def blast(arguments):
    results = {}
    for number in range(arguments.rounds):
        for receiver in rotated(receivers(arguments), number):
            settle(arguments)
            say(f"{receiver.name}, round {number + 1} of {arguments.rounds}")
            try:
                results.setdefault(receiver.name, []).append(blast_round(receiver, arguments))
            except (RuntimeError, StopIteration, AttributeError, OSError, subprocess.SubprocessError) as error:
                say(f"{receiver.name} failed: {error}")
    rate = "as fast as the sender can" if arguments.rate == 0 else f"{arguments.rate:,} packets/s asked for"
    sent = [sent for rounds in results.values() for _, sent, *_ in rounds]
    size = sum(one["bytes"] for one in sent) / sum(one["sent"] for one in sent)
    base = [sum(used.values()) for used, *_ in next((rounds for name, rounds in results.items() if "tcpdump" in name), [])]
    print(f"\n**veth, {arguments.traffic} ({size:.0f} bytes a packet), {rate}**, {arguments.seconds} s a run, "
          f"medians of {arguments.rounds} interleaved rounds\n")
    print("| receiver | sent, kpps | CPU µs/packet | range | × tcpdump | written / sent bytes | lost (sent − received) "
          "| drops it reports |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for name, rounds in results.items():
        totals = sorted(sum(used.values()) for used, *_ in rounds)
        sent = sum(sent["sent"] for _, sent, *_ in rounds)
        received = sum(received or 0 for _, _, received, *_ in rounds)
        drops = sum(drops or 0 for *_, drops, _ in rounds)
        rate = statistics.median(sent["packets_per_second"] for _, sent, *_ in rounds) / 1000
        lost = f"{max(0, sent - received) / sent:.2%}"
        if all(received is None for _, _, received, *_ in rounds):
            lost = "unknown"
        written = [written for *_, written in rounds if written]
        written = f"{statistics.median(written):.2f}" if written else ""
        ratio = f"{statistics.median(totals) / statistics.median(base):.2f}" if base else ""
        print(
            f"| {name} | {rate:,.0f} | {statistics.median(totals):.3f} | {totals[0]:.3f}–{totals[-1]:.3f} "
            f"| {ratio} | {written} | {lost} | {drops / sent:.2%} |"
        )
        threads = {thread for used, *_ in rounds for thread in used}
        if name.startswith("wiretag run"):
            for thread in sorted(threads):
                middle = statistics.median(used.get(thread, 0) for used, *_ in rounds)
                if middle >= 0.01:
                    print(f"| … thread `{thread}` | | {middle:.3f} | | | | | |")


def iperf_run(arguments):
    """Gbit/s of one TCP connection through the veth, CPU seconds of both its ends, gigabytes."""
    server = subprocess.Popen(
        in_namespace(arguments.receiver, "iperf3", "-s", "-1"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        time.sleep(0.4)
        client = in_namespace(arguments.sender, "iperf3", "-c", arguments.address, "-t", arguments.iperf_seconds, "-J")
        answer = json.loads(subprocess.run(client, capture_output=True, check=True, timeout=60).stdout)
        end = answer["end"]
        busy = end["cpu_utilization_percent"]
        busy = (busy["host_total"] + busy["remote_total"]) / 100 * end["sum_received"]["seconds"]
        return end["sum_received"]["bits_per_second"] / 1e9, busy, end["sum_received"]["bytes"] / 1e9
    finally:
        server.kill()
        server.wait()


def iperf(arguments):
    arguments.seconds = arguments.iperf_seconds + 2
    wanted = ["no capture", "ring + flow engine, headers only", "ring + flow engine", "wiretag run, headers only",
              "wiretag run", "tcpdump -B 65536 -w"]
    results = {}
    for number in range(arguments.rounds):
        there = {receiver.name: receiver for receiver in receivers(arguments)}
        for name in rotated(wanted, number):
            if name != "no capture" and name not in there:
                continue
            settle(arguments)
            say(f"iperf3, {name}, round {number + 1} of {arguments.rounds}")
            receiver = there.get(name)
            try:
                if receiver:
                    receiver.start(arguments)
                before = sum(cpu(receiver.child.pid).values()) if receiver else 0
                rate, busy, gigabytes = iperf_run(arguments)
                own = sum(cpu(receiver.child.pid).values()) - before if receiver else 0
                results.setdefault(name, []).append((rate, busy / gigabytes, own / gigabytes))
            except (RuntimeError, KeyError, OSError, subprocess.SubprocessError) as error:
                say(f"{name} failed: {error}")
            finally:
                if receiver:
                    receiver.stop()
    median = lambda name, column: statistics.median(run[column] for run in results[name])
    print(f"\n**iperf3 over the veth**, one connection, {arguments.iperf_seconds} s a run, "
          f"medians of {arguments.rounds} interleaved rounds\n")
    print("| capture | Gbit/s | range | CPU s/GB of both ends | CPU s/GB of the capture | all, × no capture |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    base = median("no capture", 1)
    for name in filter(results.get, wanted):
        rates = [run[0] for run in results[name]]
        ends, own = median(name, 1), median(name, 2)
        print(f"| {name} | {median(name, 0):.1f} | {min(rates):.1f}–{max(rates):.1f} | {ends:.2f} | {own:.2f} "
              f"| {(ends + own) / base:.2f} |")


def main():
    parser = argparse.ArgumentParser()
    for name in ("sender", "receiver", "sender-interface", "interface", "address", "blast", "live", "work"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--capture", action="append", required=True, help="what is sent: NAME=FILE, several times")
    parser.add_argument("--wiretag", default="")
    parser.add_argument("--bare", default="")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--iperf-seconds", type=int, default=3)
    parser.add_argument("--rates", default="300000,0")
    parser.add_argument("--only", default="", help="names of receivers, with semicolons between; no iperf3 then")
    arguments = parser.parse_args()
    seconds = arguments.seconds
    for rate in filter(None, arguments.rates.split(",")):
        for capture in arguments.capture:
            arguments.traffic, arguments.path = capture.split("=", 1)
            arguments.rate, arguments.seconds = int(rate), seconds
            blast(arguments)
    if shutil.which("iperf3") and not arguments.only:
        iperf(arguments)


main()
