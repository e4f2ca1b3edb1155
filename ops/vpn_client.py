#!/usr/bin/env python3
"""A device of the VPN, from its name to the file and the picture that it imports.

`vpn_client.py INVENTORY NAME [--public-key KEY] [--new] [--remove]` writes the device into `peers.yml` beside the
inventory, has the machines let it in (`PLAYBOOKS`), and writes its file. A device that makes its key itself
gives the public half; for another the key is made here and lies in that file alone. Ends with 0, or 1 where that
cannot be done.
"""

from __future__ import annotations

import argparse
import ipaddress
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import segno
import yaml
from declared import ROOT, CannotRead, Site

# The module above has told Python where those of the project are.
# isort: split
import wireguard
from wireguard import Machine, Networks, WireguardError

WANTED = [
    *("wireguard_endpoint", "wireguard_folder", "wireguard_mesh", "wireguard_network", "wireguard_network6"),
    *("wireguard_number", "wireguard_peers", "wireguard_port"),
]
HEADER = "# Devices of the VPN. Written by `make vpn-client`; may be edited by hand, and belongs into git.\n"
# The first device is what opens the firewall for the VPN.
PLAYBOOKS = ("playbooks/network.yml", "playbooks/remote.yml")

Devices = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Vpn:
    """The VPN of an inventory, as it is described here."""

    site: Site
    folder: Path
    networks: Networks
    devices: Devices
    mesh: tuple[str, ...]
    hosts: Mapping[str, Mapping[str, Any]]

    @classmethod
    def of(cls, inventory: str) -> Vpn:
        """Read it. Raises CannotRead."""
        site = Site(inventory)
        hosts = {name: site.variables(name, WANTED) for name in site.hosts()}
        known = next(iter(hosts.values()))
        vpn = cls(
            site,
            Path(known["wireguard_folder"]),
            Networks(known["wireguard_network"], known["wireguard_network6"]),
            known["wireguard_peers"],
            tuple(known["wireguard_mesh"]),
            hosts,
        )
        if read(vpn.peers) != vpn.devices:
            raise CannotRead(f"wireguard_peers is set in {inventory}: move its entries to {vpn.peers}, and take it out")
        if strangers := [name for name in vpn.mesh if name not in hosts]:
            there = ", ".join(hosts)
            raise CannotRead(f"wireguard_mesh: {', '.join(strangers)} is no machine of {inventory}; there are: {there}")
        return vpn

    @property
    def peers(self) -> Path:
        """Where the devices are written down."""
        return self.folder / "peers.yml"

    def file(self, name: str) -> Path:
        """What a device imports."""
        return self.folder / f"{name}.conf"

    def machines(self) -> list[Machine]:
        """All machines, with the public keys that they have told."""
        found = []
        for name in self.mesh:
            known = self.hosts[name]
            path = self.folder / f"{name}.pub"
            key = path.read_text(encoding="utf-8").strip() if path.exists() else ""
            place = (known["wireguard_endpoint"], known["wireguard_port"])
            found.append(Machine(name, known["wireguard_number"], key, *place))
        return found


def read(path: Path) -> Devices:
    """The devices in the file, none where there is no file."""
    return (yaml.safe_load(path.read_text(encoding="utf-8")) or {}) if path.exists() else {}


