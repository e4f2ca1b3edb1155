"""Settings, state and metrics: files that are whole or not there."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .errors import Refused


def write(path: Path, content: str, mode: int = 0o644) -> None:
    """Replace a file in one step; when this returns it is on the disk."""
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    temporary = path.with_name(f".new-{path.name}")
    with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "w", encoding="utf-8") as target:
        target.write(content)
        target.flush()
        os.fsync(target.fileno())
    os.rename(temporary, path)


def read_state(path: Path) -> dict[str, Any]:
    """A JSON mapping that was kept; an empty one where there is none that can be read."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def write_state(path: Path, content: Mapping[str, Any]) -> None:
    """Keep a JSON mapping, for root's eyes only."""
    write(path, json.dumps(content, indent=1, sort_keys=True) + "\n", 0o600)


def read_settings(path: Path, role: str) -> dict[str, Any]:
    """What a role has written. Raises Refused."""
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise Refused(f"{path}: cannot be read ({error.strerror}); run site.yml, as root") from error
    except ValueError as error:
        raise Refused(f"{path}: is not what the role {role} writes ({error}); run site.yml") from error
    return found
