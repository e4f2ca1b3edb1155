"""Redis (Valkey): a dump by the server itself, and the way back that leaves its append-only log on."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

from .commands import run
from .docker import container_of, docker, inside, mount_of, scratch_container, volume_path, wait_until
from .errors import BackupError
from .plan import Plan, Service, Store

SAVE_SECONDS = 300
DUMP = "dump.rdb"


def _persistence(container: str, login: str = "", *options: str) -> dict[str, str]:
    """What the server says of its saving: {field: value}. The password goes through standard input."""
    said = inside(container, ["valkey-cli", *options], text=f"{login}INFO persistence\n", seconds=30)
    if "NOAUTH" in said or "WRONGPASS" in said or "NOPERM" in said:
        raise BackupError(f"{container}: refuses the user of the backup ({said.strip()}); run site.yml, which makes it")
    return dict(line.strip().split(":", 1) for line in said.splitlines() if ":" in line)


def dump(plan: Plan, store: Store, seconds: float = SAVE_SECONDS) -> None:
    """Have the server write its dump. Raises BackupError."""
    container = container_of(plan, store.service)
    login = f"AUTH {store.user} {plan.secret(store.password_secret)}\n"

    def idle(begun: int) -> bool:
        """Whether no save is under way, and more than that many were begun so far."""
        said = _persistence(container, login)
        return said["rdb_bgsave_in_progress"] == "0" and int(said["rdb_saves"]) > begun

    # One that is under way began before the moment that is wanted.
    begun = int(_persistence(container, login)["rdb_saves"])
    wait_until(lambda: idle(-1), seconds, f"{container} ends the save under way")
    # The server may be making its append-only log anew: it saves after that. One it has begun by itself does as well.
    said = inside(container, ["valkey-cli"], text=f"{login}BGSAVE SCHEDULE\n", seconds=30)
    if "Background sav" not in said:
        raise BackupError(f"{container}: does not save: {said.strip()}")
    wait_until(lambda: idle(begun), seconds, f"{container} has saved")
    status = _persistence(container, login)["rdb_last_bgsave_status"]
    if status != "ok":
        raise BackupError(
            f"{container}: its save failed ({status}); docker logs {container} says why. Is the disk full?"
        )


def save(plan: Plan, store: Store, folder: Path) -> tuple[int, int]:
    """Have the server write its dump, copy it into `folder` and check it; its `keys`. Raises BackupError."""
    dump(plan, store)
    container = container_of(plan, store.service)
    # By a name of its own: the server may put another dump in place at any time.
    volume = volume_path(plan, store.volume)
    held = volume / ".backup.rdb"
    held.unlink(missing_ok=True)
    os.link(volume / DUMP, held)
    try:
        shutil.copyfile(held, folder / DUMP)
        return keys(inside(container, ["valkey-check-rdb", f"{mount_of(plan, container, store.volume)}/{held.name}"]))
    finally:
        held.unlink()


def keys(said: str) -> tuple[int, int]:
    """How many keys valkey-check-rdb has read, and how many of them end by themselves. Raises BackupError."""
    found = re.search(r"^\[info\] (\d+) keys read\n\[info\] (\d+) expires$", said, re.MULTILINE)
    if found is None:
        raise BackupError(f"valkey-check-rdb names no number of keys: {said.strip()[-300:]}")
    return int(found[1]), int(found[2])


def prepare(plan: Plan, service: Service, dump: Path, data: Path) -> None:
    """Turn a dump into a data folder a server with an append-only log starts from. Raises BackupError.

    Such a server passes over a bare dump and starts empty: the log has to be made from the dump first.
    """
    shutil.copyfile(dump, data / DUMP)
    run(["chown", "-R", f"{service.uid}:{service.gid}", str(data)])
    socket = "/data/.restore.sock"
    server = [
        "valkey-server",
        "--dir",
        "/data",
        "--port",
        "0",
        "--unixsocket",
        socket,
        "--save",
        "",
        "--appendonly",
        "no",
    ]
    with scratch_container(plan, "redis", service, server, f"{data}:/data") as container:

        def state() -> dict[str, str]:
            return _persistence(container, "", "-s", socket)

        def loaded() -> bool:
            return (data / ".restore.sock").exists() and state().get("loading") == "0"

        wait_until(loaded, 600, f"{container} has read the dump")
        inside(container, ["valkey-check-rdb", f"/data/{DUMP}"])
        inside(container, ["valkey-cli", "-e", "-s", socket], text="CONFIG SET appendonly yes\n")

        def rewritten() -> bool:
            now = state()
            if now["aof_last_bgrewrite_status"] != "ok":
                raise BackupError(f"the append-only log cannot be made from {dump}: {now}")
            return now["aof_enabled"] == "1" and now["aof_rewrite_in_progress"] == now["aof_rewrite_scheduled"] == "0"

        wait_until(rewritten, 600, f"{container} has made its append-only log")
        docker("stop", "--time", "60", container, seconds=120)
    (data / ".restore.sock").unlink(missing_ok=True)
