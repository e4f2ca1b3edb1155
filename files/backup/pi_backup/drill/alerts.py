"""Telling the owner: of a drill that found something, and of one that is overdue."""

from __future__ import annotations

import time
from pathlib import Path

from ..commands import run
from ..plan import Plan
from . import report
from .checks import BAD, VERIFIED
from .settings import Settings

NOTIFY = Path("/usr/local/sbin/pi-commerce-notify")
DAY = 86400
# So many days after it was due nobody has looked.
URGENT_DAYS = 10
FOUND, OVERDUE = "drill", "drill-overdue"


def _tell(level: str, key: str, title: str, body: str) -> None:
    if NOTIFY.exists():
        run([str(NOTIFY), "--level", level, "--key", key, title], text=body, seconds=300)


def _clear(key: str) -> None:
    if NOTIFY.exists():
        run([str(NOTIFY), "--key", key, "--clear"], seconds=300)


def about(found: dict[str, object], text: str) -> None:
    """Tell of a drill's verdict, where it is not a good one; after a good one nothing is overdue either."""
    if found["verdict"] == VERIFIED:
        for key in (FOUND, OVERDUE) if found["usual"] else ():
            _clear(key)
    else:
        level = "critical" if found["verdict"] == BAD else "warning"
        _tell(level, FOUND, f"Restore drill of {found['host']}: {found['verdict']}", text)


def overdue(plan: Plan, settings: Settings) -> str:
    """What is to be said where no drill has been well for too long, and say it; empty where all is well."""
    notes = report.known(plan)
    report.remember(plan, notes)
    days = (time.time() - (notes["succeeded"] or notes["since"])) / DAY
    if days <= settings.overdue_days:
        _clear(OVERDUE)
        return ""
    text = (
        f"no restore drill has verified the copies for {days:.0f} days, {settings.overdue_days} are allowed; run "
        "`make drill`, or `pi-commerce-backup drill` on the machine"
    )
    level = "critical" if days > settings.overdue_days + URGENT_DAYS else "warning"
    _tell(level, OVERDUE, f"Restore drill of {plan.host} is overdue", text)
    return text
