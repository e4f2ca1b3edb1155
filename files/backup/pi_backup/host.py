"""The machine itself: what it is made of, and its secrets in a bundle of their own."""

from __future__ import annotations

import io
import json
import os
import shutil
import tarfile
from pathlib import Path

from . import files
from .commands import run
from .docker import inspected
from .plan import DEFAULT, Plan

# As the controller has it, sealed with the vault password. It goes into every snapshot: with it begins a rebuild.
VAULT = DEFAULT.with_name("vault.yml")


def describe(plan: Plan, folder: Path) -> None:
    """Write down images with their digests, and packages."""
    images = {}
    for service in plan.services:
        found = inspected("image", service.image) or {}
        images[service.name] = {
            "image": service.image,
            "id": found.get("Id"),
            "digests": found.get("RepoDigests", []),
            "architecture": found.get("Architecture"),
        }
    files.write_json(folder / "images.json", images)
    files.write(folder / "packages.txt", run(["dpkg-query", "--show"]))


def vault(folder: Path) -> None:
    """Copy the sealed vault file, where there is one."""
    if VAULT.exists():
        shutil.copyfile(VAULT, folder / VAULT.name)


def seal(plan: Plan, path: Path) -> None:
    """Pack the secrets and encrypt them to every recipient; plain text stays in memory. Raises BackupError."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as bundle:
        for name in plan.sealed:
            if os.path.lexists(name):
                bundle.add(name)
    to = [word for recipient in plan.recipients for word in ("--recipient", recipient)]
    with path.open("wb") as target, files.in_memory(packed.getvalue()) as source:
        run(["age", *to], source=source, target=target)


def excluded(plan: Plan) -> list[str]:
    """What of the host's paths is in the bundle, and therefore nowhere else."""
    return list(plan.sealed)


def paths(plan: Plan) -> list[Path]:
    """Those of the host's paths that are there."""
    return [Path(name) for name in plan.host_paths if os.path.exists(name)]


def read_images(text: str) -> dict[str, dict[str, object]]:
    """What `describe` wrote about images."""
    found: dict[str, dict[str, object]] = json.loads(text)
    return found
