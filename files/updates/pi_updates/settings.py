"""What the role has written: where things lie, and how long they may take."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pi_common import files
from pi_common.errors import Refused

DEFAULT = Path("/etc/pi-commerce/updates/settings.json")


@dataclass(frozen=True)
class Settings:
    """The window is in local time, `HH:MM`; it may reach over midnight."""

    folder: Path
    metrics: Path
    window_from: str
    window_until: str
    reboot: bool
    pending_days: int
    stale_days: int
    healthy_seconds: int
    watched_seconds: int
    project: str
    compose: Path
    held: tuple[str, ...]

    def minutes(self) -> tuple[int, int]:
        """Both ends of the window as minutes of the day."""
        ends = (text.split(":") for text in (self.window_from, self.window_until))
        begin, end = (int(hour) * 60 + int(minute) for hour, minute in ends)
        return begin, end


def load(path: Path = DEFAULT) -> Settings:
    """Read them. Raises Refused."""
    found = files.read_settings(path, "updates")
    try:
        paths = {name: Path(found[name]) for name in ("folder", "metrics", "compose")}
        return Settings(**{**found, **paths, "held": tuple(found["held"])})
    except (ValueError, TypeError, KeyError) as error:
        raise Refused(f"{path}: is not what the role updates writes ({error!r}); run site.yml") from error
