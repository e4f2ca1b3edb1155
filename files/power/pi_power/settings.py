"""What the program knows: /etc/pi-commerce/power/settings.json, written by the role power."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pi_common import files
from pi_common.errors import Refused

DEFAULT = Path("/etc/pi-commerce/power/settings.json")


@dataclass(frozen=True)
class Settings:
    """`ups` is how NUT calls it. `writers` and `stores` (the databases) are services in the order in which they stop.

    `halt` is what ends the machine.
    """

    ups: str
    project: str
    folder: Path
    metrics: Path
    writers: tuple[str, ...]
    stores: tuple[str, ...]
    drain_seconds: int
    halt: str


def load(path: Path = DEFAULT) -> Settings:
    """Read the settings. Raises Refused."""
    given = files.read_settings(path, "power")
    try:
        return Settings(
            ups=str(given["ups"]),
            project=str(given["project"]),
            folder=Path(given["folder"]),
            metrics=Path(given["metrics"]),
            writers=tuple(given["writers"]),
            stores=tuple(given["stores"]),
            drain_seconds=int(given["drain_seconds"]),
            halt=str(given["halt"]),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise Refused(f"{path}: is not what the role power writes ({error!r}); run site.yml") from error
