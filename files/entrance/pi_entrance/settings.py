"""What the program knows: /etc/pi-commerce/entrance/settings.json, written by the role proxy."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import Refused

DEFAULT = Path("/etc/pi-commerce/entrance/settings.json")
WAYS = ("lan", "cloudflare", "acme")


@dataclass(frozen=True)
class Settings:
    """`folder` holds what only root sees (the own authority, the account), `proxy` what nginx reads.

    `given` says that the certificate is the owner's affair. `names` are those that the certificate is for, the first
    one being the site's. `reload` (shell) has nginx read its files anew; it may find none.
    """

    way: str
    given: bool
    host: str
    names: tuple[str, ...]
    folder: Path
    proxy: Path
    owner: int
    reload: str
    acme_server: str
    acme_email: str
    acme_authority: str
    cloudflare_lists: tuple[str, ...]
    cloudflare_authority: str


def load(path: Path = DEFAULT) -> Settings:
    """Read the settings. Raises Refused."""
    try:
        return parse(json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise Refused(f"{path}: cannot be read ({error.strerror}); run site.yml, as root") from error
    except (ValueError, KeyError, TypeError) as error:
        raise Refused(f"{path}: is not what the role proxy writes ({error!r}); run site.yml") from error


def parse(given: Mapping[str, Any]) -> Settings:
    """The settings from their JSON document. Raises KeyError, TypeError or ValueError."""
    if given["way"] not in WAYS:
        raise ValueError(given["way"])
    return Settings(
        way=str(given["way"]),
        given=bool(given["given"]),
        host=str(given["host"]),
        names=tuple(given["names"]),
        folder=Path(given["folder"]),
        proxy=Path(given["proxy"]),
        owner=int(given["owner"]),
        reload=str(given["reload"]),
        acme_server=str(given["acme_server"]),
        acme_email=str(given["acme_email"]),
        acme_authority=str(given["acme_authority"]),
        cloudflare_lists=tuple(given["cloudflare_lists"]),
        cloudflare_authority=str(given["cloudflare_authority"]),
    )
