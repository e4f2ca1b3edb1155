"""A Pi that is fit passes, and the preflight leaves no trace on either side."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from testinfra.host import Host


def test_machine_is_what_was_asked_for(facts: dict[str, Any], variables: dict[str, Any]) -> None:
    pi = facts["pi"]
    assert pi["architecture"] in variables["preflight_architectures"]
    assert bool(pi["board"]) != variables["preflight_allow_any_board"]
    assert pi["ram_mib"] >= variables["preflight_ram_min_mib"]
    assert pi["disk_free_mib"] >= variables["preflight_disk_min_mib"]


def test_board_is_read_or_unknown(facts: dict[str, Any], variables: dict[str, Any]) -> None:
    body = facts["pi"]["body"]
    if variables["preflight_allow_any_board"]:
        # A computer: what only a Pi has is unknown, never well.
        assert (body["revision"], body["throttled"], body["eeprom_epoch"]) == (None, None, None)
    else:
        assert (body["revision"], body["throttled"]) == ("c03115", 0)
        assert body["boot"]["medium"] == "USB"


def test_nothing_was_made(host: Host) -> None:
    assert not host.file("/etc/pi-commerce").exists
    assert not host.exists("docker")
    assert not (Path(os.environ["PI_STATE"]) / "secrets.vault.yml").exists(), "the preflight made secrets"
