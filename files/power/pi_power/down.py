"""The battery is low: no new work comes in, what is at work ends, the databases write down what they hold."""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from pi_common import alerts, files, services
from pi_common.commands import run
from pi_common.errors import PiError

from .settings import Settings

Found = TypeVar("Found")

# What the databases need at least, however long the others took.
SETTLE_SECONDS = 90
SETTLE = ("pi-commerce-backup", "settle")


def stopped_file(known: Settings) -> Path:
    """The services that have to be started again."""
    return known.folder / "stopped.json"


def down(known: Settings) -> None:
    """Save the shop, then end the machine. Whatever fails on the way is said and passed over."""
    deadline = time.monotonic() + known.drain_seconds
    ran = _tried("which services run", lambda: services.running(known.project, SETTLE_SECONDS)) or set()
    # First, so that everything comes back although the battery ends before this does.
    _tried("remember them", lambda: _remember(known, ran))
    # Kept on the disk; it goes out now or after the next start.
    alerts.say("critical", "The battery is nearly empty", "The shop is saved now, and the Pi switched off.")
    for service in (name for name in known.writers if name in ran):
        _stop(known, service, deadline)
    _tried("settle", lambda: run(*SETTLE, seconds=SETTLE_SECONDS))
    for service in (name for name in known.stores if name in ran):
        _stop(known, service, time.monotonic() + SETTLE_SECONDS)
    os.sync()
    print(f"halt: {known.halt}", flush=True)
    run(*shlex.split(known.halt))


def up(known: Settings) -> list[str]:
    """Start what was stopped, the databases first; the services. Raises PiError for those that will not."""
    wanted = files.read_json(stopped_file(known)).get("services", [])
    order = [name for name in reversed((*known.writers, *known.stores)) if name in wanted]
    failed = []
    for service in order:
        try:
            services.start(known.project, service)
        except PiError as problem:
            failed.append(str(problem))
    if failed:
        raise PiError("; ".join(failed))
    stopped_file(known).unlink(missing_ok=True)
    return order


def _stop(known: Settings, service: str, deadline: float) -> None:
    """Have a service end what it is at, as long as there is time; the last one still has a second to hear of it."""
    seconds = max(deadline - time.monotonic(), 1)
    _tried(f"stop {service}", lambda: services.stop(known.project, service, seconds))


def _remember(known: Settings, ran: set[str]) -> None:
    """Keep which services ran; those of a `down` that was begun before are among them."""
    kept = files.read_json(stopped_file(known)).get("services", ())
    files.write_json(stopped_file(known), {"services": sorted(ran.union(kept))})


def _tried(what: str, step: Callable[[], Found]) -> Found | None:
    """Do a step; None where it failed, which is said."""
    began = time.monotonic()
    try:
        found = step()
    except (PiError, OSError) as problem:
        # The disk may be full or gone; the machine has to end all the same.
        print(f"{what}: {problem}", flush=True)
        return None
    print(f"{what}: done in {time.monotonic() - began:.1f} s", flush=True)
    return found
