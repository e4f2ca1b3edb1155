"""Readers of single Compose values: each returns what the catalog keeps, or refuses the value at its place.

A refused value is replaced by an empty one, so that reading goes on and all problems come out at once.
"""

from __future__ import annotations

import ipaddress
import math
import posixpath
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from .place import Place, shown

_HOST_NAMESPACES = ("network_mode", "pid", "ipc", "uts", "userns_mode", "cgroup")
_DOCKER_SOCKETS = ("/run/docker.sock", "/var/run/docker.sock")
_MIB = 1024 * 1024
_UNITS = {"": 1, "k": 1024, "m": _MIB, "g": 1024 * _MIB}
# Docker refuses less; mostly it is a unit that was forgotten.
_LEAST_MEMORY_MIB = 6
_LAST_PORT = 65535
# As the image specification has it; \w alone would let letters through that no registry knows.
_IMAGE = re.compile(
    r"(?:(?:[a-zA-Z0-9-]+\.)+[a-zA-Z0-9-]+(?::\d{1,5})?/|[a-zA-Z0-9-]+:\d{1,5}/|localhost/)?"
    r"[a-z0-9]+(?:(?:/|\.|__?|-+)[a-z0-9]+)*(?::(?P<tag>[a-zA-Z0-9_][a-zA-Z0-9_.-]{0,127}))?(?:@sha256:[0-9a-f]+)?"
)
_SHORT_PORT = re.compile(r"(?P<ip>[\d.]+|\[[\da-fA-F:]+\]):(?P<host>\d+):(?P<container>\d+)(?:/(?P<protocol>\w+))?")


@dataclass(frozen=True)
class Port:
    """A port of the host that is forwarded into a container."""

    host_ip: str
    host_port: int
    container_port: int
    protocol: str

    def overlaps(self, other: Port) -> bool:
        """Whether the two cannot be bound at the same time."""
        if (self.host_port, self.protocol) != (other.host_port, other.protocol):
            return False
        one, two = ipaddress.ip_address(self.host_ip), ipaddress.ip_address(other.host_ip)
        return one == two or (one.version == two.version and (one.is_unspecified or two.is_unspecified))

    def __str__(self) -> str:
        """The port as messages name it."""
        host = f"[{self.host_ip}]" if ":" in self.host_ip else self.host_ip
        return f"{host}:{self.host_port}/{self.protocol}"


def check_hardening(service: Mapping[str, Any], at: Place) -> None:
    """Refuse a service that may do more than it has to, or that nobody would restart or notice failing."""

    def holds(key: str, word: str) -> bool:
        value = service.get(key)
        return isinstance(value, list) and word in value

    demands = {
        "restart": (
            service.get("restart") in ("unless-stopped", "always"),
            "must be unless-stopped or always",
        ),
        "read_only": (service.get("read_only") is True, "must be true; give it tmpfs where it has to write"),
        "cap_drop": (holds("cap_drop", "ALL"), "must be [ALL]"),
        "security_opt": (holds("security_opt", "no-new-privileges:true"), "must hold no-new-privileges:true"),
        "privileged": (service.get("privileged", False) is False, "is forbidden; remove it"),
    }
    for key, (met, message) in demands.items():
        if not met:
            (at / key).refuse(message)
    for key in _HOST_NAMESPACES:
        if service.get(key) == "host":
            (at / key).refuse("'host' is forbidden: the container would share it with the host; remove it")
    _check_healthcheck(service.get("healthcheck"), at / "healthcheck")


def _check_healthcheck(value: object, at: Place) -> None:
    if not isinstance(value, dict):
        at.refuse("missing; must be a mapping with test")
    elif value.get("disable", False) is not False:
        (at / "disable").refuse("is forbidden: depends_on and verify rely on the health of every service")
    elif not value.get("test") or value["test"] in ("NONE", ["NONE"]):
        (at / "test").refuse("missing; must be the command that proves the service healthy")


def image(value: object, at: Place) -> str:
    """An image reference with a version tag, whether or not a digest follows."""
    if not isinstance(value, str) or not value:
        at.refuse("missing; must be name:version")
        return ""
    match = _IMAGE.fullmatch(value)
    if match is None:
        at.refuse(f"'{value}' is no image reference; must be [registry[:port]/]name:version, the name in lower case")
    elif match["tag"] in (None, "latest"):
        at.refuse(f"'{value}' is not pinned; must be name:version, and the version not latest")
    return value


def user(value: object, at: Place) -> tuple[int, int]:
    """The uid and gid of ``"999:1000"``."""
    match = re.fullmatch(r"([1-9]\d*):([1-9]\d*)", value) if isinstance(value, str) else None
    if match is None:
        at.refuse(f'must be a quoted numeric "uid:gid", neither of them root, not {shown(value)}')
        return 0, 0
    return int(match[1]), int(match[2])


