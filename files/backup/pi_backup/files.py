"""Files: written whole or not at all, hashed, and measured."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from .errors import BackupError

MIB = 1024 * 1024


def write(path: Path, content: str) -> None:
    """Replace a file in one step, for root only."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    place(path, content.encode(), 0o600, os.geteuid(), os.getegid())


def place(path: Path, content: bytes, mode: int, uid: int, gid: int) -> None:
    """Replace a file in one step; it belongs to its owner from the beginning."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".new-")
    try:
        with os.fdopen(handle, "wb") as target:
            os.fchown(handle, uid, gid)
            os.fchmod(handle, mode)
            target.write(content)
            target.flush()
            os.fsync(target.fileno())
        os.rename(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def link(path: Path, to: str) -> None:
    """Replace a link in one step."""
    temporary = path.with_name(f".new-{path.name}")
    temporary.unlink(missing_ok=True)
    os.symlink(to, temporary)
    os.rename(temporary, path)


def in_memory(content: bytes = b"") -> IO[bytes]:
    """An open file that is on no disk, and gone when it is closed; it stands at its beginning."""
    made = os.fdopen(os.memfd_create("pi-backup"), "w+b")
    made.write(content)
    made.seek(0)
    return made


def write_json(path: Path, content: Any) -> None:
    """Replace a JSON file in one step."""
    write(path, json.dumps(content, indent=1, sort_keys=True) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file's object; empty where there is none. Raises BackupError for a damaged one."""
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise BackupError(f"{path}: is damaged ({error}); remove it, the next run makes it anew") from error
    return found


def fresh(folder: Path) -> Path:
    """An empty folder for root only, whatever was there before."""
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(mode=0o700, parents=True)
    return folder


def regular(folder: Path) -> Iterator[Path]:
    """Every regular file below a folder, links left out."""
    for base, _, names in os.walk(folder):
        for name in sorted(names):
            path = Path(base, name)
            if path.is_file() and not path.is_symlink():
                yield path


def sha256(path: Path) -> str:
    """Digest of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as source:
        for block in iter(lambda: source.read(MIB), b""):
            digest.update(block)
    return digest.hexdigest()


def digests(folder: Path) -> dict[str, str]:
    """Digest of every file below a folder, by relative path."""
    return {str(path.relative_to(folder)): sha256(path) for path in regular(folder)}


def measure(folder: Path) -> dict[str, int]:
    """How many files are below a folder, and their bytes; files that vanish meanwhile do not count."""
    count = size = 0
    for path in regular(folder):
        try:
            size += path.lstat().st_size
        except FileNotFoundError:
            continue
        count += 1
    return {"files": count, "bytes": size}


def free_mib(folder: Path) -> int:
    """MiB that may still be written below a folder."""
    return shutil.disk_usage(folder).free // MIB


def require_room(folder: Path, needed_mib: int, what: str) -> None:
    """Refuse what would leave less than 512 MiB. Raises BackupError."""
    free = free_mib(folder)
    if free < needed_mib + 512:
        raise BackupError(
            f"{what} needs {needed_mib} MiB at {folder}, where {free} MiB are free and 512 have to stay: make room"
        )
