"""How things stand: for people (`--status`), for the audit (status.json) and for Prometheus (notify.prom)."""

from __future__ import annotations

import time
from typing import Any

from pi_common import files
from pi_common.metrics import publish as export

from .outbox import Outbox
from .settings import LEVELS, Settings

# A message that waits longer is a matter for somebody.
LATE_SECONDS = 900


def collected(outbox: Outbox, state: dict[str, Any]) -> dict[str, Any]:
    """What waits (number by level, bytes, since when), each target's state, and the counters."""
    messages = outbox.messages()
    return {
        "waiting": {level: sum(message.level == level for message in messages) for level in LEVELS},
        "bytes": outbox.bytes(),
        "oldest": min((message.created for message in messages), default=None),
        "targets": {name: state["targets"].get(name, {}) for name in outbox.settings.targets},
        "counts": state["counts"],
    }


def publish(settings: Settings) -> None:
    """Write status.json and the metrics. Raises Busy."""
    outbox = Outbox(settings)
    with outbox.locked() as state:
        found = collected(outbox, state)
        files.write_json(settings.folder / "status.json", found)
        export(settings.metrics, metrics(found))


def metrics(found: dict[str, Any]) -> str:
    """What `collected` returns, as Prometheus reads it."""
    reached = {name: entry["success"] for name, entry in found["targets"].items() if "success" in entry}
    counted: dict[str, dict[str, int]] = {"delivered": {}, "failed": {}, "dropped": {}}
    for name, count in found["counts"].items():
        what, _, label = name.partition(" ")
        counted[what][label] = count
    oldest = {} if found["oldest"] is None else {"": found["oldest"]}
    lines: list[str] = []
    for name, kind, label, values, text in (
        ("waiting", "gauge", "level", found["waiting"], "Messages that wait."),
        ("outbox_bytes", "gauge", "", {"": found["bytes"]}, "Size of the messages that wait."),
        ("oldest_timestamp_seconds", "gauge", "", oldest, "When the oldest message that waits was raised."),
        ("success_timestamp_seconds", "gauge", "target", reached, "When a target last took a message."),
        ("delivered_total", "counter", "target", counted["delivered"], "Messages that a target took."),
        ("failed_total", "counter", "target", counted["failed"], "Tries that failed."),
        ("dropped_total", "counter", "reason", counted["dropped"], "Messages that nobody will get."),
    ):
        lines += [f"# HELP pi_notify_{name} {text}", f"# TYPE pi_notify_{name} {kind}"]
        for value, number in sorted(values.items()):
            labels = f'{{{label}="{value}"}}' if label else ""
            lines.append(f"pi_notify_{name}{labels} {number:.0f}")
    return "\n".join(lines) + "\n"


def table(settings: Settings) -> tuple[list[str], bool]:
    """Lines for a person, and whether all is well: no target out of reach, nothing that waits for long."""
    outbox, now = Outbox(settings), time.time()
    found = collected(outbox, outbox.state())
    lines, well = [], True
    for name, target in settings.targets.items():
        entry = found["targets"][name]
        last = f"last took a message {_ago(now - entry['success'])}" if "success" in entry else "took none yet"
        lines.append(f"{name:<12} from {target.level} on, {last}")
        if entry.get("failures"):
            well = False
            lines.append(f"{'':<12} failed {entry['failures']} times in a row: {entry['error']}")
    if not settings.targets:
        lines.append("no target is configured (notify_targets): messages go to the journal only")
    for message in outbox.messages():
        well = well and now - message.created < LATE_SECONDS
        lines.append(f"{message.level:<12} {message.title} (raised {_ago(now - message.created)}, {message.id})")
        for waiting in message.waiting:
            tries = message.tries(waiting)
            lines.append(f"{'':<12} waits for {waiting}, {tries['attempts']} tries{_because(tries['error'])}")
    lines.append(f"{sum(found['waiting'].values())} messages wait, {found['bytes']} bytes")
    lines += [f"{count} {what}" for what, count in sorted(found["counts"].items())]
    return lines, well


def _because(error: str) -> str:
    return f": {error}" if error else ""


def _ago(seconds: float) -> str:
    for unit, size in (("days", 86400), ("hours", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit} ago"
    return f"{seconds:.0f} s ago"
