"""Tokens that a job leaves in every store before it saves it, so that a drill can tell that exactly this came back."""

from __future__ import annotations

import json
import os
import random
import secrets
import time
from pathlib import Path
from typing import Any

from .. import files, volumes
from ..docker import container_of, inside, volume_path
from ..errors import BackupError
from ..plan import Plan, Store
from ..postgres import Server

KEY = "pi-commerce:canary"
# Each run has a file of its own in a volume: while one is read for hours, later runs come and go.
FILE = ".pi-commerce-canary-"
LEFT_SECONDS = 2 * 86400
TABLE = "pi_commerce.canary"
# One row for every run: a drill recovers to a moment between two of them. Older ones go.
ROW = """
\\connect "{database}"
SET client_min_messages = warning;
CREATE SCHEMA IF NOT EXISTS pi_commerce;
CREATE TABLE IF NOT EXISTS pi_commerce.canary
  (token text PRIMARY KEY, database text NOT NULL, written timestamptz NOT NULL DEFAULT clock_timestamp());
INSERT INTO pi_commerce.canary (token, database) VALUES ('{token}', current_database());
DELETE FROM pi_commerce.canary WHERE written < now() - interval '2 days';
"""
CLOCK = "SELECT extract(epoch FROM clock_timestamp());\n"
CREDENTIAL, WORKFLOW = "piDrillCanaryC01", "piDrillCanaryW01"
IMPORT = """
cat > /tmp/canaries.json
for kind in credentials workflow; do
  node -p "JSON.stringify(require('/tmp/canaries.json').$kind)" > /tmp/canary.json
  n8n "import:$kind" --input=/tmp/canary.json >&2
done
rm /tmp/canaries.json /tmp/canary.json
"""
# A file that was not touched for so long is not being written while it is saved.
SETTLED_SECONDS = 600
SAMPLED, SAMPLED_BYTES = 20, files.MIB


def state_file(plan: Plan) -> Path:
    """Where the tokens are noted that n8n may have: its own is written by night alone."""
    return plan.folder / "state/canary.json"


def begin(plan: Plan) -> dict[str, Any]:
    """What a manifest says of a run's canaries: its token, those that n8n may have, and (later) the stores."""
    known = files.read_json(state_file(plan))
    return {"token": secrets.token_hex(16), "n8n": known.get("n8n", []), "stores": {}}


def forget(plan: Plan) -> None:
    """A restore has put other data in place: nobody knows what n8n has until it is given a new token."""
    state_file(plan).unlink(missing_ok=True)


def plant(plan: Plan, store: Store, canary: dict[str, Any]) -> None:
    """Leave the token in a store, and note when. Raises BackupError."""
    token = canary["token"]
    noted: dict[str, Any] = {}
    if store.kind == "postgres":
        server = Server(plan, store)
        rows = "".join(ROW.format(database=name, token=token) for name in server.databases())
        before, after = server.sql(CLOCK + rows + CLOCK, seconds=300)
        noted = {"before": float(before), "after": float(after)}
    elif store.kind == "redis":
        login = f"AUTH {store.user} {plan.secret(store.password_secret)}\n"
        container = container_of(plan, store.service)
        said = inside(container, ["valkey-cli"], text=f"{login}SET {KEY} {token}\n", seconds=30)
        if said.split() != ["OK", "OK"]:
            raise BackupError(f"{container}: does not take the canary ({said.strip()}); run site.yml, which allows it")
    else:
        folder = volume_path(plan, store.volume)
        for left in folder.glob(f"{FILE}*"):
            found = _stat(left)
            if found and found.st_mtime < time.time() - LEFT_SECONDS:
                left.unlink(missing_ok=True)
        path = file_of(folder, token)
        files.write(path, token + "\n")
        path.chmod(0o644)
    canary["stores"][store.name] = noted


def file_of(folder: Path, token: str) -> Path:
    """Where in a volume a run leaves its token."""
    return folder / f"{FILE}{token}"


def remove(plan: Plan, store: Store, token: str) -> None:
    """Take a run's file out of a volume once it was saved. Of rows the old ones go, and there is one key only."""
    if store.kind not in ("postgres", "redis"):
        file_of(volume_path(plan, store.volume), token).unlink(missing_ok=True)


