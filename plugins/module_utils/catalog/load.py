"""The whole catalog: all enabled services read, and held against each other."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from graphlib import CycleError, TopologicalSorter
from typing import Any

from .place import Place, hint
from .schema import EDITIONS
from .service import Service, file_of, read_service

# The service that forwards what comes from outside; it joins the network of each service that has routes.
ENTRANCE = "proxy"


class CatalogError(ValueError):
    """The catalog is refused. ``problems`` lists every reason, the message has one a line."""

    def __init__(self, problems: Sequence[str]) -> None:
        """Keep ``problems``, which is not empty."""
        super().__init__("\n".join(problems))
        self.problems = list(problems)


@dataclass(frozen=True)
class Catalog:
    """The enabled services by name, in alphabetical order; valid, each in itself and all together."""

    services: Mapping[str, Service]

    def __iter__(self) -> Iterator[Service]:
        """The services."""
        return iter(self.services.values())


def load(texts: Mapping[str, str], enabled: Sequence[str], edition: str, required: Iterable[str] = ()) -> Catalog:
    """Read and validate the catalog.

    ``texts`` maps service names to their rendered files, ``enabled`` names the services that shall run. Of a
    text that is not enabled only ``x-pi.required`` counts; ``required`` names more services that may not be
    missing. Raises CatalogError with all problems at once.
    """
    problems: list[str] = []
    names = _check_enabled(texts, enabled, edition, required, problems)
    read = {name: read_service(name, texts[name], problems) for name in names}
    catalog = Catalog({name: service for name, service in read.items() if service is not None})
    _check_editions(catalog, edition, problems)
    _check_ports(catalog, problems)
    _check_shared_definitions(catalog, problems)
    _check_secret_users(catalog, problems)
    _check_dependencies(catalog, enabled, problems)
    _check_unique(catalog, "routes", "path", problems)
    _check_unique(catalog, "databases", "name", problems)
    _check_unique(catalog, "databases", "owner", problems)
    # What a missing or unreadable file would have defined is not worth a second message.
    if all(name in catalog.services for name in enabled):
        _check_networks(catalog, problems)
        if all(service.pi for service in catalog):
            _check_dumps(catalog, problems)
            _check_passwords(catalog, problems)
    _check_entrances(catalog, problems)
    if problems:
        raise CatalogError(problems)
    return _with_entrance(catalog)


def start_order(catalog: Catalog) -> list[str]:
    """The service names, every one after those it depends on. Raises graphlib.CycleError."""
    order = TopologicalSorter({service.name: service.depends_on for service in catalog}).static_order()
    return [name for name in order if name in catalog.services]


def _at(service: Service, problems: list[str], key: str = "") -> Place:
    """A place in the file of ``service``: a key of the service itself, or else the whole file."""
    file = Place(problems, file_of(service.name))
    return file / "services" / service.name / key if key else file


def _entries(catalog: Catalog, block: str, problems: list[str]) -> Iterator[tuple[Service, Mapping[str, Any], Place]]:
    """All entries of the lists ``x-pi.<block>``, each with its service and its place."""
    for service in catalog:
        for index, entry in enumerate(service.pi.get(block, ())):
            yield service, entry, (_at(service, problems) / "x-pi" / block)[index]


def _check_enabled(
    texts: Mapping[str, str],
    enabled: Sequence[str],
    edition: str,
    required: Iterable[str],
    problems: list[str],
) -> list[str]:
    """The names in ``enabled`` that have a file, in alphabetical order."""
    if edition not in EDITIONS:
        problems.append(f"edition: must be one of {', '.join(EDITIONS)}, not '{edition}'")
    at = Place(problems, "services_enabled")
    if isinstance(enabled, str):
        at.refuse(f"must be a list of service names, not the text '{enabled}'")
        return []
    for name in sorted(set(enabled).difference(texts)):
        at.refuse(f"'{name}' has no file {file_of(name)}{hint(name, texts)}")
    demanded = {name for name in texts if name not in enabled and _is_required(name, texts[name], edition)}
    for name in sorted(demanded.union(required).difference(enabled)):
        at.refuse(f"'{name}' is required and may not be switched off; add it")
    return sorted(set(enabled).intersection(texts))


def _is_required(name: str, text: str, edition: str) -> bool:
    """Whether a service that is not enabled ought to be; what else its file says is nobody's concern."""
    service = read_service(name, text, problems=[])
    return service is not None and service.pi.get("required", False) and edition in service.pi.get("editions", ())


def _check_editions(catalog: Catalog, edition: str, problems: list[str]) -> None:
    for service in catalog:
        editions = service.pi.get("editions", [edition])
        if edition in EDITIONS and edition not in editions:
            (_at(service, problems) / "x-pi" / "editions").refuse(
                f"the service is not made for edition '{edition}'; remove it from services_enabled"
            )


