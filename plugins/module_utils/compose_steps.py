"""What Compose does, and would do, to containers, as steps {what, id, status}: no I/O in here."""

from __future__ import annotations

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


def told(steps: list[Step]) -> str:
    """The steps in words, one in a line."""
    return "".join(f"{step['what']} {step['id']}: {step['status'].lower()}\n" for step in steps)
