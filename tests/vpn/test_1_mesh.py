"""A mesh of two machines and a device that knows both, with real packets."""

from __future__ import annotations

from typing import Any

import docker
import machine
import mesh
import pytest
from mesh import PIS, Device

ONE, TWO = PIS


def test_machines_reach_each_other_after_one_run(both: machine.Finished) -> None:
    assert mesh.reaches(ONE, "10.66.0.2")
    assert mesh.reaches(TWO, "10.66.0.1")
    for pi, other in zip(PIS, reversed(PIS), strict=True):
        shaken = dict(line.split("\t") for line in pi.shell("wg show wg0 latest-handshakes").splitlines())
        assert int(shaken[(mesh.STATE / f"wireguard/{other.name}.pub").read_text().strip()]) > 0


def test_second_run_changes_nothing_also_for_one_alone(both: machine.Finished) -> None:
    again = mesh.converge()
    assert again.output.count("changed=0 ") == 2, again.output[-3000:]
    alone = mesh.converge("--limit", "two")
    assert alone.output.count("changed=0 ") == 1, alone.output[-3000:]


def test_private_keys_are_where_they_were_made(both: machine.Finished) -> None:
    keys = [pi.shell("cat /etc/wireguard/wg0.key").strip() for pi in PIS]
    assert len(set(keys)) == 2
    files = [path for path in mesh.STATE.rglob("*") if path.is_file()]
    assert [path for path in files if any(key.encode() in path.read_bytes() for key in keys)] == []
    for pi, key in zip(PIS, reversed(keys), strict=True):
        assert key not in pi.shell("cat /etc/wireguard/*")


def test_device_reaches_both_machines_by_one_file_and_neither_when_it_is_out(device: Device) -> None:
    device.use(mesh.client("phone"))
    assert device.reaches("10.66.0.1")
    assert device.reaches("10.66.0.2")
    mesh.client("phone", "--remove")
    assert not device.reaches("10.66.0.1", tries=3)
    assert not device.reaches("10.66.0.2", tries=3)


def test_devices_do_not_reach_each_other_through_a_machine(device: Device, engine: docker.DockerClient) -> None:
    laptop = Device(engine)
    try:
        # Both ask the machine for everybody; the phone is there.
        for one, name in ((device, "phone"), (laptop, "laptop")):
            one.use(mesh.client(name).replace("10.66.0.1/32", "10.66.0.1/32, 10.66.0.96/28"))
            assert one.reaches("10.66.0.1")
        address = "10.66.0.101"
        assert laptop.run("ip -brief address show pct0")[1].split()[2] == f"{address}/32"
        assert not device.reaches(address, tries=3)
    finally:
        laptop.container.remove(force=True, v=True)


def test_machine_behind_a_router_is_reached_because_it_keeps_its_line_open(both: machine.Finished) -> None:
    mesh.converge(two={"wireguard_endpoint": ""})
    try:
        assert "keepalive" in TWO.shell("wg show wg0")
        # Forgets where the other one is, as after a restart: it has to be told by the one that dials, which agrees on
        # new keys every two minutes, and says something every half of one.
        ONE.shell("systemctl restart wg-quick@wg0")
        assert mesh.reaches(ONE, "10.66.0.2", seconds=240)
    finally:
        mesh.converge()


def test_two_machines_with_one_number_are_refused(both: machine.Finished) -> None:
    inventory = mesh.inventory(two={"wireguard_number": 1})
    command = ("ansible-playbook", "-i", str(inventory), "playbooks/remote.yml", "--check")
    refused = machine.run(*command, environment=mesh.secret())
    mesh.inventory()
    assert refused.status != 0
    assert "one and two have the same number in the VPN" in refused.output


def test_device_opens_what_the_vpn_is_given_and_nothing_else(device: Device) -> None:
    config = mesh.client("phone")
    # A program that nobody has declared on the first machine.
    start = "systemd-run --quiet --unit decoy python3 -m http.server 8099 --bind 0.0.0.0"
    decoy = {"name": "decoy", "port": 8099, "protocol": "tcp", "exposure": "vpn"}
    for pi in PIS:
        pi.shell(start)
    try:
        mesh.converge(play="playbooks/network.yml", two={"access_vpn": [], "firewall_rules": [decoy]})
        device.use(config)
        assert device.reaches("10.66.0.1")
        assert device.reaches("10.66.0.2")
        assert device.opens("10.66.0.1", 22)
        assert not device.opens("10.66.0.1", 8099)
        assert not device.opens("10.66.0.2", 22)
        assert device.opens("10.66.0.2", 8099)
        # What is for the VPN is not for the house.
        assert not device.opens(TWO.shared, 8099)
    finally:
        for pi in PIS:
            pi.shell("systemctl stop decoy")
        mesh.converge(play="playbooks/network.yml")


def test_first_device_of_a_machine_alone_comes_through_its_firewall(device: Device) -> None:
    folder = mesh.STATE / "alone"
    alone: dict[str, Any] = {"pis": [TWO], "two": {"wireguard_folder": str(folder)}}
    mesh.converge("playbooks/remote.yml", play="playbooks/network.yml", **alone)
    try:
        # Nobody is in it any more: there is no interface, and no port for it.
        assert TWO.shell("ip -brief link show wg0; ufw status | grep 51820", check=False) == ""
        device.use(mesh.client("tablet", folder=folder, **alone))
        assert device.reaches("10.66.0.2")
        mesh.client("tablet", "--remove", folder=folder, **alone)
        assert not device.reaches("10.66.0.2", tries=3)
    finally:
        mesh.converge("playbooks/remote.yml", play="playbooks/network.yml")
    assert mesh.reaches(ONE, "10.66.0.2")


@pytest.mark.parametrize(
    ("play", "told"),
    [
        (
            "playbooks/network.yml",
            "Nothing was changed in the way in: this run comes from 10.66.0.100, which the rules do not let in",
        ),
        ("playbooks/remote.yml", "This run came in by the VPN that it would take away"),
    ],
)
def test_vpn_is_not_taken_away_from_who_comes_in_by_it(device: Device, play: str, told: str) -> None:
    folder = mesh.STATE / "last"
    alone: dict[str, Any] = {"pis": [TWO], "two": {"wireguard_folder": str(folder)}}
    try:
        device.use(mesh.client("tablet", folder=folder, **alone))
        assert device.reaches("10.66.0.2")
        # The last one is out, and the run comes in by it.
        (folder / "peers.yml").unlink()
        inventory = mesh.inventory(pis=[TWO], two={**alone["two"], "ansible_ssh_extra_args": device.way("10.66.0.2")})
        command = ("ansible-playbook", "-i", str(inventory), play)
        refused = machine.run(*command, environment=mesh.secret(), timeout=600)
        assert refused.status != 0
        assert told in " ".join(refused.output.split()), refused.output[-4000:]
        assert device.opens("10.66.0.2", 22)
    finally:
        mesh.converge("playbooks/remote.yml", play="playbooks/network.yml")
