"""Tells the owner what `status` says when nobody looks: through pi-commerce-notify, where that is installed."""

from __future__ import annotations

import syslog
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import files, state
from .commands import run
from .errors import BackupError
from .plan import Plan

PROGRAM = Path("/usr/local/sbin/pi-commerce-notify")
# From how many seconds on a store's newest copy is too old.
TOO_OLD = {"warning": 10 * 60, "critical": 15 * 60}
REMEDY = "`pi-commerce-backup status` on the Pi says more."
# What pi-commerce-notify takes; it says itself which machine it is that tells.
TITLE_CHARACTERS, BODY_BYTES = 200, 16 * 1024


@dataclass(frozen=True)
class Alert:
    """Something to tell. The same `key` is told once, until it is cleared."""

    key: str
    level: str
    title: str
    body: str


def due(found: dict[str, Any]) -> Iterator[Alert]:
    """What has to be told now. Stores that were never saved count from the first run on."""
    for name, stores in found["rpo"].items():
        for store, age in stores.items():
            seconds = found["age"] if age is None else age
            for level, limit in TOO_OLD.items():
                if seconds > limit:
                    yield Alert(
                        f"backup-{name}-{store}-{level}",
                        level,
                        f"{store} is not being saved in {name}",
                        f"What repository {name} holds of {store} is "
                        f"{'nothing' if age is None else f'{seconds / 60:.0f} minutes old'}. {REMEDY}",
                    )
    for job, entry in found["jobs"].items():
        if entry.get("problems"):
            yield Alert(f"backup-{job}", "warning", f"backup ({job}) has problems", "\n".join(entry["problems"]))


def hand_over(alert: Alert) -> bool:
    """Have the owner told. What cannot be handed over is in the journal; whether it could."""
    words = ("--level", alert.level, alert.title[:TITLE_CHARACTERS])
    return _call(alert.key, *words, text=alert.body.encode()[:BODY_BYTES].decode(errors="ignore"))


def clear(key: str) -> bool:
    """What was told under `key` is over; whether that could be handed over."""
    return _call(key, "--clear")


def _call(key: str, *words: str, text: str = "") -> bool:
    if not PROGRAM.exists():
        return False
    try:
        run([str(PROGRAM), "--key", key, *words], text=text, seconds=120)
    except BackupError as error:
        syslog.syslog(syslog.LOG_ERR, f"cannot be told: {key}: {error}")
        return False
    return True


def tell(plan: Plan) -> None:
    """Have told what is due, and cleared what is over."""
    path = plan.folder / "state/alerts.json"
    alerts = {alert.key: alert for alert in due(state.collected(plan))}
    standing = set(files.read_json(path).get("told", []))
    told = set(standing)
    for key in sorted(standing | set(alerts)):
        if key in alerts:
            told |= {key} if hand_over(alerts[key]) else set()
        elif clear(key):
            told.remove(key)
    if told != standing:
        files.write_json(path, {"told": sorted(told)})
