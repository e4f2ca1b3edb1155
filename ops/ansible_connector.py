"""pyinfra's connector `@ansible`: the hosts of an Ansible inventory, with their variables rendered by Ansible itself.

    pyinfra @ansible/inventory/virtual exec -- uptime

pyinfra 3 has no such connector any more, and the one of pyinfra 2 neither read group_vars/ nor rendered templates. This
one is found through pi_commerce_ops.dist-info/ wherever this folder is on Python's path.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import Any

from declared import CannotRead, Site
from pyinfra.connectors.base import BaseConnector

# Ansible's variable -> pyinfra's host data.
_PLAIN = {
    "ansible_host": "ssh_hostname",
    "ansible_port": "ssh_port",
    "ansible_user": "ssh_user",
    "ansible_password": "ssh_password",
    "ansible_ssh_private_key_file": "ssh_key",
    "ansible_become_password": "_sudo_password",
}
_ARGUMENTS = ("ansible_ssh_common_args", "ansible_ssh_extra_args")
# ssh's option -> pyinfra's host data. The options of None speed up Ansible's many calls, or hold by themselves here.
_OPTIONS = {
    "UserKnownHostsFile": "ssh_known_hosts_file",
    "StrictHostKeyChecking": "ssh_strict_host_key_checking",
    "IdentitiesOnly": None,
    "ControlMaster": None,
    "ControlPersist": None,
    "ControlPath": None,
    "ServerAliveInterval": None,
}


_sites: dict[str, Site] = {}


def site(inventory: str, extra_vars: tuple[str, ...] = ()) -> Site:
    """The inventory and its plays, read once: `extra_vars` of the first call hold from then on. Raises CannotRead."""
    if inventory not in _sites:
        _sites[inventory] = Site(inventory, extra_vars)
    return _sites[inventory]


def connection(variables: dict[str, Any]) -> dict[str, Any]:
    """What pyinfra needs to reach a host that Ansible reaches with `variables`.

    Raises CannotRead for an ssh argument that pyinfra could not honour: it would connect otherwise than Ansible does.
    """
    data = {theirs: variables[ours] for ours, theirs in _PLAIN.items() if ours in variables}
    if "ssh_port" in data:
        data["ssh_port"] = int(data["ssh_port"])
    for name in _ARGUMENTS:
        words = shlex.split(variables.get(name, ""))
        for flag, option in zip(words[::2], words[1::2], strict=True) if len(words) % 2 == 0 else [(words, "")]:
            key, _, value = option.partition("=")
            if flag != "-o" or key not in _OPTIONS:
                raise CannotRead(
                    f"{name}: pyinfra does not know {' '.join(words)!r} (-o {', '.join(_OPTIONS)}); "
                    "say it in ~/.ssh/config, which both read"
                )
            if target := _OPTIONS[key]:
                data[target] = value
    return data


class AnsibleConnector(BaseConnector):
    """Makes inventory hosts; what runs on them goes through pyinfra's own SSH."""

    handles_execution = False

    @staticmethod
    def make_names_data(name: str | None) -> Iterator[tuple[str, dict[str, Any], list[str]]]:
        """Each host of the inventory folder or file `name`, its connection and its groups."""
        inventory = site(name or "")
        for host, groups in inventory.hosts().items():
            yield host, connection(inventory.variables(host, [*_PLAIN, *_ARGUMENTS])), groups
