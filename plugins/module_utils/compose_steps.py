"""What Compose does, and would do, to containers, as steps {what, id, status}: no I/O in here."""

from __future__ import annotations

import re
from typing import Any

Step = dict[str, str]


def foreseen(steps: list[Step], containers: list[dict[str, Any]], services: list[str]) -> list[Step]:
    """What a run would do: `steps` without the stopping, and a start for each container that stands still.

    `containers` are all of the project as `docker compose ps` lists them, `services` the ones asked for (none: all).
    """
    made = [step for step in steps if step["status"] != "Stopping"]
    still = [entry for entry in containers if entry["State"] != "running"]
    asked = [entry for entry in still if not services or entry["Service"] in services]
    return made + [{"what": "container", "id": entry["Name"], "status": "Starting"} for entry in asked]


def ill_before(answer: dict[str, Any]) -> str:
    """The container that a run failed for without touching it: unhealthy from before, maybe by what the run mends.

    `answer` is the module's. Empty where the run failed for another reason, or for a container that it made or started.
    """
    named = re.search(r"container (\S+) is unhealthy", str(answer.get("msg"))) if answer.get("failed") else None
    touched = {step["id"] for step in answer.get("actions", [])}
    return named[1] if named and named[1] not in touched else ""


def told(steps: list[Step]) -> str:
    """The steps in words, one in a line."""
    return "".join(f"{step['what']} {step['id']}: {step['status'].lower()}\n" for step in steps)
