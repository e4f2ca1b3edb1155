"""What the program knows: /etc/pi-commerce/thermal/settings.json, written by the role thermal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pi_common import files
from pi_common.errors import Refused

DEFAULT = Path("/etc/pi-commerce/thermal/settings.json")
# From what is worth a look to what stops services.
LEVELS = ("warm", "high", "critical")


@dataclass(frozen=True)
class Settings:
    """`celsius` has the LEVELS, and `restore`, below which what was stopped comes back; `shed` is stopped in its order.

    `curve` (degrees, percent) is for a fan at `bus`, which knows no other; both are empty where the kernel drives it.
    """

    root: str
    project: str
    folder: Path
    metrics: Path
    every_seconds: int
    celsius: Mapping[str, float]
    hysteresis: float
    quiet_minutes: int
    shed: tuple[str, ...]
    shed_seconds: int
    bus: str
    address: int
    curve: tuple[tuple[float, int], ...]


def load(path: Path = DEFAULT) -> Settings:
    """Read the settings. Raises Refused."""
    given = files.read_settings(path, "thermal")
    try:
        return Settings(
            root=str(given["root"]),
            project=str(given["project"]),
            folder=Path(given["folder"]),
            metrics=Path(given["metrics"]),
            every_seconds=int(given["every_seconds"]),
            celsius={name: float(given["celsius"][name]) for name in (*LEVELS, "restore")},
            hysteresis=float(given["hysteresis"]),
            quiet_minutes=int(given["quiet_minutes"]),
            shed=tuple(given["shed"]),
            shed_seconds=int(given["shed_seconds"]),
            bus=str(given["bus"]),
            address=int(given["address"]),
            curve=tuple((float(entry["celsius"]), int(entry["percent"])) for entry in given["curve"]),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise Refused(f"{path}: is not what the role thermal writes ({error!r}); run site.yml") from error