def memory_mib(value: object, at: Place) -> int:
    """A limit as Compose writes it (64M, 1.5g, 512mb, a number of bytes) in MiB, rounded up."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?) ?(?:([kmg])i?)?b?", str(value).lower())
    if match is None:
        at.refuse(_number_expected(value, "a size, such as 256M or 1.5G"))
        return 0
    mib = math.ceil(float(match[1]) * _UNITS[match[2] or ""] / _MIB)
    if mib < _LEAST_MEMORY_MIB:
        at.refuse(f"{shown(value)} is less than {_LEAST_MEMORY_MIB}M; is the unit missing?")
    return mib


def cores(value: object, at: Place) -> float:
    """A share of the processor, 1.0 being one core."""
    number = float(str(value)) if re.fullmatch(r"\d+(\.\d+)?", str(value)) else 0.0
    if number == 0:
        at.refuse(_number_expected(value, "a number of cores, such as 0.5"))
    return number


def count(value: object, at: Place) -> int:
    """A whole number from 1 on."""
    if re.fullmatch(r"[1-9]\d*", str(value)) is None:
        at.refuse(_number_expected(value, "a whole number from 1 on"))
        return 0
    return int(str(value))


def _number_expected(value: object, expect: str) -> str:
    return f"missing; must be {expect}" if value is None else f"must be {expect}, not {shown(value)}"


def names(value: object, at: Place) -> tuple[str, ...]:
    """The names in a list of names, in a list of mappings with ``source`` or in a mapping keyed by name."""
    if value is None:
        return ()
    found: list[Any] = list(value) if isinstance(value, (list, dict)) else [None]
    found = [item.get("source") if isinstance(item, dict) else item for item in found]
    if not all(isinstance(name, str) for name in found):
        at.refuse("must be a list of names, or a mapping keyed by them")
        return ()
    return tuple(dict.fromkeys(found))


def ports(value: object, at: Place) -> tuple[Port, ...]:
    """The published ports, in Compose's short form (``ip:host:container/protocol``) or long form."""
    read = (_port(item, place) for item, place in _items(value, at))
    return tuple(port for port in read if port is not None)


def _port(value: object, at: Place) -> Port | None:
    if isinstance(value, dict):
        parts = {
            "ip": value.get("host_ip"),
            "host": value.get("published"),
            "container": value.get("target"),
            "protocol": value.get("protocol"),
        }
    else:
        match = _SHORT_PORT.fullmatch(value) if isinstance(value, str) else None
        parts = match.groupdict() if match else {}
    address = str(parts.get("ip")).strip("[]")
    protocol = parts.get("protocol") or "tcp"
    try:
        ipaddress.ip_address(address)
        host, container = int(str(parts["host"])), int(str(parts["container"]))
    except (KeyError, ValueError):
        at.refuse(
            f"{shown(value)} must name the address it binds and one port on either side, in plain numbers: "
            '"192.0.2.1:8443:8443", or host_ip, published and target'
        )
        return None
    if protocol not in ("tcp", "udp") or not (0 < host <= _LAST_PORT and 0 < container <= _LAST_PORT):
        at.refuse(f"{shown(value)} must be ports from 1 to {_LAST_PORT} of protocol tcp or udp")
        return None
    return Port(address, host, container, protocol)


def volumes(value: object, at: Place) -> tuple[str, ...]:
    """The named volumes among the mounts; bind mounts are checked and left out, tmpfs mounts left out."""
    found = (_volume(item, place) for item, place in _items(value, at))
    return tuple(dict.fromkeys(name for name in found if name))


def _volume(value: object, at: Place) -> str:
    """The name of a mounted named volume, empty for every other mount."""
    if isinstance(value, dict):
        kind, source = value.get("type"), str(value.get("source") or "")
    else:
        source = value.partition(":")[0] if isinstance(value, str) and ":" in value else ""
        kind = "bind" if source.startswith(("/", ".", "~")) else "volume"
    if kind == "tmpfs":
        return ""
    if not source:
        at.refuse("names no source; an anonymous volume would be backed up by nobody: name it")
    elif kind == "bind":
        _check_bind(source, at)
    else:
        return source
    return ""


def _check_bind(source: str, at: Place) -> None:
    path = posixpath.normpath(source)
    if not path.startswith("/"):
        at.refuse(f"'{source}' must be an absolute path")
    elif path.endswith("/docker.sock") or any(socket.startswith(path.rstrip("/") + "/") for socket in _DOCKER_SOCKETS):
        at.refuse(f"'{source}' is forbidden: it hands the container the Docker socket, which is root on the host")


def _items(value: object, at: Place) -> Iterator[tuple[Any, Place]]:
    if value is not None and not isinstance(value, list):
        at.refuse(f"must be a list, not {shown(value)}")
        return
    for index, item in enumerate(value or ()):
        yield item, at[index]
