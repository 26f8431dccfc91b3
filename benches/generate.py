#!/usr/bin/env python3
"""Writes a synthetic capture (classic pcap, nanoseconds): TCP conversations with handshakes, data, acknowledgements and
some retransmissions, DNS and plain UDP. Seeded: the same arguments give the same bytes.

usage: generate.py FILE [PACKETS] [SEED]
"""
import random
import struct
import sys


def checksum_free_ip(proto, src, dst, payload_len, ident):
    return struct.pack(">BBHHHBBH4s4s", 0x45, 0, 20 + payload_len, ident & 0xFFFF, 0x4000, 64, proto, 0, src, dst)


def tcp(sport, dport, seq, ack, flags, payload=b"", options=b""):
    offset = (5 + len(options) // 4) << 4
    return struct.pack(">HHIIBBHHH", sport, dport, seq & 0xFFFFFFFF, ack & 0xFFFFFFFF, offset, flags, 64240, 0, 0) + options + payload


def udp(sport, dport, payload):
    return struct.pack(">HHHH", sport, dport, 8 + len(payload), 0) + payload


class Writer:
    def __init__(self, path, rng):
        self.out = open(path, "wb", buffering=1 << 20)
        self.out.write(struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 65535, 1))
        self.time = 1_700_000_000_000_000_000
        self.rng = rng
        self.packets = 0
        self.ident = 0

    def ip(self, proto, src, dst, body):
        self.ident += 1
        self.time += self.rng.randrange(200, 4000)
        data = b"\x02\x00\x00\x00\x00\x01\x02\x00\x00\x00\x00\x02\x08\x00" + checksum_free_ip(proto, src, dst, len(body), self.ident) + body
        self.out.write(struct.pack("<IIII", self.time // 10**9, self.time % 10**9, len(data), len(data)) + data)
        self.packets += 1


def conversation(rng):
    """Yields (from_client, proto, body) of one conversation."""
    sport = rng.randrange(32768, 61000)
    kind = rng.random()
    if kind < 0.2:
        ident = rng.randrange(65536)
        name = b"".join(bytes([len(p)]) + p for p in (b"svc%d" % rng.randrange(500), b"example", b"test")) + b"\0"
        yield True, 17, udp(sport, 53, struct.pack(">HHHHHH", ident, 0x100, 1, 0, 0, 0) + name + b"\0\1\0\1")
        yield False, 17, udp(53, sport, struct.pack(">HHHHHH", ident, 0x8180, 1, 1, 0, 0) + name + b"\0\1\0\1" + b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4\x0a\0\0\1")
        return
    if kind < 0.3:
        for _ in range(rng.randrange(1, 20)):
            yield rng.random() < 0.5, 17, udp(sport, 9000, bytes(rng.randrange(10, 900)))
        return
    dport = rng.choice((80, 443, 5432, 8080))
    a, b = rng.randrange(1 << 32), rng.randrange(1 << 32)
    yield True, 6, tcp(sport, dport, a, 0, 0x02, options=b"\x02\x04\x05\xb4")
    yield False, 6, tcp(dport, sport, b, a + 1, 0x12, options=b"\x02\x04\x05\xb4")
    a, b = a + 1, b + 1
    yield True, 6, tcp(sport, dport, a, b, 0x10)
    for _ in range(rng.randrange(1, 12)):
        request = bytes(rng.randrange(40, 600))
        yield True, 6, tcp(sport, dport, a, b, 0x18, request)
        a += len(request)
        for _ in range(rng.randrange(1, 8)):
            part = bytes(rng.choice((200, 800, 1460)))
            segment = tcp(dport, sport, b, a, 0x18, part)
            yield False, 6, segment
            if rng.random() < 0.01:
                yield False, 6, segment
            b += len(part)
            yield True, 6, tcp(sport, dport, a, b, 0x10)
    yield True, 6, tcp(sport, dport, a, b, 0x11)
    yield False, 6, tcp(dport, sport, b, a + 1, 0x11)
    yield True, 6, tcp(sport, dport, a + 1, b + 1, 0x10)


def main():
    path = sys.argv[1]
    wanted = int(sys.argv[2]) if len(sys.argv) > 2 else 1_000_000
    rng = random.Random(int(sys.argv[3]) if len(sys.argv) > 3 else 1)
    writer = Writer(path, rng)
    active = []
    while writer.packets < wanted:
        while len(active) < 2000:
            client = bytes((10, rng.randrange(256), rng.randrange(256), rng.randrange(1, 255)))
            server = bytes((10, 200, rng.randrange(8), rng.randrange(1, 100)))
            active.append((client, server, conversation(rng)))
        slot = rng.randrange(len(active))
        client, server, packets = active[slot]
        step = next(packets, None)
        if step is None:
            active[slot] = active[-1]
            active.pop()
            continue
        from_client, proto, body = step
        writer.ip(proto, client if from_client else server, server if from_client else client, body)
    writer.out.close()
    print(f"{writer.packets} packets", file=sys.stderr)


main()
