"""Drifts that happen: planted together, looked at by the audit and by a check, mended by a run."""

from __future__ import annotations

from dataclasses import dataclass

import footprint
import machine
from drifts import DRIFTS, Drift
from footprint import Footprint
from waiting import wait_until

# What is run for a batch: the later ones drift where one stage of the site is enough.
PLAYBOOKS = {1: "site.yml", 2: "playbooks/stack.yml", 3: "playbooks/network.yml"}
BATCHES = sorted(PLAYBOOKS)


@dataclass(frozen=True)
class Episode:
    """One batch of drifts: planted, audited, checked, mended."""

    converged: Footprint
    planted: Footprint
    unnoticed: list[str]
    audit: machine.Finished
    check: machine.Finished
    checked: Footprint
    mend: machine.Finished
    mended: Footprint
    unmended: list[str]


def look() -> Footprint:
    """The Pi's footprint now."""
    return footprint.read(machine.pi(footprint.SCRIPT))


def verdicts(batch: int) -> dict[str, bool]:
    """By name of a drift, whether the machine is without it."""
    shells = [f"( {drift.restored} ) > /dev/null 2>&1; echo $?" for drift in of(batch)]
    statuses = machine.pi("\n".join(shells)).split()
    return {drift.name: status == "0" for drift, status in zip(of(batch), statuses, strict=True)}


def of(batch: int) -> list[Drift]:
    """The drifts of a batch."""
    return [drift for drift in DRIFTS if drift.batch == batch]


def ill() -> set[str]:
    """The containers that are unhealthy."""
    return set(machine.pi("docker ps --filter health=unhealthy --format '{{.Names}}'").split())


def play(batch: int) -> Episode:
    """Plant, audit, check, mend."""
    converged = look()
    before = verdicts(batch)
    assert all(before.values()), before
    machine.pi("\n".join(["set -e", *(drift.plant for drift in of(batch))]))
    unnoticed = [name for name, fine in verdicts(batch).items() if fine]
    planted = look()
    audit = machine.audit()
    check = machine.playbook(PLAYBOOKS[batch], "--check", "--diff")
    checked = look()
    expected = {drift.ill for drift in of(batch) if drift.ill}
    wait_until(lambda: expected <= ill(), 120, f"{expected} to be unhealthy")
    mend = machine.playbook(PLAYBOOKS[batch], "--diff")
    unmended = [name for name, fine in verdicts(batch).items() if not fine]
    return Episode(converged, planted, unnoticed, audit, check, checked, mend, look(), unmended)