def _check_ports(catalog: Catalog, problems: list[str]) -> None:
    published = [(service, port) for service in catalog for port in service.ports]
    for (holder, taken), (service, port) in itertools.combinations(published, 2):
        if port.overlaps(taken):
            _at(service, problems, "ports").refuse(
                f"{port} is taken already: {taken} of service '{holder.name}'; choose another host port"
            )


def _check_shared_definitions(catalog: Catalog, problems: list[str]) -> None:
    """Compose merges two definitions of one name; nobody could tell from either file what comes out."""
    first: dict[tuple[str, str], Service] = {}
    for service in catalog:
        for block, definitions in service.defines.items():
            for name, definition in definitions.items():
                other = first.setdefault((block, name), service)
                if definition != other.defines[block][name]:
                    (_at(service, problems) / block / name).refuse(
                        f"is defined otherwise in {file_of(other.name)}; the two must be equal"
                    )


def _check_secret_users(catalog: Catalog, problems: list[str]) -> None:
    """A secret is a file that one user may read: services that mount the same one run as the same user."""
    first: dict[str, Service] = {}
    for service in catalog:
        for secret in service.secrets:
            other = first.setdefault(secret, service)
            if service.uid and other.uid and (service.uid, service.gid) != (other.uid, other.gid):
                _at(service, problems, "secrets").refuse(
                    f"'{secret}' belongs to user {other.uid}:{other.gid} of service '{other.name}', but this "
                    f"service runs as {service.uid}:{service.gid}; give it a secret of its own"
                )


def _check_dependencies(catalog: Catalog, enabled: Sequence[str], problems: list[str]) -> None:
    for service in catalog:
        for name in service.depends_on:
            if name not in enabled:
                _at(service, problems, "depends_on").refuse(
                    f"service '{name}' is not enabled; add it to services_enabled or remove '{service.name}'"
                )
    try:
        start_order(catalog)
    except CycleError as error:
        # graphlib names the circle from dependency to dependent.
        circle = list(reversed(error.args[1]))
        _at(catalog.services[circle[0]], problems, "depends_on").refuse(
            f"the services wait for each other ({' -> '.join(circle)}); remove one of these dependencies"
        )


def _check_unique(catalog: Catalog, block: str, key: str, problems: list[str]) -> None:
    """No two entries of the lists ``x-pi.<block>`` have the same ``key``."""
    first: dict[str, Service] = {}
    for service, entry, at in _entries(catalog, block, problems):
        value = entry.get(key)
        if value in first:
            (at / key).refuse(f"'{value}' is taken already by service '{first[value].name}'")
        elif value is not None:
            first[value] = service


def _check_networks(catalog: Catalog, problems: list[str]) -> None:
    defined = {name for service in catalog for name in service.defines["networks"]}
    for service in catalog:
        for network in service.networks:
            if network not in defined:
                _at(service, problems, "networks").refuse(
                    f"no enabled service defines network '{network}'{hint(network, defined)}"
                )


def _check_entrances(catalog: Catalog, problems: list[str]) -> None:
    """A service with routes is reached over the network that carries its name."""
    for service in catalog:
        if service.pi.get("routes") and service.name not in service.networks:
            _at(service, problems, "networks").refuse(
                f"the service has x-pi.routes: it must define and join a network '{service.name}', "
                f"which '{ENTRANCE}' joins too"
            )


def _with_entrance(catalog: Catalog) -> Catalog:
    """The catalog whose entrance joins the network of every service that has routes."""
    entrance = catalog.services.get(ENTRANCE)
    if entrance is None:
        return catalog
    routed = [service.name for service in catalog if service.pi["routes"] and service is not entrance]
    joined = replace(entrance, networks=tuple(dict.fromkeys([*entrance.networks, *routed])))
    return Catalog({**catalog.services, ENTRANCE: joined})


def _check_dumps(catalog: Catalog, problems: list[str]) -> None:
    """Every declared database is dumped, and every dump is one of a declared database."""
    declared = list(_entries(catalog, "databases", problems))
    names = {entry["name"] for _, entry, _ in declared if "name" in entry}
    dumped: set[str] = set()
    for _, entry, at in _entries(catalog, "backup", problems):
        if entry["kind"] == "postgres":
            dumped.update(entry.get("databases", names))
            for name in entry.get("databases", ()):
                if name not in names:
                    at.refuse(f"no enabled service declares database '{name}'{hint(name, names)}")
    for _, entry, at in declared:
        if "name" in entry and entry["name"] not in dumped:
            at.refuse(f"no x-pi.backup entry of kind postgres covers database '{entry['name']}'; add it there")


def _check_passwords(catalog: Catalog, problems: list[str]) -> None:
    """The password of a database or a dump is a secret that somebody declares; a slip of the pen would make another."""
    declared = {name for service in catalog for name in (*service.secrets, *service.pi.get("secrets", ()))}
    for _, entry, at in itertools.chain(*(_entries(catalog, block, problems) for block in ("databases", "backup"))):
        secret = entry.get("password_secret")
        if secret is not None and secret not in declared:
            (at / "password_secret").refuse(
                f"no enabled service mounts '{secret}' or lists it in x-pi.secrets; add it there"
            )
