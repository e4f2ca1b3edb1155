"""Restarts the machine when updates ask for it: in the window, alone, and at most once a night."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from pi_common import alerts, files, restarts
from pi_common.errors import Busy, PiError
from pi_common.metrics import Metric, publish, render

from . import machine
from .engine import unwell
from .settings import Settings

DAY = 86400
# One that has just started has no reason to start again: what asks for it now would ask for it for ever.
SETTLED_SECONDS = 6 * 3600
PENDING, STALE, WRONG = "updates-pending", "updates-stale", "updates-unwell"


def state(settings: Settings) -> dict[str, Any]:
    """What is remembered."""
    return files.read_json(settings.folder / "state.json")


def remember(settings: Settings, **news: Any) -> dict[str, Any]:
    """Remember more; a value of None is forgotten."""
    known = state(settings)
    found = {name: value for name, value in {**known, **news}.items() if value is not None}
    # Most looks change nothing, and the card wears out.
    if found != known:
        files.write_json(settings.folder / "state.json", found)
    return found


def look(settings: Settings, now: float) -> str:
    """Note what is due, tell of what is overdue, and restart where that may be. What keeps it from that, else empty."""
    known = remember(settings, first=since(state(settings).get("first"), now))
    if known.get("outdated") or known.get("packages") != machine.changed():
        known = remember(settings, packages=machine.changed(), outdated=machine.outdated())
    why = machine.reasons() + known["outdated"]
    known = remember(settings, why=why or None, wanted=since(known.get("wanted"), now) if why else None)
    export(settings)
    judge(settings, known, now)
    if not why:
        return ""
    obstacle = hindered(settings, now)
    if not obstacle:
        try:
            restart(settings, why)
        except Busy as error:
            return str(error)
    return obstacle


def since(moment: float | None, now: float) -> float:
    """When it began: now, where nothing was noted, or at a time that is still to come because the clock was wrong."""
    return min(moment or now, now)


def hindered(settings: Settings, now: float) -> str:
    """Why the machine may not be restarted now; empty where it may."""
    if not settings.reboot:
        return "updates_reboot is off"
    if not machine.in_window(*settings.minutes(), now):
        return f"it is not between {settings.window_from} and {settings.window_until}"
    if machine.uptime() < SETTLED_SECONDS:
        return "it has started not long ago"
    if machine.sessions():
        return "somebody is logged in"
    if restarts.packages_at_work():
        return "packages are being installed"
    return ""


def restart(settings: Settings, why: list[str]) -> None:
    """Restart the machine, and have its next start look whether all is well. Raises Busy, or PiError where it stays."""
    try:
        restarts.restart(lambda: remember(settings, rebooting=time.time(), because=why))
    finally:
        # Reached where it stays; a restart ends this process before.
        remember(settings, rebooting=None)


def judge(settings: Settings, known: dict[str, Any], now: float) -> None:
    """Tell when updates have not been installed, or a restart has not been possible, for too long."""
    fresh = max(machine.updated(), known["first"])
    if now - fresh > settings.stale_days * DAY:
        text = (
            f"No security updates have been installed for {(now - fresh) / DAY:.0f} days. "
            "/var/log/unattended-upgrades on the Pi says why; `unattended-upgrade --debug` tries it now."
        )
        alerts.say("warning", "security updates are not being installed", text, STALE)
        remember(settings, stale=True)
    elif known.get("stale"):
        alerts.clear(STALE)
        remember(settings, stale=None)
    if "wanted" in known and now - known["wanted"] > settings.pending_days * DAY:
        text = (
            f"Updates want a restart since {(now - known['wanted']) / DAY:.0f} days ({', '.join(known['why'])}). "
            f"Now it is not possible: {hindered(settings, now) or 'a backup is at work'}. "
            "`sudo reboot` at a quiet moment does it."
        )
        alerts.say("warning", "updates are waiting for a restart", text, PENDING)
        remember(settings, pending=True)
    elif known.get("pending"):
        alerts.clear(PENDING)
        remember(settings, pending=None)


def booted(settings: Settings, now: float, sleep: Callable[[float], None] = time.sleep) -> list[str]:
    """After a restart that was ours: wait until all is well, and tell where it does not become so. What is wrong."""
    known = state(settings)
    if "rebooting" not in known:
        export(settings)
        return []
    problems, left = ["nothing was looked at"], float(settings.healthy_seconds)
    while problems and left > 0:
        problems = unwell_now(settings)
        if problems:
            sleep(10)
            left -= 10
    remember(settings, rebooting=None, rebooted=now, unwell=problems or None)
    export(settings)
    because = ", ".join(known.get("because", []))
    if problems:
        text = f"It was restarted because of {because}. Since then: {'; '.join(problems)}."
        alerts.say("critical", "not well after a restart for updates", text, WRONG)
    else:
        alerts.clear(WRONG)
        alerts.say("info", "restarted for updates, all is well", f"Because of {because}.")
    return problems


def unwell_now(settings: Settings) -> list[str]:
    """Containers that are not healthy, units that failed."""
    try:
        return [*unwell(settings.project), *(f"{unit} has failed" for unit in machine.failed_units())]
    except PiError as error:
        return [str(error)]


def export(settings: Settings) -> None:
    """Write the metrics. 0 is never, or nothing to wait for."""
    known = state(settings)
    rows = (
        ("pi_updates_success_timestamp_seconds", "When security updates were last installed.", machine.updated()),
        ("pi_updates_reboot_wanted_timestamp_seconds", "Since when a restart is wanted.", known.get("wanted", 0)),
        ("pi_updates_rebooted_timestamp_seconds", "When the machine last restarted itself.", known.get("rebooted", 0)),
        ("pi_updates_unwell", "1: something was wrong after that.", int("unwell" in known)),
    )
    publish(settings.metrics, render(Metric(name, what, [({}, value)]) for name, what, value in rows))


def lines(settings: Settings, now: float) -> list[str]:
    """For a person."""
    known, last = state(settings), machine.updated()
    shown = [f"security updates: last installed {_ago(last, now)}"]
    if "wanted" in known:
        kept = hindered(settings, now)
        shown.append(f"restart wanted for {(now - known['wanted']) / 3600:.0f} hours: {', '.join(known['why'])}")
        shown.append(f"  {'not now: ' + kept if kept else 'within minutes, as soon as no backup is at work'}")
    else:
        shown.append("restart: not wanted")
    shown.append(f"last restart for updates: {_ago(known.get('rebooted', 0), now)}")
    return shown + [f"  wrong since then: {problem}" for problem in known.get("unwell", [])]


def _ago(moment: float, now: float) -> str:
    return f"{(now - moment) / 3600:.0f} hours ago" if moment else "never"
