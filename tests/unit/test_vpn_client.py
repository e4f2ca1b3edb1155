"""What `make vpn-client` writes down and refuses; that a device gets in with it, molecule/wireguard shows."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import plays
import pytest
import vpn_client
import wireguard
import yaml
from declared import CannotRead
from vpn_client import Vpn
from wireguard import Networks, WireguardError

HOST = {"wireguard_number": 1, "wireguard_endpoint": "192.0.2.1", "wireguard_port": 51820}


class Vault:
    """Stands for the inventory's reader: one secret."""

    def secrets(self, name: str) -> dict[str, str]:
        return {"wireguard_preshared": f"secret of {name}"}


@pytest.fixture
def vpn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Vpn:
    """A VPN of one machine, whose converge only tells its key."""

    def of(inventory: str) -> Vpn:
        devices = vpn_client.read(tmp_path / "peers.yml")
        networks = Networks("10.66.0.0/24", "fd66:66:66::/64")
        return Vpn(Vault(), tmp_path, networks, devices, ("shop-pi",), {"shop-pi": HOST})  # type: ignore[arg-type]

    monkeypatch.setattr(Vpn, "of", of)
    public = wireguard.public_key(wireguard.new_private_key())
    monkeypatch.setattr(vpn_client, "converge", lambda _: (tmp_path / "shop-pi.pub").write_text(public))
    return of("")


def devices(vpn: Vpn) -> Any:
    return yaml.safe_load(vpn.peers.read_text())


def test_device_gets_a_file_a_picture_and_an_entry(vpn: Vpn, capsys: pytest.CaptureFixture[str]) -> None:
    vpn_client.add("", "phone", "", False)
    text = vpn.file("phone").read_text()
    assert vpn.file("phone").stat().st_mode & 0o777 == 0o600
    private = wireguard.private_key_in(text)
    assert devices(vpn) == {"phone": {"number": 100, "public_key": wireguard.public_key(private)}}
    assert "Endpoint = 192.0.2.1:51820" in text
    shown = capsys.readouterr().out
    assert any(block in shown for block in "█▀▄")
    assert private not in shown


@pytest.mark.parametrize(
    ("endpoint", "entry", "told"),
    [
        ("192.168.178.5", {}, True),
        ("fd12::5", {}, True),
        ("shop-pi", {}, True),
        ("shop-pi.local", {}, True),
        ("8.8.8.8", {}, False),
        ("corner.example", {}, False),
        # It is dialled, and dials nobody.
        ("192.168.178.5", {"endpoint": "site.example:51820"}, False),
    ],
)
def test_device_that_would_work_in_the_house_only_is_told_so(
    vpn: Vpn,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    endpoint: str,
    entry: dict[str, str],
    told: bool,
) -> None:
    monkeypatch.setitem(HOST, "wireguard_endpoint", endpoint)
    vpn_client.add("", "phone", "", False)
    vpn.peers.write_text(yaml.safe_dump({"phone": {**devices(vpn)["phone"], **entry}}))
    capsys.readouterr()
    vpn_client.add("", "phone", "", False)
    assert ("set wireguard_endpoint" in capsys.readouterr().out) is told


def test_same_line_again_shows_the_same_and_a_new_key_replaces(vpn: Vpn) -> None:
    vpn_client.add("", "phone", "", False)
    first = vpn.file("phone").read_text()
    vpn_client.add("", "phone", "", False)
    assert vpn.file("phone").read_text() == first
    vpn_client.add("", "phone", "", True)
    assert wireguard.private_key_in(vpn.file("phone").read_text()) != wireguard.private_key_in(first)
    assert devices(vpn)["phone"]["number"] == 100


def test_key_that_was_deleted_here_is_not_made_up(vpn: Vpn, capsys: pytest.CaptureFixture[str]) -> None:
    vpn_client.add("", "phone", "", False)
    known = devices(vpn)
    vpn.file("phone").unlink()
    vpn_client.add("", "phone", "", False)
    assert devices(vpn) == known
    assert wireguard.private_key_in(vpn.file("phone").read_text()) == ""
    assert "add the private key that the device has made" in capsys.readouterr().out


def test_device_that_makes_its_key_itself_tells_the_public_half_only(vpn: Vpn) -> None:
    own = wireguard.new_private_key()
    vpn_client.add("", "laptop", wireguard.public_key(own), False)
    assert devices(vpn)["laptop"]["public_key"] == wireguard.public_key(own)
    assert "\nPrivateKey" not in vpn.file("laptop").read_text()
    with pytest.raises(WireguardError, match="has another key"):
        vpn_client.add("", "laptop", wireguard.public_key(wireguard.new_private_key()), False)


def test_device_that_goes_frees_its_number(vpn: Vpn) -> None:
    vpn_client.add("", "phone", "", False)
    vpn_client.add("", "tablet", "", False)
    vpn_client.remove("", "phone")
    assert list(devices(vpn)) == ["tablet"]
    assert not vpn.file("phone").exists()
    vpn_client.add("", "watch", "", False)
    assert devices(vpn)["watch"]["number"] == 100
    with pytest.raises(WireguardError, match="phone: is no device of the VPN; there are: tablet, watch"):
        vpn_client.remove("", "phone")


@pytest.mark.parametrize(
    ("name", "public", "told"),
    [
        ("My Phone", "", "is no name for a device"),
        ("../x", "", "is no name for a device"),
        ("shop-pi", "", "is a machine of the inventory"),
        ("phone", "abc", "is no public key"),
    ],
)
def test_what_cannot_be_enrolled_changes_nothing(vpn: Vpn, name: str, public: str, told: str) -> None:
    with pytest.raises(WireguardError, match=told):
        vpn_client.add("", name, public, False)
    assert list(vpn.folder.iterdir()) == []


def test_key_that_a_killed_run_leaves_is_not_for_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left: list[str] = []

    def killed(temporary: str, path: Path) -> None:
        left.append(Path(temporary).name)
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "rename", killed)
    with pytest.raises(KeyboardInterrupt):
        vpn_client.write(tmp_path / "phone.conf", "PrivateKey = x\n", 0o600)
    place = f"inventory/shop/wireguard/{left[0]}"
    assert subprocess.run(["git", "check-ignore", "--quiet", place], cwd=plays.ROOT, check=False).returncode == 0


def test_peers_that_stand_in_the_inventory_are_not_written_past(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known: dict[str, Any] = {
        **HOST,
        "wireguard_folder": str(tmp_path),
        "wireguard_mesh": ["shop-pi"],
        "wireguard_network": "10.66.0.0/24",
        "wireguard_network6": "",
        "wireguard_peers": {},
    }

    class Site(Vault):
        """Stands for the inventory's reader."""

        def __init__(self, inventory: str) -> None: ...

        def hosts(self) -> dict[str, list[str]]:
            return {"shop-pi": []}

        def variables(self, name: str, wanted: list[str]) -> dict[str, Any]:
            return {key: known[key] for key in wanted}

    monkeypatch.setattr(vpn_client, "Site", Site)
    assert Vpn.of("inventory").devices == {}
    known["wireguard_mesh"] = ["shop-pi", "cloud"]
    with pytest.raises(CannotRead, match="wireguard_mesh: cloud is no machine of inventory; there are: shop-pi"):
        Vpn.of("inventory")
    known["wireguard_mesh"] = ["shop-pi"]
    known["wireguard_peers"] = {"phone": {"number": 7, "public_key": "x"}}
    with pytest.raises(CannotRead, match=r"wireguard_peers is set in inventory: move its entries to .*peers.yml"):
        Vpn.of("inventory")
