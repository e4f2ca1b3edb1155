"""Filters that hand the firewall's rules to Ansible."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleFilterError

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "module_utils"))

import firewall


def _doors(settings: Mapping[str, Any]) -> list[firewall.Door]:
    try:
        return firewall.doors(settings)
    except firewall.FirewallError as problem:
        raise AnsibleFilterError(f"the firewall's rules are refused: {problem}") from None


def firewall_files(settings: Mapping[str, Any], modes: Mapping[str, str]) -> list[dict[str, str]]:
    """UFW's files and the list of doors as entries for `file_tree`; `modes` are those that differ from 0640."""
    found = _doors(settings)
    # What was declared, for whoever looks from outside; before what switches the firewall on.
    declared = json.dumps(firewall.as_rows(found), indent=2) + "\n"
    rendered = {"pi-commerce/firewall/doors.json": declared, **firewall.files(found, firewall.ways(settings))}
    return [{"path": path, "content": text, "mode": modes.get(path, "0640")} for path, text in rendered.items()]


def firewall_lockout(settings: Mapping[str, Any], client: str, listening: Iterable[int], vpn: Iterable[str]) -> str:
    """Why the rules would keep out whoever comes from `client`; empty where they do not."""
    return firewall.lockout(_doors(settings), client, listening, list(vpn))


def firewall_groups(
    ports: Mapping[str, Any], groups: Mapping[str, Any], hostvars: Mapping[str, Any], host: str
) -> dict[str, dict[str, Any]]:
    """The groups of `ports` that the host is in, with the addresses of the other members."""
    return {
        name: {
            "ports": list(wanted),
            "members": [hostvars[other].get("ansible_host", other) for other in groups[name] if other != host],
        }
        for name, wanted in ports.items()
        if host in groups.get(name, ())
    }


class FilterModule:
    """The filters of this file, as Ansible looks for them."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Filter names and the functions behind them."""
        return {
            "firewall_files": firewall_files,
            "firewall_groups": firewall_groups,
            "firewall_lockout": firewall_lockout,
        }
