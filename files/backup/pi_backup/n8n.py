"""n8n: workflows and credentials as its own command line exports them; credentials stay encrypted."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

from .commands import CommandFailed
from .docker import container_of, inside
from .errors import BackupError
from .plan import Plan, Store

# What it says, with exit code 1, where there is nothing to export.
NOTHING = ("No workflows found", "No credentials found")
EXPORT = """
rm -rf /tmp/export && mkdir -p /tmp/export && n8n "export:$1" --backup --output=/tmp/export/ >&2
tar -C /tmp/export -cf - . && rm -rf /tmp/export
"""


def export(plan: Plan, store: Store, folder: Path) -> dict[str, int]:
    """Export both kinds into `folder`/<kind>s; how many there are of each. Raises BackupError."""
    return {kind: _export(container_of(plan, store.service), kind, folder) for kind in ("workflow", "credentials")}


def _export(container: str, kind: str, folder: Path) -> int:
    archive, target = folder / f"{kind}.tar", folder / kind
    target.mkdir(mode=0o700)
    try:
        with archive.open("wb") as packed:
            inside(container, ["sh", "-euc", EXPORT, "export", kind], target=packed, seconds=600)
    except CommandFailed as error:
        archive.unlink()
        if any(text in error.words for text in NOTHING):
            return 0
        raise
    with tarfile.open(archive) as packed_files:
        for member in packed_files:
            content = packed_files.extractfile(member)
            if content is not None:
                (target / Path(member.name).name).write_bytes(content.read())
    archive.unlink()
    exported = sorted(target.glob("*.json"))
    for path in exported if kind == "credentials" else []:
        if not isinstance(json.loads(path.read_text(encoding="utf-8"))["data"], str):
            raise BackupError(f"{container}: exported the credential {path.stem} in plain text; it is not kept")
    return len(exported)
