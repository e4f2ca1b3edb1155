"""Losing a machine, its controller, and what stands beside it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import docker
import machine

# In a safe, or in the owner's head.
OWNERS = ("vault-password", "far-access", "id_ed25519", "id_ed25519.pub")
NEAR = "/var/backups/pi-commerce"
SCRIPT = f"molecule/shared/{'vm' if machine.KIND == 'vm' else 'virtual_pi'}.py"


def pi_script(verb: str) -> None:
    """One of the verbs of the machine itself; no image is looked at."""
    done = machine.run("python", SCRIPT, verb, environment={"PI_CACHE": str(cache())})
    assert done.status == 0, done.output


def cache() -> Path:
    """Where make keeps what outlives a machine."""
    printed = machine.run("make", "--no-print-directory", "--eval", "cache: ; @echo $(PI_CACHE)", "cache")
    return Path(printed.output.strip().splitlines()[-1])


def save(job: str) -> None:
    """Run a job of the backup, as soon as cron's own has ended; it has to succeed."""
    machine.pi(f"pi-commerce-backup {job} --wait 900")


def lose_everything(held: Sequence[str]) -> None:
    """The machine with its disks, and the controller; of the vault file the owner holds the secrets `held`."""
    known = machine.secrets()
    pi_script("lose")
    for path in machine.STATE.iterdir():
        if path.name not in OWNERS:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    if held:
        machine.seal("".join(f"{name}: {known[name]}\n" for name in held))


def new_machine() -> None:
    """A machine as it boots for the first time, at the same address."""
    pi_script("up")


def take_disk(path: Path) -> None:
    """Take the disk with the near repository out of the machine."""
    with path.open("wb") as target:
        subprocess.run(machine.ssh(f"sudo tar -C {NEAR} -c near"), stdout=target, check=True, timeout=900)


def put_disk(path: Path) -> None:
    """Put it into another machine."""
    command = f"sudo mkdir -p -m 0700 {NEAR} && sudo tar -C {NEAR} -x"
    with path.open("rb") as source:
        subprocess.run(machine.ssh(command), stdin=source, check=True, timeout=900)


def beside(name: str, running: bool) -> None:
    """Start or stop what stands beside the machine: registry or far."""
    container = docker.from_env().containers.get(f"{machine.ENVIRONMENT['PI_NAME']}-{name}")
    container.start() if running else container.stop(timeout=10)


def report() -> dict[str, Any]:
    """The newest report on the controller."""
    newest = max((machine.STATE / "reports").glob("*.json"), key=lambda path: path.stat().st_mtime)
    found: dict[str, Any] = json.loads(newest.read_text())
    return found


def shown(output: str) -> str:
    """What a run says at its end."""
    return output[max(0, [found.start() for found in re.finditer(r"TASK \[Show the report\]", output)][-1]) :]