def plant_n8n(plan: Plan, store: Store, canary: dict[str, Any]) -> None:
    """Leave the token in a credential, which n8n encrypts, and in a workflow that nobody calls. Raises BackupError."""
    token = canary["token"]
    # Until it is done n8n has the one or the other.
    canary["n8n"] = [*canary["n8n"][-1:], token]
    files.write_json(state_file(plan), {"n8n": canary["n8n"]})
    document = {"credentials": [_credential(token)], "workflow": [_workflow(token)]}
    command = ["sh", "-euc", IMPORT]
    inside(container_of(plan, store.service), command, text=json.dumps(document), seconds=600)
    canary["n8n"] = [token]
    files.write_json(state_file(plan), {"n8n": canary["n8n"]})


def _credential(token: str) -> dict[str, Any]:
    data = {"name": "X-Canary", "value": token}
    return {"id": CREDENTIAL, "name": "Restore drill: canary", "type": "httpHeaderAuth", "data": data}


def _workflow(token: str) -> dict[str, Any]:
    """Run by hand it says its token."""
    begin = {"name": "Begin", "type": "n8n-nodes-base.manualTrigger", "typeVersion": 1, "parameters": {}}
    assignment = {"id": "5ea17000-0000-4000-8000-0000000000c3", "name": "token", "value": token, "type": "string"}
    parameters = {"assignments": {"assignments": [assignment]}, "options": {}}
    say = {"name": "Say", "type": "n8n-nodes-base.set", "typeVersion": 3.4, "parameters": parameters}
    nodes = [
        {"id": f"5ea17000-0000-4000-8000-0000000000c{number}", "position": [number * 240, 0], **node}
        for number, node in enumerate((begin, say), start=1)
    ]
    return {
        "id": WORKFLOW,
        "name": "Restore drill: canary",
        "active": False,
        "nodes": nodes,
        "connections": {"Begin": {"main": [[{"node": "Say", "type": "main", "index": 0}]]}},
        "settings": {"executionOrder": "v1"},
    }


def same(store: Store, found: str, token: str) -> None:
    """Raises BackupError where a store holds something else than the token that was left in it."""
    if found != token:
        raise BackupError(f"{store.name}: the canary is {found[:40] or 'gone'!r} instead of {token!r}")


def in_folder(store: Store, folder: Path, token: str) -> None:
    """The token is in a volume laid out in `folder`. Raises BackupError."""
    path = file_of(folder, token)
    same(store, path.read_text(encoding="utf-8").strip() if path.exists() else "", token)


def in_databases(server: Server, token: str) -> None:
    """The token is in every database, which is the one it says. Raises BackupError."""
    for database in server.store.databases:
        query = f"SELECT database FROM {TABLE} WHERE token = '{token}'"  # noqa: S608 - made by this program
        rows = server.sql(query, database)
        if rows != [database]:
            raise BackupError(
                f"database {database}: the canary of the last run is not in it as it was written: "
                f"{', '.join(rows) or 'there is none'}"
            )


def in_credential(text: str) -> str:
    """The token in a credential as n8n exports it decrypted, alone or in a list; empty where there is none."""
    found = json.loads(text) if text.strip() else []
    credentials = found if isinstance(found, list) else [found]
    return str(credentials[0]["data"]["value"]) if credentials else ""


def inspect(folder: Path) -> dict[str, Any]:
    """What of a volume has to come back: how many files and bytes, and some files, chosen by chance, by their digests.

    What lies beside SQLite databases and the canaries do not count. `sample` is {path: [modified (ns), bytes, digest]}.
    Left out of it are large files, those just written, and SQLite databases, which are saved in another way.
    """
    latest = time.time() - SETTLED_SECONDS
    count = size = 0
    settled = []
    for path in files.regular(folder):
        found = _stat(path)
        if found is None or path.name.endswith(volumes.COMPANIONS) or _is_canary(path, folder):
            continue
        count, size = count + 1, size + found.st_size
        if found.st_size <= SAMPLED_BYTES and found.st_mtime < latest:
            settled.append(path)
    chosen = random.SystemRandom().sample(settled, min(SAMPLED, len(settled)))
    seen = {str(path.relative_to(folder)): look(path) for path in chosen if not volumes.is_database(path)}
    return {"files": count, "bytes": size, "sample": {name: found for name, found in seen.items() if found}}


def _is_canary(path: Path, folder: Path) -> bool:
    return path.parent == folder and path.name.startswith(FILE)


def _stat(path: Path) -> os.stat_result | None:
    try:
        return path.lstat()
    except FileNotFoundError:
        return None


def look(path: Path) -> list[Any]:
    """When a file was modified (ns), its bytes and its digest; empty where there is none."""
    try:
        found = path.lstat()
        return [found.st_mtime_ns, found.st_size, files.sha256(path)]
    except FileNotFoundError:
        return []
