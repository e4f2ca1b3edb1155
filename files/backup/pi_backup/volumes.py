"""Volumes: their files as they are, and SQLite databases in them through SQLite."""

from __future__ import annotations

import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

from . import files
from .engine import escaped
from .errors import BackupError

MAGIC = b"SQLite format 3\0"
# What belongs to a database and must never lie beside a copy of another moment.
COMPANIONS = ("-wal", "-shm", "-journal")


def databases(volume: Path) -> list[Path]:
    """The SQLite databases in a volume."""
    return [path for path in files.regular(volume) if is_database(path)]


def is_database(path: Path) -> bool:
    """Whether a file is a SQLite database; one that is gone meanwhile is none."""
    try:
        with path.open("rb") as source:
            return source.read(len(MAGIC)) == MAGIC
    except FileNotFoundError:
        return False


def stage(volume: Path, folder: Path) -> list[str]:
    """Copy every SQLite database of a volume, whole, into `folder`; patterns of what the engine has to leave out."""
    excluded = []
    for path in databases(volume):
        target = folder / path.relative_to(volume)
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        copy_database(path, target)
        excluded += [escaped(str(path) + end) for end in ("", *COMPANIONS)]
    return excluded


def copy_database(path: Path, target: Path) -> None:
    """A copy of one moment, with owner and mode, that has passed SQLite's own check. Raises BackupError."""
    try:
        live = sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, timeout=60)
        with closing(live), closing(sqlite3.connect(target)) as copy:
            live.backup(copy)
            verdict = copy.execute("PRAGMA integrity_check").fetchone()[0]
            copy.execute("PRAGMA journal_mode=DELETE")
    except sqlite3.Error as error:
        raise BackupError(f"{path}: cannot be copied: {error}") from error
    if verdict != "ok":
        raise BackupError(f"{path}: is damaged: {verdict}")
    found = path.stat()
    os.chown(target, found.st_uid, found.st_gid)
    shutil.copymode(path, target)


def lay_out(folder: Path, volume: Path) -> None:
    """Put staged databases where they belong in a volume that is being restored."""
    for path in files.regular(folder):
        target = volume / path.relative_to(folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        for end in COMPANIONS:
            target.with_name(target.name + end).unlink(missing_ok=True)
        shutil.copy2(path, target)
        found = path.stat()
        os.chown(target, found.st_uid, found.st_gid)


def move(source: Path, target: Path) -> None:
    """Move the content of one volume into another on the same file system. Cut off, it goes on when called again."""
    found = source.stat()
    os.chown(target, found.st_uid, found.st_gid)
    os.chmod(target, found.st_mode & 0o7777)
    for name in sorted(os.listdir(source)):
        os.rename(source / name, target / name)
