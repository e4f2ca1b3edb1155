"""Filters that turn what lies beside the inventory into the VPN's members, and these into files."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleFilterError

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "module_utils"))

import wireguard
import yaml
from wireguard import Machine, Networks, WireguardError

PEERS = "peers.yml"


def wireguard_devices(folder: str) -> dict[str, dict[str, Any]]:
    """The devices that `make vpn-client` has written into the VPN's folder; none where there is no such file."""
    path = Path(str(folder)) / PEERS
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8")) if path.exists() else {}
    except yaml.YAMLError as error:
        raise AnsibleFilterError(f"{path}: is no YAML ({error}); correct it") from error
    if not isinstance(found or {}, dict):
        raise AnsibleFilterError(f"{path}: must hold an entry per device, name: {{number: ..., public_key: ...}}")
    return found or {}


def wireguard_machines(
    names: Sequence[str], hostvars: Mapping[str, Any], folder: str, own: Mapping[str, Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Every machine of the VPN as the inventory describes it, with its public key where it is known here.

    `own` has number, endpoint and port of the machine that asks, by its name; those of others are the inventory's.
    """
    found = []
    for name in map(str, names):
        told = own.get(name) or {key: hostvars[name][f"wireguard_{key}"] for key in ("number", "endpoint", "port")}
        key = known_key(Path(str(folder)), name)
        found.append(Machine(name, int(told["number"]), key, str(told["endpoint"]), int(told["port"]))._asdict())
    return found


def known_key(folder: Path, name: str) -> str:
    """The public key that a machine told when it was last set up, empty where it never was."""
    path = folder / f"{name}.pub"
    return path.read_text(encoding="utf-8").strip() if path.exists() else ""


def wireguard_problem(
    machines: Sequence[Mapping[str, Any]],
    devices: Mapping[str, Mapping[str, Any]],
    networks: Sequence[str],
    attached: Sequence[str] = (),
) -> str:
    """Why the members do not fit together, or beside the networks that the machine is attached to; empty if they do."""
    try:
        wireguard.refuse_clashes([Machine(**entry) for entry in machines], devices, Networks(*networks), attached)
    except WireguardError as error:
        return str(error)
    return ""


def wireguard_files(
    name: str,
    machines: Sequence[Mapping[str, Any]],
    devices: Mapping[str, Mapping[str, Any]],
    secrets: Mapping[str, str],
    networks: Sequence[str],
) -> list[dict[str, str]]:
    """Configuration and named endpoints of the machine as files for `file_tree`, below /etc/wireguard."""
    members = [Machine(**entry) for entry in machines]
    own = next((one for one in members if one.name == name), None)
    if own is None:
        raise AnsibleFilterError(f"wireguard_mesh: {name} is not in it; add it, or take it out of the play")
    try:
        peers = wireguard.peers_of(own, members, devices, secrets, Networks(*networks))
        config = wireguard.machine_config(own, peers, Networks(*networks))
    except WireguardError as error:
        raise AnsibleFilterError(str(error)) from error
    return [
        {"path": f"{wireguard.INTERFACE}.conf", "secret_content": config, "mode": "0600"},
        {"path": "endpoints", "content": wireguard.endpoints(peers), "mode": "0600"},
    ]


def wireguard_addresses(number: int, networks: Sequence[str]) -> list[str]:
    """The addresses of a member in the networks; an empty one is none."""
    try:
        return [address.partition("/")[0] for address in Networks(*networks).addresses(int(number))]
    except WireguardError as error:
        raise AnsibleFilterError(str(error)) from error


class FilterModule:
    """Registers the filters."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Name to function."""
        return {
            "wireguard_addresses": wireguard_addresses,
            "wireguard_devices": wireguard_devices,
            "wireguard_files": wireguard_files,
            "wireguard_machines": wireguard_machines,
            "wireguard_problem": wireguard_problem,
        }
