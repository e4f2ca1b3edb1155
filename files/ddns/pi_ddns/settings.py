"""What the program knows: /etc/pi-commerce/ddns/settings.json, written by the role ddns."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import DdnsError, Refused

DEFAULT = Path("/etc/pi-commerce/ddns/settings.json")


@dataclass(frozen=True)
class Settings:
    """`resolver` tells over HTTPS what DNS says; `sources` are URLs by family (4, 6).

    `folder` holds the state, `metrics` is a Prometheus text file.
    """

    host: str
    provider: str
    api: str
    authority: str
    token_file: Path
    resolver: str
    names: tuple[str, ...]
    sources: Mapping[int, tuple[str, ...]]
    folder: Path
    metrics: Path
    every_minutes: int
    stale_minutes: int
    refresh_hours: int

    def token(self) -> str:
        """The provider's token, which is a secret. Raises DdnsError."""
        try:
            return self.token_file.read_text(encoding="utf-8").strip()
        except OSError as error:
            raise DdnsError(f"{self.token_file}: cannot be read ({error.strerror}); run site.yml") from error


def load(path: Path = DEFAULT) -> Settings:
    """Read the settings. Raises Refused."""
    try:
        return parse(json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise Refused(f"{path}: cannot be read ({error.strerror}); run site.yml, as root") from error
    except (ValueError, KeyError, TypeError) as error:
        raise Refused(f"{path}: is not what the role ddns writes ({error!r}); run site.yml") from error


def parse(given: Mapping[str, Any]) -> Settings:
    """The settings from their JSON document. Raises KeyError, TypeError or ValueError."""
    return Settings(
        host=str(given["host"]),
        provider=str(given["provider"]),
        api=str(given["api"]),
        authority=str(given["authority"]),
        token_file=Path(given["token_file"]),
        resolver=str(given["resolver"]),
        names=tuple(given["names"]),
        sources={int(family): tuple(urls) for family, urls in given["sources"].items()},
        folder=Path(given["folder"]),
        metrics=Path(given["metrics"]),
        every_minutes=int(given["every_minutes"]),
        stale_minutes=int(given["stale_minutes"]),
        refresh_hours=int(given["refresh_hours"]),
    )
