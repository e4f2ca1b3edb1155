"""How long a rebuild took, phase by phase, beside what the owner asked for. Pure."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

# Phases between which the shop is set up again on a machine that is ready.
RESTORE = ("secrets", "images", "data", "services", "automations", "watching", "proof")
# What may pass between two phases without anything having been cut off.
PAUSE_SECONDS = 60


class Objective(NamedTuple):
    """Something that may take at most so many seconds."""

    name: str
    limit: int


OBJECTIVES = {
    "service": Objective("services run again", 5 * 60),
    "redis": Objective("Redis is back", 10 * 60),
    "data": Objective("all data is back", 30 * 60),
    "restore": Objective("full restore", 2 * 3600),
    "machine": Objective("new Pi", 4 * 3600),
    "goal": Objective("new Pi: our goal, lean shop, warm mirrors", 20 * 60),
}


def report(
    clock: Sequence[Sequence[Any]], state: Mapping[str, Any], now: float, host: str, machine: str
) -> dict[str, Any]:
    """Everything that is known of a rebuild.

    Args:
        clock: [phase, seconds since 1970 at which it began], of the run that came to the end.
        state: what the machine has noted: `begun`, and `restored` by the backup program.
        now: seconds since 1970 at which it ended.
        host: the machine's name.
        machine: what kind of machine it is; figures of a virtual Pi are no figures of a board.
    """
    marks = [*((str(phase), float(begun)) for phase, begun in clock), ("", now)]
    phases = {phase: round(after - begun, 1) for (phase, begun), (_, after) in pairwise(marks)}
    restored = state.get("restored", {})
    steps = restored.get("seconds", {})
    # A run that goes on where another was cut off finds the data in place.
    before = round(marks[0][1] - state["begun"], 1)
    resumed = before > PAUSE_SECONDS
    data = sum(steps.values()) if resumed else phases.get("data", 0)
    taken = {
        "service": phases.get("services", 0),
        "redis": sum(seconds for step, seconds in steps.items() if step.startswith("preparing redis")),
        "data": data,
        "restore": sum(phases.get(phase, 0) for phase in RESTORE),
        "machine": now - min(state["begun"], marks[0][1]),
    }
    taken["goal"] = taken["machine"]
    return {
        "id": datetime.datetime.fromtimestamp(now, datetime.UTC).strftime("%Y%m%dT%H%M%SZ"),
        "host": host,
        "machine": machine,
        "seconds": round(taken["machine"], 1),
        "resumed": resumed,
        "phases": phases,
        "steps": steps,
        "source": state.get("source", {}),
        "stores": restored.get("stores", {}),
        "objectives": [
            {
                "name": objective.name,
                "limit": objective.limit,
                "seconds": round(taken[key], 1),
                "met": taken[key] <= objective.limit,
            }
            for key, objective in OBJECTIVES.items()
        ],
    }


def markdown(found: Mapping[str, Any]) -> str:
    """The report as a page."""
    minutes = f"{found['seconds'] / 60:.1f} minutes"
    lines = [
        f"# {found['host']} was rebuilt in {minutes}",
        "",
        f"Measured on: {found['machine']}. Ended {found['id']}.",
    ]
    if found["resumed"]:
        lines.append("It was cut off and went on: the phases are those of the last run, the whole is from the first.")
    if found["source"]:
        lines.append(f"Data from repository {found['source']['repository']}:")
        moments = (
            (store, datetime.datetime.fromtimestamp(reached, datetime.UTC))
            for store, reached in found["source"]["reached"].items()
        )
        lines += ["", *(f"- {store} as of {moment:%Y-%m-%d %H:%M:%S} UTC" for store, moment in moments)]
    lines += ["", "| phase | seconds |", "|---|---:|"]
    lines += [f"| {phase} | {seconds:.1f} |" for phase, seconds in found["phases"].items()]
    lines += ["", "| step of the data phase | seconds |", "|---|---:|"]
    lines += [f"| {step} | {seconds:.1f} |" for step, seconds in found["steps"].items() if seconds >= 1]
    lines += ["", "| objective | at most | took | |", "|---|---:|---:|---|"]
    lines += [
        f"| {row['name']} | {row['limit']} s | {row['seconds']:.1f} s | {'met' if row['met'] else 'MISSED'} |"
        for row in found["objectives"]
    ]
    return "\n".join(lines) + "\n"
