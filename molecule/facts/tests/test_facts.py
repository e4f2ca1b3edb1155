"""What the Pi tells about itself is what its own programs say."""

from __future__ import annotations

from typing import Any

from testinfra.host import Host


def test_system_is_read(host: Host, facts: dict[str, Any]) -> None:
    pi = facts["pi"]
    assert pi["architecture"] == host.check_output("uname -m")
    assert pi["userland_bits"] == int(host.check_output("getconf LONG_BIT"))
    assert pi["page_bytes"] == int(host.check_output("getconf PAGESIZE"))
    assert [pi["os_id"], pi["os_version"]] == host.check_output('. /etc/os-release; echo "$ID $VERSION_ID"').split()


def test_board_is_read_below_the_hardware_root(host: Host, variables: dict[str, Any], facts: dict[str, Any]) -> None:
    root = variables["hardware_root"].split("{{")[0].rstrip("/")
    root = root if root != "/usr/share/virtual-pi" else f"{root}/pi4-4gb"
    model = host.check_output(f"tr -d '\\0' < {root}/proc/device-tree/model")
    assert facts["pi"]["board"] == model
    assert model.startswith("Raspberry Pi 4")
    total = host.check_output(f"awk '/^MemTotal/ {{ print int($2 / 1024) }}' {root}/proc/meminfo")
    assert facts["pi"]["ram_mib"] == int(total)


def test_free_space_is_that_of_the_data(host: Host, facts: dict[str, Any]) -> None:
    free = int(host.check_output("df --output=avail --block-size=1M /var/lib | tail -1"))
    assert abs(facts["pi"]["disk_free_mib"] - free) < 0.1 * free
