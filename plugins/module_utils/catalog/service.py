"""One service: its rendered Compose file, read and held against the rules of the house."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from . import compose
from .place import Place, hint, shown
from .schema import X_PI

SECRETS_DIR = "/etc/pi-commerce/secrets"

_TOP_LEVEL = ("services", "networks", "volumes", "secrets", "configs", "x-pi")


@dataclass(frozen=True)
class Service:
    """What the catalog knows of one service.

    ``memory_mib`` (MiB), ``cpus`` (cores) and ``pids`` are the limits of one replica. ``volumes`` are the
    named volumes it mounts. ``defines`` holds the top-level ``networks``, ``volumes`` and ``secrets`` of its
    file (name -> definition), ``pi`` its ``x-pi`` block with the defaults filled in.
    """

    name: str
    image: str
    uid: int
    gid: int
    memory_mib: int
    cpus: float
    pids: int
    replicas: int
    ports: tuple[compose.Port, ...]
    networks: tuple[str, ...]
    volumes: tuple[str, ...]
    secrets: tuple[str, ...]
    depends_on: tuple[str, ...]
    defines: Mapping[str, Mapping[str, Any]]
    pi: Mapping[str, Any]


def file_of(name: str) -> str:
    """The catalog file of the service ``name``, as messages call it."""
    return f"templates/services/{name}.yml.j2"


def read_service(name: str, text: str, problems: list[str]) -> Service | None:
    """Read the rendered catalog file of ``name``; what is wrong with it is appended to ``problems``.

    Returns None when the text has not even the shape of a catalog file. Where there are problems, the values
    that they concern are empty.
    """
    at = Place(problems, file_of(name))
    document = _parse(text, at)
    if document is None:
        return None
    at.refuse_unknown(document, _TOP_LEVEL)
    services = document.get("services")
    if not isinstance(services, dict) or list(services) != [name] or not isinstance(services[name], dict):
        found = ", ".join(map(str, services)) if isinstance(services, dict) else shown(services)
        (at / "services").refuse(f"must hold exactly one service, the mapping '{name}'; found: {found}")
        return None
    blocks = {block: _definitions(document.get(block), at / block) for block in ("networks", "volumes", "secrets")}
    pi = X_PI.read(document.get("x-pi"), at / "x-pi") or {}
    service = _read_compose(name, services[name], blocks, pi, at / "services" / name)
    _check_definitions(service, at)
    if pi:
        _check_pi(service, at / "x-pi")
    return service


class _Loader(yaml.SafeLoader):
    """A SafeLoader that refuses a key written twice, where PyYAML would silently keep the last."""

    def compose_mapping_node(self, anchor: dict[Any, yaml.Node]) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise yaml.composer.ComposerError(None, None, f"key '{key.value}' is there twice", key.start_mark)
                seen.add(key.value)
        return node


def _parse(text: str, at: Place) -> dict[Any, Any] | None:
    try:
        document = yaml.load(text, Loader=_Loader)  # noqa: S506 - _Loader is a SafeLoader
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else "?"
        at.refuse(f"line {line} of the rendered text is not valid YAML: {error.problem}")
        return None
    except (yaml.YAMLError, ValueError) as error:
        # ValueError: PyYAML hands 2026-13-01 to date() as it is.
        at.refuse(f"the rendered text is not valid YAML: {error}")
        return None
    if not isinstance(document, dict):
        at.refuse(f"must be a Compose document (a mapping with services and x-pi), not {shown(document)}")
        return None
    return document


def _definitions(value: object, at: Place) -> dict[str, dict[str, Any]]:
    """A top-level block of definitions; an empty definition is {}."""
    block = {} if value is None else value
    if not isinstance(block, dict) or not all(item is None or isinstance(item, dict) for item in block.values()):
        at.refuse("must be a mapping of names, each with a mapping or nothing")
        return {}
    return {str(name): definition or {} for name, definition in block.items()}


def _read_compose(
    name: str,
    service: Mapping[str, Any],
    defines: Mapping[str, Mapping[str, Any]],
    pi: Mapping[str, Any],
    at: Place,
) -> Service:
    compose.check_hardening(service, at)
    deploy, deploy_at = _inside(service, at, "deploy")
    limits, limits_at = _inside(*_inside(deploy, deploy_at, "resources"), "limits")
    uid, gid = compose.user(service.get("user"), at / "user")
    return Service(
        name=name,
        image=compose.image(service.get("image"), at / "image"),
        uid=uid,
        gid=gid,
        memory_mib=compose.memory_mib(limits.get("memory"), limits_at / "memory"),
        cpus=compose.cores(limits.get("cpus"), limits_at / "cpus"),
        pids=compose.count(limits.get("pids"), limits_at / "pids"),
        replicas=compose.count(deploy.get("replicas", 1), deploy_at / "replicas"),
        ports=compose.ports(service.get("ports"), at / "ports"),
        networks=compose.names(service.get("networks"), at / "networks"),
        volumes=compose.volumes(service.get("volumes"), at / "volumes"),
        secrets=compose.names(service.get("secrets"), at / "secrets"),
        depends_on=compose.names(service.get("depends_on"), at / "depends_on"),
        defines=defines,
        pi=pi,
    )


def _inside(parent: Mapping[str, Any], at: Place, key: str) -> tuple[Mapping[str, Any], Place]:
    """The mapping below ``key``, empty if it is none, and its place."""
    value = parent.get(key)
    return (value if isinstance(value, dict) else {}), at / key


def _check_definitions(service: Service, at: Place) -> None:
    """Volumes and secrets are defined in the file that uses them, and used where they are defined."""
    here = at / "services" / service.name
    if not service.networks:
        (here / "networks").refuse("missing; name the networks it joins, or it shares one with everybody else")
    for block, used in (("volumes", service.volumes), ("secrets", service.secrets)):
        defined = service.defines[block]
        for name in used:
            if name not in defined:
                (here / block).refuse(f"'{name}' is not defined by {block} of this file{hint(name, defined)}")
        for name in defined:
            if name not in used:
                (at / block / name).refuse("is defined, but the service does not mount it; remove one or add the other")
    for name, definition in service.defines["secrets"].items():
        if definition != {"file": f"{SECRETS_DIR}/{name}"}:
            (at / "secrets" / name).refuse(f"must be file: {SECRETS_DIR}/{name}, and nothing else")


def _check_pi(service: Service, at: Place) -> None:
    """What ``x-pi`` says fits what the service is."""
    exposure = service.pi.get("exposure")
    if exposure == "none" and service.ports:
        (at / "exposure").refuse("is none, but the service publishes ports; must be lan, vpn or public")
    if exposure not in (None, "none") and not service.ports:
        (at / "exposure").refuse(f"is {exposure}, but the service publishes no port; must be none")
    accounted: list[str] = []
    for index, entry in enumerate(service.pi.get("backup", ())):
        for volume in filter(None, (entry.get("volume"), entry.get("spool"))):
            if volume in accounted:
                (at / "backup")[index].refuse(f"volume '{volume}' has an entry already; it must have exactly one")
            elif volume not in service.volumes:
                unknown = hint(volume, service.volumes)
                (at / "backup")[index].refuse(f"volume '{volume}' is none that the service mounts{unknown}")
            accounted.append(volume)
    for volume in service.volumes:
        if volume not in accounted:
            (at / "backup").refuse(
                f"says nothing of volume '{volume}'; add an entry, of kind none if it needs no backup"
            )
