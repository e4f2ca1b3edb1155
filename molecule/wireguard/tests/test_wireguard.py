"""Devices in network namespaces of the Pi that come in through the tunnel, or do not: with real packets."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import wireguard
import yaml
from testinfra.host import Host
from wireguard import Machine, Networks

FOLDER = Path(os.environ["PI_STATE"]) / "wireguard"
NETWORKS = Networks("10.66.0.0/24", "fd66:66:66::/64")
# A device with a network of its own, whose packets have to come through the Pi's port.
MAKE = """
set -eu
ip netns add NAME
ip link add NAME type veth peer name outside netns NAME
ip address add 198.51.100.1/24 dev NAME
ip link set NAME up
ip -n NAME address add 198.51.100.2/24 dev outside
ip -n NAME link set lo up
ip -n NAME link set outside up
ip -n NAME route add default via 198.51.100.1
install -d -m 0700 /run/NAME
"""
REMOVE = """
ip netns exec NAME wg-quick down /run/NAME/pct0.conf 2>/dev/null
ip netns delete NAME
ip link delete NAME 2>/dev/null
rm -rf /run/NAME
"""
SPACE = "pct-device"
# Nobody listens there: who is reached says so.
REFUSED = "Connection refused"


def knock(address: str) -> str:
    """A command that asks for an answer of any kind."""
    return f"timeout 1 bash -c 'exec 3<>/dev/tcp/{address}/9'"


class Device:
    """A device with the file that it has imported."""

    def __init__(self, host: Host) -> None:
        """In a namespace of its own."""
        self.host = host
        host.check_output(MAKE.replace("NAME", SPACE))

    def run(self, command: str, *arguments: str) -> Any:
        """A command of the device."""
        return self.host.run(f"ip netns exec {SPACE} {command}", *arguments)

    def use(self, config: str) -> None:
        """Import a file in place of the one before."""
        self.run(f"wg-quick down /run/{SPACE}/pct0.conf")
        self.host.check_output("umask 077; printf %%s %s > %s", config, f"/run/{SPACE}/pct0.conf")
        up = self.run(f"wg-quick up /run/{SPACE}/pct0.conf")
        assert up.rc == 0, up.stderr

    def reaches(self, address: str, tries: int = 10) -> bool:
        """Whether the address answers within so many tries of a second each."""
        return any(REFUSED in self.run(knock(address)).stderr for _ in range(tries))

    def remove(self) -> None:
        """Remove it."""
        self.host.run(REMOVE.replace("NAME", SPACE))


@pytest.fixture
def device(host: Host) -> Iterator[Device]:
    made = Device(host)
    try:
        yield made
    finally:
        made.remove()


@pytest.fixture
def config(host: Host, secrets: dict[str, str]) -> Callable[..., str]:
    """The file of a device, as `make vpn-client` writes it."""

    def make(name: str, private: str | None = None, secret: str | None = None, **changes: Any) -> str:
        entry = {**yaml.safe_load((FOLDER / "peers.yml").read_text())[name], **changes}
        machine = Machine("shop-pi", 1, (FOLDER / "shop-pi.pub").read_text().strip(), os.environ["PI_ADDRESS"])
        key = private or (FOLDER / f"{name}.key").read_text()
        known = {"shop-pi": secret or secrets["wireguard_preshared"]}
        return wireguard.client_config(name, entry, key, [machine], known, NETWORKS)

    return make


def test_key_is_made_on_the_machine_and_only_there(host: Host) -> None:
    key = host.file("/etc/wireguard/wg0.key")
    assert (key.mode, key.user) == (0o600, "root")
    assert host.file("/etc/wireguard").mode == 0o700
    assert host.file("/etc/wireguard/wg0.conf").mode == 0o600
    assert "PrivateKey" not in host.file("/etc/wireguard/wg0.conf").content_string
    private = key.content_string.strip()
    assert (FOLDER / "shop-pi.pub").read_text().strip() == wireguard.public_key(private)
    for path in FOLDER.iterdir():
        assert private not in path.read_text(), path
    # The pattern is read from its file, so that the line itself, which the journal has, is none that it finds.
    seen = "grep -rsFf /etc/wireguard/wg0.key /var/log /tmp /root /home; journalctl | grep -cFf /etc/wireguard/wg0.key"
    assert host.run(seen).stdout.strip() == "0"


def test_device_comes_in_and_reaches_the_machine(host: Host, device: Device, config: Callable[..., str]) -> None:
    device.use(config("phone"))
    assert device.reaches("10.66.0.1")
    shaken = host.check_output("wg show wg0 latest-handshakes")
    public = yaml.safe_load((FOLDER / "peers.yml").read_text())["phone"]["public_key"]
    assert int(dict(line.split("\t") for line in shaken.splitlines())[public]) > 0
    # SSH answers through the tunnel, and sees who comes.
    banner = device.run("timeout 10 bash -c 'exec 3<>/dev/tcp/10.66.0.1/22; head -n 1 <&3'")
    assert banner.stdout.startswith("SSH-2.0")


def test_device_with_another_key_or_preshared_key_stays_outside(device: Device, config: Callable[..., str]) -> None:
    device.use(config("phone", secret="another secret"))
    assert not device.reaches("10.66.0.1", tries=6)
    device.use(config("phone", private=wireguard.new_private_key()))
    assert not device.reaches("10.66.0.1", tries=6)
    device.use(config("phone"))
    assert device.reaches("10.66.0.1")


def test_device_cannot_take_the_address_of_another(device: Device, config: Callable[..., str]) -> None:
    device.use(config("phone", number=101))
    assert not device.reaches("10.66.0.1", tries=6)
    # The handshake went well: it is the address that is refused.
    assert int(device.run("wg show pct0 latest-handshakes").stdout.split()[1]) > 0


def test_another_member_comes_without_a_break_and_goes(
    host: Host, device: Device, config: Callable[..., str], apply: Any
) -> None:
    device.use(config("phone"))
    assert device.reaches("10.66.0.1")
    peers = yaml.safe_load((FOLDER / "peers.yml").read_text())
    index = host.check_output("cat /sys/class/net/wg0/ifindex")
    third = {"number": 102, "public_key": wireguard.public_key(wireguard.new_private_key())}
    more = apply("wireguard", wireguard_folder=str(FOLDER), wireguard_peers={**peers, "tablet": third})
    assert more.returncode == 0, more.stdout
    assert third["public_key"] in host.check_output("wg show wg0 peers")
    # The same interface, and the machine still knows its key.
    assert host.check_output("cat /sys/class/net/wg0/ifindex") == index
    assert host.check_output("wg show wg0 public-key") == (FOLDER / "shop-pi.pub").read_text().strip()
    assert device.reaches("10.66.0.1")
    less = apply("wireguard", wireguard_folder=str(FOLDER), wireguard_peers={"laptop": peers["laptop"]})
    assert less.returncode == 0, less.stdout
    assert not device.reaches("10.66.0.1", tries=3)
    back = apply("wireguard", wireguard_folder=str(FOLDER))
    assert back.returncode == 0, back.stdout
    assert device.reaches("10.66.0.1", tries=30)


def test_networks_behind_a_site_are_reached_and_no_others(
    host: Host, device: Device, config: Callable[..., str], apply: Any
) -> None:
    for address in ("10.20.0.1", "10.21.0.1"):
        host.check_output(f"ip -n {SPACE} address add {address}/32 dev lo")
    device.use(config("phone"))
    assert device.reaches("10.66.0.1")
    peers = yaml.safe_load((FOLDER / "peers.yml").read_text())
    assert REFUSED not in host.run(knock("10.20.0.1")).stderr
    site = {**peers, "phone": {**peers["phone"], "networks": ["10.20.0.0/24"]}}
    applied = apply("wireguard", wireguard_folder=str(FOLDER), wireguard_peers=site)
    try:
        assert applied.returncode == 0, applied.stdout
        assert device.reaches("10.66.0.1", tries=30)
        assert REFUSED in host.run(knock("10.20.0.1")).stderr
        assert REFUSED not in host.run(knock("10.21.0.1")).stderr
    finally:
        back = apply("wireguard", wireguard_folder=str(FOLDER))
    assert back.returncode == 0, back.stdout


def test_site_that_is_dialled_is_reached_though_it_calls_nobody(
    host: Host, device: Device, config: Callable[..., str], apply: Any
) -> None:
    inside = "10.20.0.5"
    host.check_output(f"ip -n {SPACE} address add {inside}/32 dev lo")
    peers = yaml.safe_load((FOLDER / "peers.yml").read_text())
    # A network of one host, which needs its route as any other.
    dialled = {"endpoint": "198.51.100.2:51820", "networks": [f"{inside}/32"]}
    device.use(re.sub(r"(Endpoint|PersistentKeepalive) = .*\n", "", config("phone", **dialled)))
    assert REFUSED not in host.run(knock(inside)).stderr
    site = {**peers, "phone": {**peers["phone"], **dialled}}
    applied = apply("wireguard", wireguard_folder=str(FOLDER), wireguard_peers=site)
    try:
        assert applied.returncode == 0, applied.stdout
        assert any(REFUSED in host.run(knock(inside)).stderr for _ in range(10))
        assert device.reaches("10.66.0.1")
    finally:
        back = apply("wireguard", wireguard_folder=str(FOLDER))
    assert back.returncode == 0, back.stdout
    assert " dev wg0 " not in host.run(f"ip route get {inside}").stdout


def test_site_that_would_take_the_house_away_is_refused(host: Host, apply: Any) -> None:
    look = "wg show wg0 allowed-ips; sha256sum /etc/wireguard/*; cat /sys/class/net/wg0/ifindex"
    before = host.check_output(look)
    peers = yaml.safe_load((FOLDER / "peers.yml").read_text())
    site = {**peers, "phone": {**peers["phone"], "networks": [f"{os.environ['PI_ADDRESS']}/32"]}}
    refused = apply("wireguard", wireguard_folder=str(FOLDER), wireguard_peers=site)
    assert refused.returncode != 0
    assert "this machine and phone have addresses in common" in " ".join(refused.stdout.split())
    assert host.check_output(look) == before


def test_another_address_makes_the_interface_anew(
    host: Host, device: Device, config: Callable[..., str], apply: Any
) -> None:
    moved = apply("wireguard", wireguard_folder=str(FOLDER), wireguard_number=9)
    try:
        assert moved.returncode == 0, moved.stdout
        assert "10.66.0.9/24" in host.check_output("ip -brief address show wg0")
        device.use(config("phone").replace("10.66.0.1/32", "10.66.0.9/32"))
        assert device.reaches("10.66.0.9")
    finally:
        back = apply("wireguard", wireguard_folder=str(FOLDER))
    assert back.returncode == 0, back.stdout
    assert "10.66.0.1/24" in host.check_output("ip -brief address show wg0")


def test_restart_brings_it_back_and_a_machine_that_was_stopped_is_started(
    host: Host, device: Device, config: Callable[..., str], apply: Any
) -> None:
    host.check_output("systemctl restart wg-quick@wg0")
    device.use(config("phone"))
    assert device.reaches("10.66.0.1")
    host.check_output("systemctl stop wg-quick@wg0")
    again = apply("wireguard", wireguard_folder=str(FOLDER))
    assert again.returncode == 0, again.stdout
    assert device.reaches("10.66.0.1", tries=30)


def test_name_that_has_moved_is_looked_up_again(host: Host) -> None:
    """A member by a name in /etc/hosts: dialled there, and elsewhere when the name says so."""
    public = yaml.safe_load((FOLDER / "peers.yml").read_text())["laptop"]["public_key"]
    endpoints = host.file("/etc/wireguard/endpoints").content_string
    hosts = host.file("/etc/hosts").content_string
    try:
        host.check_output("printf '%%s\\n' %s > /etc/wireguard/endpoints", f"{public} laptop.vpn.test:51820")
        for address in ("192.0.2.7", "192.0.2.8"):
            host.check_output("printf '%%s' %s > /etc/hosts", hosts + f"{address} laptop.vpn.test\n")
            host.check_output("pi-commerce-vpn resolve")
            told = dict(line.split("\t") for line in host.check_output("wg show wg0 endpoints").splitlines())
            assert told[public] == f"{address}:51820"
        # One that wg0 does not know is not let in by this.
        stranger = wireguard.public_key(wireguard.new_private_key())
        host.check_output("printf '%%s\\n' %s > /etc/wireguard/endpoints", f"{stranger} laptop.vpn.test:51820")
        host.check_output("pi-commerce-vpn resolve")
        assert stranger not in host.check_output("wg show wg0 peers")
        # A name that nobody knows is said, and changes nothing.
        host.check_output("printf '%%s\\n' %s > /etc/wireguard/endpoints", f"{public} nobody.vpn.test:51820")
        assert host.run("pi-commerce-vpn resolve").rc == 1
        line = host.file("/etc/cron.d/pi-commerce-vpn").content_string.splitlines()[-1]
        mailed = host.run(line.split(" ", 6)[-1])
        assert (mailed.stdout, mailed.stderr) == ("", "")
        assert "nobody.vpn.test" in host.check_output("journalctl -t pi-commerce-vpn --output cat")
        assert "192.0.2.8:51820" in host.check_output("wg show wg0 endpoints")
    finally:
        host.check_output("printf '%%s' %s > /etc/wireguard/endpoints", endpoints)
        host.check_output("printf '%%s' %s > /etc/hosts", hosts)


def test_name_that_nobody_knows_keeps_no_change_back(host: Host, apply: Any) -> None:
    peers = yaml.safe_load((FOLDER / "peers.yml").read_text())
    unknown = {**peers["laptop"], "endpoint": "nobody.vpn.test:51820"}
    applied = apply("wireguard", wireguard_folder=str(FOLDER), wireguard_peers={"laptop": unknown})
    try:
        assert applied.returncode == 0, applied.stdout
        # The other one was taken out.
        assert host.check_output("wg show wg0 peers") == peers["laptop"]["public_key"]
        assert host.check_output("cat /etc/wireguard/endpoints").endswith(" nobody.vpn.test:51820")
        assert host.run("pi-commerce-vpn resolve").rc == 1
    finally:
        back = apply("wireguard", wireguard_folder=str(FOLDER))
    assert back.returncode == 0, back.stdout


def test_machine_with_its_old_key_needs_nobody_to_enrol_again(
    host: Host, device: Device, config: Callable[..., str], apply: Any
) -> None:
    """What a rebuild brings back (the key) and what follows from the vault and the inventory (all else) is enough."""
    before = config("phone")
    host.check_output("mv /etc/wireguard/wg0.key /run/wg0.key")
    host.check_output("systemctl disable --now wg-quick@wg0 && rm -r /etc/wireguard /usr/local/sbin/pi-commerce-vpn")
    host.check_output("install -d -m 0700 /etc/wireguard && mv /run/wg0.key /etc/wireguard/wg0.key")
    again = apply("wireguard", wireguard_folder=str(FOLDER))
    assert again.returncode == 0, again.stdout
    assert config("phone") == before
    device.use(before)
    assert device.reaches("10.66.0.1")
