"""The rows of the report, in their order."""

from __future__ import annotations

import time

from declared import CannotRead, Step

from checks.base import Check
from checks.data import Databases, Schema, Workflows
from checks.files import Files
from checks.health import Backup, Certificates, Disk, Heat, Messages, Volumes
from checks.host import Clock, Firmware, Identity, Kernel, Packages, People, Units, Watchdog
from checks.network import Firewall
from checks.services import Containers, Entrance, Memory

_PLAIN: tuple[type[Check], ...] = (
    *(Files, Identity, People, Packages, Units, Kernel, Firmware, Watchdog, Firewall),
    *(Containers, Entrance, Memory, Databases, Schema, Workflows),
    *(Backup, Messages, Volumes, Disk, Heat),
)
_TIMED: tuple[type[Certificates | Clock], ...] = (Certificates, Clock)
# What some check understands.
ACTIONS = frozenset[str]().union(*(kind.actions for kind in (*_PLAIN, *_TIMED)))


def make(steps: list[Step]) -> list[Check]:
    """All checks of a machine whose tasks are `steps`. Raises CannotRead for a task that no check understands."""
    for step in steps:
        if step.action not in ACTIONS:
            raise CannotRead(
                f"{step.place}: no check of the audit understands {step.action}; teach one in ops/checks/, "
                "or name it in NO_STATE of ops/declared.py if it leaves nothing on the Pi"
            )
    now = time.time()
    return [*(kind(steps) for kind in _PLAIN), *(kind(steps, now) for kind in _TIMED)]
