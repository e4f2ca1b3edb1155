"""Docker's client: containers of the shop, volumes, and containers that live for one step only."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from .commands import CommandFailed, run
from .errors import BackupError
from .plan import Plan, Service

SCRATCH = "pi-commerce.scratch"
_AWAY = ("no such container", "no such object", "no such volume")


def docker(*words: str, **options: Any) -> str:
    """Output of a docker command. Raises CommandFailed."""
    return run(["docker", *words], name=f"docker {words[0]}", **options)


def container_of(plan: Plan, service: str) -> str:
    """Name of a service's container."""
    return f"{plan.project}-{service}-1"


def inside(
    container: str,
    command: Sequence[str],
    *,
    text: str | None = None,
    target: IO[bytes] | None = None,
    source: IO[bytes] | None = None,
    seconds: float = 3600,
) -> str:
    """Run a command in a running container; its output."""
    return run(
        ["docker", "exec", "--interactive", container, *command],
        name=f"{container}: {command[0]}",
        text=text,
        target=target,
        source=source,
        seconds=seconds,
    )


def inspected(kind: str, name: str) -> dict[str, Any] | None:
    """What Docker knows of a container, volume or image; None where there is none. Raises CommandFailed otherwise."""
    try:
        found: list[dict[str, Any]] = json.loads(docker(kind, "inspect", name, seconds=60))
    except CommandFailed as error:
        if any(text in error.words.lower() for text in (*_AWAY, "no such image")):
            return None
        raise
    return found[0]


def volume_path(plan: Plan, volume: str) -> Path:
    """Where a volume of the shop lies on this machine. Raises BackupError where there is none."""
    found = inspected("volume", f"{plan.project}_{volume}")
    if found is None:
        raise BackupError(f"there is no volume {plan.project}_{volume}; has the service ever run? Run site.yml")
    return Path(found["Mountpoint"])


def mount_of(plan: Plan, container: str, volume: str) -> str:
    """Where a volume of the shop is mounted in a container. Raises BackupError."""
    found = inspected("container", container) or {"Mounts": []}
    for mount in found["Mounts"]:
        if mount.get("Name") == f"{plan.project}_{volume}":
            return str(mount["Destination"])
    raise BackupError(f"{container} is not there, or does not mount {plan.project}_{volume}; run site.yml")


def running(container: str) -> bool:
    """Whether a container runs."""
    found = inspected("container", container)
    return found is not None and bool(found["State"]["Running"])


def wait_until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    """Return once the condition holds. Raises BackupError after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise BackupError(f"waited {seconds:.0f} s in vain: {what}")
        time.sleep(0.2)


def stop(container: str) -> None:
    """Stop a container, if there is one and it runs."""
    if running(container):
        docker("stop", "--time", "120", container, seconds=180)


def start(container: str, seconds: float = 600) -> None:
    """Start a container and wait until it is healthy; nothing happens where there is none."""
    if inspected("container", container) is None:
        return
    docker("start", container, seconds=120)

    def healthy() -> bool:
        state = (inspected("container", container) or {"State": {"Status": "gone"}})["State"]
        if state["Status"] not in ("running", "restarting", "created"):
            raise BackupError(f"{container} is {state['Status']} after its start: docker logs {container} says why")
        return bool(state.get("Health", {"Status": "healthy"})["Status"] == "healthy")

    wait_until(healthy, seconds, f"{container} is healthy")


def make_volume(plan: Plan, volume: str) -> Path:
    """A volume of the shop, made as Compose would make it where it is missing."""
    name = f"{plan.project}_{volume}"
    if inspected("volume", name) is None:
        labels = {"com.docker.compose.project": plan.project, "com.docker.compose.volume": volume}
        docker("volume", "create", *(f"--label={key}={value}" for key, value in labels.items()), name)
    return volume_path(plan, volume)


def scratch_volume(plan: Plan, name: str, service: Service) -> Path:
    """An empty volume that belongs to the user of `service`; what an earlier, killed run has left there is gone."""
    full = f"{plan.project}_scratch_{name}"
    if inspected("volume", full) is not None:
        docker("volume", "rm", full)
    docker("volume", "create", f"--label={SCRATCH}={plan.project}", full)
    found = inspected("volume", full)
    if found is None:
        raise BackupError(f"volume {full} is gone again; is another restore running?")
    path = Path(found["Mountpoint"])
    run(["chown", f"{service.uid}:{service.gid}", str(path)])
    path.chmod(0o700)
    return path


@contextmanager
def scratch_container(
    plan: Plan, name: str, service: Service, command: Sequence[str], *mounts: str, beside: str = ""
) -> Iterator[str]:
    """A container of the service's image without any network, for as long as the block takes.

    Where it runs `beside` another one of these, the two reach each other, as one machine.
    """
    full = f"{plan.project}-scratch-{name}"
    words = ["timeout", "--kill-after=30", str(service.lifetime), *command] if service.lifetime else command
    remove(full)
    docker(
        "run",
        "--detach",
        f"--name={full}",
        f"--label={SCRATCH}={plan.project}",
        f"--network={f'container:{beside}' if beside else 'none'}",
        f"--user={service.uid}:{service.gid}",
        "--cap-drop=ALL",
        "--security-opt=no-new-privileges:true",
        "--shm-size=128m",
        *service.options,
        *(f"--volume={mount}" for mount in mounts),
        f"--entrypoint={words[0]}",
        service.image,
        *words[1:],
        seconds=300,
    )
    try:
        yield full
    finally:
        remove(full)


def remove(container: str) -> None:
    """Remove a container at once, if it is there."""
    if inspected("container", container) is not None:
        docker("rm", "--force", "--volumes", container)


def sweep(plan: Plan) -> None:
    """Remove the scratch containers and volumes that a killed run has left."""
    label = f"label={SCRATCH}={plan.project}"
    for container in docker("ps", "--all", "--quiet", "--filter", label).split():
        docker("rm", "--force", "--volumes", container)
    for volume in docker("volume", "ls", "--quiet", "--filter", label).split():
        docker("volume", "rm", volume)
