"""Which ports of a machine answer, asked from here: `scan.py SOURCE TARGET`. Runs as root, needs nothing but Python.

TCP: one SYN for each of the 65,535 ports, answered or not, so that a silent firewall costs no time; what a round has
not seen open is asked again. UDP: a question to each well-known port; an answer counts, and so does the word that the
port is closed, because a firewall would have said nothing. Prints {"tcp": [...], "udp": [...]}.

`scan.py SOURCE TARGET --through MAC PORT`: one port of an address that no router would pass on (a neighbour's
127.0.0.1), sent in a frame to that network card.
"""

from __future__ import annotations

import argparse
import ipaddress
import json
import os
import select
import socket
import struct
import sys
import time
from typing import Any

PORTS = range(1, 65536)
ROUNDS = 3
BATCH = 400
# Seconds for the last answers of a round.
PATIENCE = 2.0
# A port of ours that tells our answers from other traffic, and from those that an earlier scan is still given.
FROM_PORT = 40000 + os.getpid() % 20000
SYN, SYN_ACK = 0x02, 0x12
ETHERNET, IPV4 = 14, 20
UDP_PORTS = (7, 53, 67, 68, 69, 111, 123, 137, 138, 161, 500, 514, 520, 1194, 1900, 2049, 4500, 4789, 5353, 7946, 51820)


def checksum(data: bytes) -> int:
    """The internet checksum (RFC 1071)."""
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def syn(source: str, target: str, port: int) -> bytes:
    """A TCP segment that asks for a connection. The kernel fills in the checksum of IPv6."""
    segment = struct.pack("!HHIIBBHHH", FROM_PORT, port, port, 0, 5 << 4, SYN, 1024, 0, 0)
    if ":" in target:
        return segment
    pseudo = socket.inet_aton(source) + socket.inet_aton(target) + struct.pack("!BBH", 0, 6, len(segment))
    return segment[:16] + struct.pack("!H", checksum(pseudo + segment)) + segment[18:]


def opened(segment: bytes) -> int | None:
    """The port that says yes in a TCP segment for us, if it is one."""
    if len(segment) < 20:
        return None
    port, to = struct.unpack("!HH", segment[:4])
    return int(port) if to == FROM_PORT and segment[13] & 0x3F == SYN_ACK else None


def place(address: str) -> tuple[int, Any]:
    """Family and socket address, with the interface of one that is valid on a wire only (fe80::1%eth0)."""
    family, _, _, _, where = socket.getaddrinfo(address, 0, type=socket.SOCK_STREAM)[0]
    return family, where


def tcp(source: str, target: str) -> list[int]:
    """Ports that accept a connection."""
    family, there = place(target)
    wire = socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_TCP)
    wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
    if family == socket.AF_INET6:
        wire.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_CHECKSUM, 16)
    wire.bind(place(source)[1])
    found: set[int] = set()

    def listen(seconds: float) -> None:
        until = time.monotonic() + seconds
        while select.select([wire], [], [], max(0.0, until - time.monotonic()))[0]:
            packet, sender = wire.recvfrom(2048)
            if ipaddress.ip_address(sender[0].partition("%")[0]) != ipaddress.ip_address(target.partition("%")[0]):
                continue
            port = opened(packet[(packet[0] & 15) * 4 :] if family == socket.AF_INET else packet)
            if port is not None:
                found.add(port)

    for _ in range(ROUNDS):
        asked = [port for port in PORTS if port not in found]
        for number, port in enumerate(asked):
            wire.sendto(syn(source, target, port), there)
            if number % BATCH == 0:
                listen(0.004)
        listen(PATIENCE)
    return sorted(found)


def udp(source: str, target: str) -> list[int]:
    """Ports that answer, or are told closed."""
    family, there = place(target)
    waiting: dict[socket.socket, int] = {}
    for port in UDP_PORTS:
        asking = socket.socket(family, socket.SOCK_DGRAM)
        asking.bind(place(source)[1])
        asking.connect((there[0], port, *there[2:]))
        waiting[asking] = port
    found: set[int] = set()
    for _ in range(ROUNDS):
        for asking, port in waiting.items():
            try:
                asking.send(b"\0" * 48)
            except ConnectionRefusedError:
                found.add(port)
        until = time.monotonic() + PATIENCE / 2
        while ready := select.select(list(waiting), [], [], max(0.0, until - time.monotonic()))[0]:
            for asking in ready:
                found.add(waiting[asking])
                try:
                    asking.recv(2048)
                except ConnectionRefusedError:
                    continue
    return sorted(found)


def through(source: str, target: str, card: str, port: int) -> list[int]:
    """The port, if it says yes to a frame that was sent to a network card."""
    wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0003))
    wire.bind(("eth0", 0))
    own = wire.getsockname()[4]
    segment = syn(source, target, port)
    head = struct.pack(
        "!BBHHHBBH4s4s", 0x45, 0, IPV4 + len(segment), 1, 0, 64, 6, 0, *map(socket.inet_aton, (source, target))
    )
    head = head[:10] + struct.pack("!H", checksum(head)) + head[12:]
    frame = bytes.fromhex(card.replace(":", "")) + own + b"\x08\x00" + head + segment
    for _ in range(ROUNDS):
        wire.send(frame)
        until = time.monotonic() + PATIENCE
        while select.select([wire], [], [], max(0.0, until - time.monotonic()))[0]:
            if opened(wire.recv(2048)[ETHERNET + IPV4 :]) == port:
                return [port]
    return []


def main() -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(description="Which ports of a machine answer.")
    parser.add_argument("source")
    parser.add_argument("target")
    parser.add_argument("--through", nargs=2, metavar=("MAC", "PORT"))
    given = parser.parse_args()
    if given.through:
        card, port = given.through
        print(json.dumps({"tcp": through(given.source, given.target, card, int(port))}))
    else:
        print(json.dumps({"tcp": tcp(given.source, given.target), "udp": udp(given.source, given.target)}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
