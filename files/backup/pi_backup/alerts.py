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


@dataclass(frozen=True)
class Alert:
    """Something to tell. The same `key` is told once, until it is cleared."""

    key: str
    level: str
    title: str
    body: str


def due(plan: Plan, found: dict[str, Any]) -> Iterator[Alert]:
    """What has to be told now. Stores that were never saved count from the first run on."""
    for name, stores in found["rpo"].items():
        for store, age in stores.items():
            seconds = found["age"] if age is None else age
            for level, limit in TOO_OLD.items():
                if seconds > limit:
                    yield Alert(
                        f"backup-{name}-{store}-{level}",
                        level,
                        f"{plan.host}: {store} is not being saved in {name}",
                        f"What repository {name} holds of {store} is "
                        f"{'nothing' if age is None else f'{seconds / 60:.0f} minutes old'}. {REMEDY}",
                    )
    for job, entry in found["jobs"].items():
        if entry.get("problems"):
            yield Alert(
                f"backup-{job}", "warning", f"{plan.host}: backup ({job}) has problems", "\n".join(entry["problems"])
            )


def tell(plan: Plan) -> None:
    """Have told what is due, and cleared what is over. A message that cannot be handed over is in the journal."""
    if not PROGRAM.exists():
        return
    path = plan.folder / "state/alerts.json"
    alerts = {alert.key: alert for alert in due(plan, state.collected(plan))}
    standing = set(files.read_json(path).get("told", []))
    told = set(standing)
    for key in sorted(standing | set(alerts)):
        alert = alerts.get(key)
        words = ["--key", key, "--clear"] if alert is None else ["--key", key, "--level", alert.level, alert.title]
        try:
            run([str(PROGRAM), *words], text="" if alert is None else f"{alert.body}\n", seconds=120)
        except BackupError as error:
            syslog.syslog(syslog.LOG_ERR, f"cannot be told: {key}: {error}")
            continue
        told = told - {key} if alert is None else told | {key}
    if told != standing:
        files.write_json(path, {"told": sorted(told)})
