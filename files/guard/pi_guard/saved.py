"""Copies of files and folders, as they were when the guard was armed."""

from __future__ import annotations

import io
import os
import shutil
import tarfile
from pathlib import Path


def pack(path: Path) -> bytes:
    """Everything at `path` with owners and modes; an archive with nothing in it where there is nothing.

    No times: the same content has to give the same bytes.
    """
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        if os.path.lexists(path):
            archive.add(str(path), arcname="it", filter=_without_time)
    return buffer.getvalue()


def _without_time(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.mtime = 0
    return member


def file_name(path: str) -> str:
    """Under which name the copy of a path is kept."""
    return path.strip("/").replace("/", "-") + ".tar"


def put_back(path: Path, packed: bytes) -> None:
    """Make `path` what it was. May be begun anew after a power cut."""
    beside = path.parent / f".{path.name}.guard"
    _remove(beside)
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        members = archive.getmembers()
        for member in members:
            member.name = member.name.replace("it", beside.name, 1)
            if member.islnk():
                member.linkname = member.linkname.replace("it", beside.name, 1)
        if members:
            path.parent.mkdir(parents=True, exist_ok=True)
            # Newer Pythons would leave owners out.
            archive.extraction_filter = lambda member, _: member
            archive.extractall(path.parent, members, numeric_owner=True)  # noqa: S202 - our own, for root alone
    _remove(path)
    if members:
        os.rename(beside, path)
    os.sync()


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    elif os.path.lexists(path):
        path.unlink()