def write(path: Path, text: str, mode: int) -> None:
    """Replace a file in one step; it has its mode from the first moment.

    What a run leaves that is killed in between ends as the file does: by that git knows a key.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=path.suffix)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as target:
            os.fchmod(target.fileno(), mode)
            target.write(text)
            target.flush()
            os.fsync(target.fileno())
        os.rename(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def dumped(devices: Devices) -> str:
    """The devices as they are written down."""
    return HEADER + (yaml.safe_dump(devices) if devices else "")


def enrolled(vpn: Vpn, name: str, public: str, new: bool) -> tuple[Devices, str]:
    """The devices with this one, and its private key where that is known here (else empty).

    Raises WireguardError.
    """
    if not re.fullmatch(wireguard.NAME, name):
        raise WireguardError(f"{name!r}: is no name for a device; take up to 31 of a-z, 0-9, - and _")
    if name in vpn.hosts:
        raise WireguardError(f"{name}: is a machine of the inventory, which is in the VPN by itself")
    if public and not wireguard.is_key(public):
        raise WireguardError(f"{public!r}: is no public key; give what `wg pubkey` prints on the device")
    known = vpn.devices.get(name)
    private = wireguard.private_key_in(vpn.file(name).read_text(encoding="utf-8")) if vpn.file(name).exists() else ""
    if known and not new and public in ("", known["public_key"]):
        matches = bool(private) and wireguard.public_key(private) == known["public_key"]
        return vpn.devices, private if matches else ""
    if known and not new:
        raise WireguardError(f"{name}: has another key in {vpn.peers}; with NEW=1 this one replaces it")
    private = "" if public else wireguard.new_private_key()
    number = known["number"] if known else wireguard.next_number(vpn.machines(), vpn.devices)
    entry = {**(known or {}), "number": number, "public_key": public or wireguard.public_key(private)}
    devices = {**vpn.devices, name: entry}
    wireguard.refuse_clashes(vpn.machines(), devices, vpn.networks)
    vpn.networks.addresses(number)
    return devices, private


def in_house(host: str) -> bool:
    """Whether a machine is dialled in the house alone, if at all: its name or address means nothing elsewhere."""
    if wireguard.is_address(host):
        return not ipaddress.ip_address(host).is_global
    return "." not in host or host.endswith((".home.arpa", ".internal", ".lan", ".local"))


def converge(inventory: str) -> None:
    """Have the machines know the devices. Raises CannotRead."""
    command = ["ansible-playbook", "-i", inventory, *PLAYBOOKS]
    if subprocess.run(command, cwd=ROOT, check=False).returncode:
        plays = " or ".join(PLAYBOOKS)
        raise CannotRead(
            f"{plays} failed, see above; what was asked for is written down already: "
            "run the same line again, or site.yml where a device was taken out"
        )


def add(inventory: str, name: str, public: str, new: bool) -> None:
    """Enrol a device, or show what it imports once more. Raises CannotRead, WireguardError."""
    vpn = Vpn.of(inventory)
    devices, private = enrolled(vpn, name, public, new)
    if private:
        # Kept before anybody knows the public half: a run that is cut off here goes on with the same key.
        write(vpn.file(name), f"PrivateKey = {private}\n", 0o600)
    if devices != vpn.devices:
        write(vpn.peers, dumped(devices), 0o644)
    converge(inventory)
    # The machines have told their keys by now.
    secrets = {machine: vpn.site.secrets(machine)["wireguard_preshared"] for machine in vpn.mesh}
    text = wireguard.client_config(name, devices[name], private, vpn.machines(), secrets, vpn.networks)
    write(vpn.file(name), text, 0o600)
    if private:
        segno.make(text, error="l").terminal(compact=True)
        print(f"Scan this with the WireGuard app, or import {vpn.file(name)}. Then delete that file: it is the key.")
    else:
        print(f"{vpn.file(name)}: add the private key that the device has made, and import it there.")
    if not devices[name].get("endpoint") and all(in_house(machine.endpoint) for machine in vpn.machines()):
        print("It works in the house only: set wireguard_endpoint to a name or an address under which the house")
        print("is reached from afar, and run the same line again.")


def remove(inventory: str, name: str) -> None:
    """Have no machine know the device any more. Raises CannotRead, WireguardError."""
    vpn = Vpn.of(inventory)
    if name not in vpn.devices:
        raise WireguardError(f"{name}: is no device of the VPN; there are: {', '.join(vpn.devices) or 'none'}")
    write(vpn.peers, dumped({key: entry for key, entry in vpn.devices.items() if key != name}), 0o644)
    vpn.file(name).unlink(missing_ok=True)
    converge(inventory)
    print(f"{name} is out: its key opens nothing any more.")


def main() -> int:
    """Entry point; the exit code."""
    parser = argparse.ArgumentParser(description="Add a device to the VPN, show what it imports, or take it out.")
    parser.add_argument("inventory")
    parser.add_argument("name")
    parser.add_argument("--public-key", default="", help="of a device that has made its key itself")
    parser.add_argument("--new", action="store_true", help="another key: the one the device had opens nothing any more")
    parser.add_argument("--remove", action="store_true", help="take it out of the VPN")
    given = parser.parse_args()
    try:
        if given.remove:
            remove(given.inventory, given.name)
        else:
            add(given.inventory, given.name, given.public_key, given.new)
    except (CannotRead, WireguardError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
