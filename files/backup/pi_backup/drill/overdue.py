"""Telling the owner: of a drill that found something, and of one that is overdue."""

from __future__ import annotations

import time

from .. import alerts
from ..plan import Plan
from . import report
from .checks import BAD, UNKNOWN, VERIFIED
from .settings import Settings

DAY = 86400
# So many days after it was due nobody has looked.
URGENT_DAYS = 10
# What can be told, each until it is cleared.
KEYS = {BAD: "drill-failed", UNKNOWN: "drill-unknown", "warning": "drill-overdue", "critical": "drill-overdue-urgent"}


def tell(found: dict[str, object], text: str) -> None:
    """Tell of a drill's verdict, where it is not a good one; after a good one nothing else is to be told either."""
    verdict = str(found["verdict"])
    if verdict == VERIFIED:
        for key in KEYS.values() if found["usual"] else ():
            alerts.clear(key)
    else:
        level = "critical" if verdict == BAD else "warning"
        alerts.hand_over(alerts.Alert(KEYS[verdict], level, f"restore drill: {verdict}", text))


def look(plan: Plan, settings: Settings) -> str:
    """What is to be said where no drill has been well for too long, and say it; empty where all is well."""
    notes = report.known(plan)
    report.remember(plan, notes)
    days = (time.time() - (notes["succeeded"] or notes["since"])) / DAY
    if days <= settings.overdue_days:
        return ""
    text = (
        f"no restore drill has verified the copies for {days:.0f} days, {settings.overdue_days} are allowed; run "
        "`make drill`, or `pi-commerce-backup drill` on the machine"
    )
    level = "critical" if days > settings.overdue_days + URGENT_DAYS else "warning"
    alerts.hand_over(alerts.Alert(KEYS[level], level, "restore drill is overdue", text))
    return text
