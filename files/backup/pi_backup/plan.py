"""What is to be backed up, and to where: /etc/pi-commerce/backup/plan.json, written by the role backup."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .errors import BackupError

DEFAULT = Path("/etc/pi-commerce/backup/plan.json")


@dataclass(frozen=True)
class Store:
    """One thing of a service that holds data. `kind` is postgres, redis, n8n or volume."""

    service: str
    kind: str
    volume: str
    spool: str = ""
    databases: tuple[str, ...] = ()
    user: str = ""
    password_secret: str = ""

    @property
    def name(self) -> str:
        """How status, metrics and manifests call it."""
        return self.volume


@dataclass(frozen=True)
class Service:
    """A service of the catalog. `needs` are the services it cannot run without, `databases` those it owns.

    `options` and `lifetime` (seconds, 0: no end) are of the containers that live for one step only.
    """

    name: str
    image: str
    uid: int
    gid: int
    needs: tuple[str, ...]
    databases: tuple[str, ...]
    stores: tuple[Store, ...]
    options: tuple[str, ...] = ()
    lifetime: int = 0


@dataclass(frozen=True)
class Target:
    """Where a repository is. `secrets` maps environment variables of the engine to files."""

    name: str
    url: str
    password_file: str
    environment: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """The whole plan. `folder` is where state and staging lie; services stand in the order they are started.

    `images` is everything that they run on, `images_in` the repositories that get these too.
    """

    host: str
    project: str
    folder: Path
    engine: str
    secrets_folder: Path
    targets: Mapping[str, Target]
    recipients: tuple[str, ...]
    sealed: tuple[str, ...]
    host_paths: tuple[str, ...]
    spool_mib: int
    keep: Mapping[str, str]
    services: tuple[Service, ...]
    images: tuple[str, ...] = ()
    images_in: tuple[str, ...] = ()

    @property
    def stores(self) -> Iterator[Store]:
        """The stores of all services."""
        return (store for service in self.services for store in service.stores)

    @property
    def places(self) -> list[str]:
        """The locks of the repositories."""
        return [f"place-{name}" for name in self.targets]

    def service(self, name: str) -> Service:
        """One service. Raises BackupError that lists the known ones."""
        for service in self.services:
            if service.name == name:
                return service
        known = ", ".join(service.name for service in self.services)
        raise BackupError(f"there is no service {name!r} in the plan; there are: {known}")

    def postgres(self) -> Store | None:
        """The PostgreSQL server, where there is one."""
        return next((store for store in self.stores if store.kind == "postgres"), None)

    def secret(self, name: str) -> str:
        """The content of a secret. Raises BackupError."""
        path = self.secrets_folder / name
        try:
            return path.read_text(encoding="utf-8").rstrip("\n")
        except OSError as error:
            raise BackupError(f"{path}: cannot be read ({error.strerror}); run site.yml") from error


def load(path: Path = DEFAULT) -> Plan:
    """Read the plan. Raises BackupError."""
    try:
        return parse(json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise BackupError(f"{path}: cannot be read ({error.strerror}); run site.yml, as root") from error
    except (ValueError, KeyError, TypeError) as error:
        raise BackupError(f"{path}: is no backup plan ({error!r}); run site.yml, which writes it anew") from error


def parse(given: Mapping[str, Any]) -> Plan:
    """The plan from its JSON document. Raises KeyError, TypeError or ValueError."""
    if not given["repositories"]:
        raise ValueError("no repository")
    return Plan(
        host=given["host"],
        project=given["project"],
        folder=Path(given["folder"]),
        engine=given["engine"],
        secrets_folder=Path(given["secrets_folder"]),
        targets={name: Target(name=name, **entry) for name, entry in given["repositories"].items()},
        recipients=tuple(given["recipients"]),
        sealed=tuple(given["sealed"]),
        host_paths=tuple(given["host_paths"]),
        spool_mib=int(given["spool_mib"]),
        keep=given["keep"],
        services=tuple(_service(entry) for entry in given["services"]),
        images=tuple(given.get("images", ())),
        images_in=tuple(given.get("images_in", ())),
    )


def _service(entry: Mapping[str, Any]) -> Service:
    stores = ({**store, "databases": tuple(store.get("databases", ()))} for store in entry["stores"])
    return Service(
        name=entry["name"],
        image=entry["image"],
        uid=int(entry["uid"]),
        gid=int(entry["gid"]),
        needs=tuple(entry["needs"]),
        databases=tuple(entry["databases"]),
        stores=tuple(Store(service=entry["name"], **store) for store in stores),
    )
