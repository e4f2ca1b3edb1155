"""A stand-in for the docker client: images, containers and Compose as far as an upgrade uses them.

Called as a program: `engine_stand_in.py STATE.json WORDS...`. `behaviour` in the state says by image what becomes of a
container made from it: well, unhealthy, or flapping (well at first).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import yaml

State = dict[str, Any]


def document(name: str, one: dict[str, Any]) -> dict[str, Any]:
    """What `docker inspect` says of a container; of a flapping one its restarts grow each time."""
    if one["behaviour"] == "flapping":
        one["restarts"] += 1
    health = "unhealthy" if one["behaviour"] == "unhealthy" else "healthy"
    return {
        "Name": f"/pi-commerce-{name}-1",
        "Image": one["image"],
        "RestartCount": one["restarts"],
        "Config": {"Image": one["reference"], "Labels": {"com.docker.compose.service": name}},
        "State": {"Status": "running", "Health": {"Status": health}},
    }


def compose(state: State, words: list[str]) -> str:
    """`docker compose --file ... config` or `... up ... SERVICE...`."""
    paths = [Path(words[place + 1]) for place, word in enumerate(words) if word == "--file"]
    services: dict[str, Any] = {}
    for path in paths:
        for name, entry in (yaml.safe_load(path.read_text()) or {}).get("services", {}).items():
            services.setdefault(name, {}).update(entry)
    if "config" in words:
        return json.dumps({"services": services})
    chosen = words[words.index("--wait-timeout") + 2 :]
    for name in chosen:
        reference = services[name]["image"]
        image = state["tags"][reference]
        behaviour = state["behaviour"].get(image, "well")
        state["containers"][name] = {"reference": reference, "image": image, "restarts": 0, "behaviour": behaviour}
    if bad := [name for name in chosen if state["containers"][name]["behaviour"] == "unhealthy"]:
        raise SystemExit(f"container {bad[0]} is unhealthy")
    return ""


def answer(state: State, words: list[str]) -> str:
    """What the command prints; the state changes with it."""
    if words[0] == "ps":
        return "\n".join(state["containers"])
    if words[0] == "inspect":
        return json.dumps([document(name, state["containers"][name]) for name in words[1:]])
    if words[:2] == ["image", "inspect"]:
        digests = [f"any@{digest}" for digest, image in state["registry"].items() if image == words[2]]
        return json.dumps([{"RepoDigests": digests}])
    if words[0] == "pull":
        digest = words[-1].partition("@")[2]
        if state.get("registry_away"):
            raise SystemExit("registry does not answer")
        state["tags"][words[-1]] = state["registry"][digest]
    elif words[0] == "tag":
        state["tags"][words[2]] = state["tags"].get(words[1], words[1])
    elif words[0] == "compose":
        return compose(state, words)
    elif words[0] == "logs":
        return "FATAL: this image is broken"
    return ""


if __name__ == "__main__":
    file = Path(sys.argv[1])
    known = json.loads(file.read_text())
    known["calls"].append(sys.argv[2:])
    try:
        print(answer(known, sys.argv[2:]))
    finally:
        file.write_text(json.dumps(known))
