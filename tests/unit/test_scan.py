"""The scan from outside sees what is open, and nothing else."""

from __future__ import annotations

import os
import socket

import pytest
import scan

RAW = pytest.mark.skipif(
    os.geteuid() != 0, reason="a packet of one's own making needs root, which the probe's container has"
)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """One round, with little patience: loopback loses nothing."""
    monkeypatch.setattr(scan, "ROUNDS", 1)
    monkeypatch.setattr(scan, "PATIENCE", 0.5)


def test_checksum_of_a_packet_with_its_checksum_is_zero() -> None:
    # The example of RFC 1071.
    assert scan.checksum(bytes.fromhex("0001f203f4f5f6f7")) == 0x220D
    segment = scan.syn("192.0.2.1", "192.0.2.2", 443)
    pseudo = socket.inet_aton("192.0.2.1") + socket.inet_aton("192.0.2.2") + b"\0\6\0\24"
    assert scan.checksum(pseudo + segment) == 0


@pytest.mark.parametrize(
    ("flags", "to", "port"),
    [
        (scan.SYN_ACK, scan.FROM_PORT, 443),
        (0x14, scan.FROM_PORT, None),
        (scan.SYN_ACK, 4711, None),
        (0x02, scan.FROM_PORT, None),
    ],
)
def test_only_a_yes_to_us_counts(flags: int, to: int, port: int | None) -> None:
    segment = bytearray(20)
    segment[0:2], segment[2:4], segment[13] = (443).to_bytes(2, "big"), to.to_bytes(2, "big"), flags
    assert scan.opened(bytes(segment)) == port
    assert scan.opened(bytes(segment[:10])) is None


@RAW
@pytest.mark.parametrize(("family", "address"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
def test_open_port_is_found_among_closed_ones(
    monkeypatch: pytest.MonkeyPatch, family: socket.AddressFamily, address: str
) -> None:
    if family == socket.AF_INET6 and not os.path.exists("/proc/net/if_inet6"):
        pytest.skip("this computer has no IPv6")
    with socket.create_server((address, 0), family=family) as server:
        port = server.getsockname()[1]
        monkeypatch.setattr(scan, "PORTS", range(max(1, port - 20), min(65535, port + 20)))
        found = scan.tcp(address, address)
    assert port in found
    assert scan.tcp(address, address) == [other for other in found if other != port]


def test_udp_port_that_answers_and_one_that_is_told_closed_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A closed port of loopback is told so; a firewall would say nothing."""
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free,
    ):
        silent.bind(("127.0.0.1", 0))
        free.bind(("127.0.0.1", 0))
        ports = (silent.getsockname()[1], free.getsockname()[1])
        free.close()
        monkeypatch.setattr(scan, "UDP_PORTS", ports)
        assert scan.udp("127.0.0.1", "127.0.0.1") == [ports[1]]
