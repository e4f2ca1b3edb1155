"""Who is told, and how much may wait: /etc/pi-commerce/notify/settings.json, written by the role notify."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import NotifyError

DEFAULT = Path("/etc/pi-commerce/notify/settings.json")
# From what may wait until morning to what may not.
LEVELS = ("info", "warning", "critical")
TITLE_CHARACTERS = 200
BODY_BYTES = 16 * 1024


@dataclass(frozen=True)
class Target:
    """One way to a person: a file with an Apprise URL, and the lowest level that goes there."""

    name: str
    url_file: Path
    level: str = LEVELS[0]

    def takes(self, level: str) -> bool:
        """Whether messages of this level go there."""
        return LEVELS.index(level) >= LEVELS.index(self.level)

    def url(self) -> str:
        """The URL, which is a secret. Raises NotifyError."""
        try:
            return self.url_file.read_text(encoding="utf-8").strip()
        except OSError as error:
            raise NotifyError(f"{self.url_file}: cannot be read ({error.strerror}); run site.yml") from error


@dataclass(frozen=True)
class Settings:
    """Everything the program knows. `folder` holds the outbox, `metrics` is a Prometheus text file."""

    host: str
    folder: Path
    metrics: Path
    cadence_minutes: int
    repeat_hours: int
    keep_days: int
    messages: int
    kib: int
    targets: Mapping[str, Target]


def load(path: Path = DEFAULT) -> Settings:
    """Read the settings. Raises NotifyError."""
    try:
        return parse(json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise NotifyError(f"{path}: cannot be read ({error.strerror}); run site.yml, as root") from error
    except (ValueError, KeyError, TypeError) as error:
        raise NotifyError(f"{path}: is not what the role notify writes ({error!r}); run site.yml") from error


def parse(given: Mapping[str, Any]) -> Settings:
    """The settings from their JSON document. Raises KeyError, TypeError or ValueError."""
    return Settings(
        host=str(given["host"]),
        folder=Path(given["folder"]),
        metrics=Path(given["metrics"]),
        cadence_minutes=int(given["cadence_minutes"]),
        repeat_hours=int(given["repeat_hours"]),
        keep_days=int(given["keep_days"]),
        messages=int(given["messages"]),
        kib=int(given["kib"]),
        targets={name: _target(name, entry) for name, entry in given["targets"].items()},
    )


def _target(name: str, entry: Mapping[str, str]) -> Target:
    if entry["level"] not in LEVELS:
        raise ValueError(entry["level"])
    return Target(name, Path(entry["url_file"]), entry["level"])
