"""How a drill is done on this machine: /etc/pi-commerce/drill/settings.json, written by the role drill."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from ..errors import BackupError
from ..plan import Plan

DEFAULT = Path("/etc/pi-commerce/drill/settings.json")


@dataclass(frozen=True)
class Settings:
    """`repository`: where from, empty: `far`, else the last one. Of its data one of `parts` is read each time."""

    repository: str = ""
    window_minutes: int = 15
    night_hours: int = 26
    parts: int = 12
    budget_minutes: int = 480
    overdue_days: int = 35
    kept: int = 24

    def source(self, plan: Plan, wanted: str = "") -> str:
        """The repository to take: the one that is wanted, else the one set, else the farthest. Raises BackupError."""
        name = wanted or self.repository or ("far" if "far" in plan.targets else list(plan.targets)[-1])
        if name not in plan.targets:
            raise BackupError(f"there is no repository {name!r}; there are: {', '.join(plan.targets)}")
        return name


def load(path: Path = DEFAULT) -> Settings:
    """Read the settings; without a file they are the defaults. Raises BackupError."""
    try:
        return Settings(**json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return Settings()
    except (ValueError, TypeError) as error:
        raise BackupError(f"{path}: is no settings file ({error}); run site.yml, which writes it anew") from error
