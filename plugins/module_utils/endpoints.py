"""Which servers this machine can reach and which of its ports are free. Standard library alone, Python 3.9."""

from __future__ import annotations

import errno
import http.client
import os
import re
import socket
import threading
import time
import urllib.parse
from collections.abc import Iterable
from typing import Any

DOCKER_SOCKET = "/run/docker.sock"
# Whoever publishes ports for containers: ports they hold are ours already.
ENGINE = ("dockerd", "docker-proxy")


def reach(endpoints: Iterable[tuple[str, int]], seconds: float) -> dict[tuple[str, int], str]:
    """Why each (host, port) cannot be reached by TCP, or an empty text; all are asked at once.

    Nothing takes longer than `seconds`, not even a name server that never answers.
    """
    # The resolver's own patience (5 s, twice, for each server) would be longer than ours.
    os.environ["RES_OPTIONS"] = "timeout:1 attempts:2"
    found = dict.fromkeys(endpoints, f"does not answer within {seconds:.0f} s")
    started = time.monotonic()
    threads = [threading.Thread(target=_reach, args=(endpoint, seconds, found), daemon=True) for endpoint in found]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, seconds - (time.monotonic() - started)))
    return dict(found)


def _reach(endpoint: tuple[str, int], seconds: float, found: dict[tuple[str, int], str]) -> None:
    try:
        socket.create_connection(endpoint, timeout=seconds).close()
    except socket.gaierror:
        found[endpoint] = "the name cannot be resolved"
    except OSError as error:
        if error.strerror:
            found[endpoint] = f"does not answer: {error.strerror}"
    else:
        found[endpoint] = ""


def registry_endpoint(image: str, insecure: Iterable[str]) -> tuple[str, int] | None:
    """Host and port of the registry an image reference names, or None where it names none."""
    registry = image.partition("/")[0] if "/" in image else ""
    if not re.search(r"[.:]|^localhost$", registry):
        return None
    host, _, port = registry.partition(":")
    return host, int(port) if port else 80 if registry in insecure else 443


def url_endpoint(url: str) -> tuple[str, int]:
    """Host and port behind an http(s) URL."""
    parts = urllib.parse.urlsplit(url)
    return parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)


class _EngineConnection(http.client.HTTPConnection):
    """HTTP over the engine's socket."""

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(DOCKER_SOCKET)


def engine_is_there() -> bool:
    """Whether an engine has been installed and listens."""
    return os.path.exists(DOCKER_SOCKET)


def missing_images(images: Iterable[str], seconds: float) -> list[str]:
    """Those of the images that the engine on this machine does not have: all of them where none answers."""
    wanted = sorted(set(images))
    engine = _EngineConnection("localhost", timeout=seconds)
    try:
        return [image for image in wanted if not _has_image(engine, image)]
    except (OSError, http.client.HTTPException):
        return wanted
    finally:
        engine.close()


def _has_image(engine: http.client.HTTPConnection, image: str) -> bool:
    engine.request("GET", f"/images/{urllib.parse.quote(image)}/json")
    answer = engine.getresponse()
    answer.read()
    return answer.status == 200


def bind_problem(address: str, port: int, protocol: str) -> str:
    """Why nothing of ours could listen there, or an empty text. Binds for a moment, never listens."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM) as probe:
        # As every server does: connections that are being closed do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                return f"cannot be bound: {error.strerror}"
            holders = port_holders(port, protocol)
            return "" if holders and holders <= set(ENGINE) else f"is taken by {', '.join(sorted(holders)) or 'others'}"
    return ""


def port_holders(port: int, protocol: str, proc: str = "/proc") -> set[str]:
    """Names of the programs that listen on a port, as root sees them."""
    sockets: set[str] = set()
    for table in (protocol, f"{protocol}6"):
        try:
            with open(f"{proc}/net/{table}", encoding="ascii") as lines:
                rows = [line.split() for line in lines][1:]
        except OSError:
            continue
        # 0A is LISTEN; a UDP socket has no such state.
        held = [row for row in rows if int(row[1].rpartition(":")[2], 16) == port]
        sockets.update(f"socket:[{row[9]}]" for row in held if protocol == "udp" or row[3] == "0A")
    return {name for name, links in _programs(proc) if sockets.intersection(links)}


def _programs(proc: str) -> Iterable[tuple[str, list[str]]]:
    """Every process' name with what its file descriptors point to."""
    for process in os.listdir(proc):
        if not process.isdigit():
            continue
        links = []
        try:
            with open(f"{proc}/{process}/comm", encoding="utf-8", errors="replace") as comm:
                name = comm.read().strip()
            for descriptor in os.listdir(f"{proc}/{process}/fd"):
                links.append(os.readlink(f"{proc}/{process}/fd/{descriptor}"))
        except OSError:
            # It ended, or closed a file, while we looked.
            pass
        if links:
            yield name, links


def asked(kind: str, endpoints: Iterable[tuple[str, int]], answers: dict[tuple[str, int], str]) -> list[dict[str, Any]]:
    """The answers of some endpoints as rows `{kind, address, problem}`."""
    return [
        {"kind": kind, "address": f"{host}:{port}", "problem": answers[host, port]}
        for host, port in sorted(set(endpoints))
    ]
