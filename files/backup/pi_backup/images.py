"""The images that everything runs on, in one bundle: for the day on which no registry answers."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Sequence
from pathlib import Path

from . import files
from .docker import inspected
from .engine import Repository, Snapshot
from .errors import BackupError
from .plan import Plan

KIND = "images"
BUNDLE = "images.tar"


def save(plan: Plan, repository: Repository) -> None:
    """Save the images where a repository does not have them as they are. Raises BackupError."""
    there = {name: inspected("image", name) for name in plan.images}
    missing = [name for name, found in there.items() if found is None]
    if missing:
        raise BackupError(f"image {', '.join(missing)} is not on this machine; run site.yml")
    found = {name: image for name, image in there.items() if image}
    digest = hashlib.sha256("".join(f"{name} {found[name]['Id']}\n" for name in sorted(found)).encode()).hexdigest()
    if repository.state.get(KIND) == digest:
        return
    if repository.target.url.startswith("/"):
        # It takes about a third of that: what is packed tightly already is counted as if it were not.
        needed = sum(image["Size"] for image in found.values()) // files.MIB
        files.require_room(Path(repository.target.url), needed, "the bundle of images")
    repository.backup_output(BUNDLE, ["docker", "save", *sorted(found)], [KIND, f"{KIND}={digest}"])
    repository.remember(**{KIND: digest})


def newest(snapshots: Sequence[Snapshot]) -> Snapshot | None:
    """The last bundle."""
    return next((snapshot for snapshot in reversed(snapshots) if snapshot.kind == KIND), None)


def load(repository: Repository, snapshot: Snapshot) -> str:
    """Give the bundle to Docker; what it said. Raises BackupError."""
    reader = subprocess.Popen(
        ["docker", "load"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    if reader.stdin is None:
        raise BackupError("no pipe to docker load")
    try:
        repository.write(snapshot, f"/{BUNDLE}", reader.stdin)
    finally:
        said = reader.communicate()[0].decode(errors="replace").strip()
    if reader.returncode:
        raise BackupError(f"docker load ended with {reader.returncode}: {said}")
    return said
