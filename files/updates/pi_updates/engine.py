"""The container engine: what runs, what a registry has, and how a service gets another image."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from pi_common.commands import CommandFailed, run
from pi_common.errors import PiError

SOCKET = "/var/run/docker.sock"
PROJECT, SERVICE = "com.docker.compose.project", "com.docker.compose.service"
REGISTRY_SECONDS = 60
PULL_SECONDS = 3600


@dataclass(frozen=True)
class Running:
    """The container of a service, and what it is made from."""

    service: str
    container: str
    reference: str
    image: str
    restarts: int
    state: str

    @property
    def well(self) -> bool:
        """Whether it runs, and answers where it can be asked."""
        return self.state == "running"


class _Socket(http.client.HTTPConnection):
    """HTTP by way of a socket in the file system."""

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(SOCKET)


def running(project: str) -> dict[str, Running]:
    """The project's containers by service, also those that stand still. Raises PiError."""
    ids = run("docker", "ps", "--all", "--quiet", "--filter", f"label={PROJECT}={project}", seconds=60).split()
    documents = json.loads(run("docker", "inspect", *ids, seconds=60)) if ids else []
    return {entry.service: entry for entry in map(_described, documents)}


def _described(document: Mapping[str, Any]) -> Running:
    state, config = document["State"], document["Config"]
    health = state.get("Health", {}).get("Status", "healthy")
    return Running(
        service=config["Labels"][SERVICE],
        container=document["Name"].lstrip("/"),
        reference=config["Image"],
        image=document["Image"],
        restarts=document["RestartCount"],
        state=state["Status"] if state["Status"] != "running" or health == "healthy" else health,
    )


def unwell(project: str) -> list[str]:
    """What does not run as it should, a text each. Raises PiError."""
    return [f"{one.service} is {one.state}" for one in running(project).values() if not one.well]


def digests(image: str) -> set[str]:
    """Under which digests registries know an image that is here; of one that was built here there are none."""
    [document] = json.loads(run("docker", "image", "inspect", image, seconds=60))
    return {name.partition("@")[2] for name in document["RepoDigests"] or []}


def offered(reference: str) -> str:
    """The digest under which its registry has the image now; nothing is fetched. Raises PiError."""
    connection = _Socket("engine", timeout=REGISTRY_SECONDS)
    try:
        connection.request("GET", f"/distribution/{quote(reference, safe='/:@')}/json")
        answer = connection.getresponse()
        found = json.loads(answer.read())
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise PiError(f"{reference}: the engine cannot ask for it ({error})") from error
    finally:
        connection.close()
    if answer.status != 200:
        raise PiError(f"{reference}: {found.get('message', answer.status)}")
    return str(found["Descriptor"]["digest"])


def repository(reference: str) -> str:
    """A reference without its tag."""
    head, slash, name = reference.partition("@")[0].rpartition("/")
    return f"{head}{slash}{name.partition(':')[0]}"


def pull(reference: str, digest: str) -> str:
    """Fetch an image by its digest, which no name here follows yet; how it is called. Raises CommandFailed."""
    name = f"{repository(reference)}@{digest}"
    run("docker", "pull", "--quiet", name, seconds=PULL_SECONDS)
    return name


def call(image: str, reference: str) -> None:
    """Let a name mean this image."""
    run("docker", "tag", image, reference, seconds=60)


def wanted(project: str, files: Sequence[Path]) -> dict[str, str]:
    """The image of each service in these Compose files."""
    told = json.loads(_compose(project, files, "config", "--format", "json", seconds=120))
    return {name: entry["image"] for name, entry in told["services"].items()}


def up(project: str, files: Sequence[Path], services: Sequence[str], seconds: int) -> None:
    """Make the services' containers from these files and wait until they are healthy. Raises CommandFailed."""
    words = ("--detach", "--no-deps", "--pull", "never", "--wait", "--wait-timeout", str(seconds))
    _compose(project, files, "up", *words, *services, seconds=seconds + 600)


def last_words(container: str) -> str:
    """The end of a container's log, for the report."""
    try:
        return run("docker", "logs", "--tail", "15", container, seconds=60, both=True).strip()
    except CommandFailed as error:
        return str(error)


def _compose(project: str, files: Sequence[Path], *words: str, seconds: float) -> str:
    chosen = [part for path in files for part in ("--file", str(path))]
    return run("docker", "compose", "--project-name", project, *chosen, *words, seconds=seconds)
