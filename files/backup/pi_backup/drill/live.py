"""The drill's canaries, looked for in the shop itself after a rebuild: what was saved last is in every store."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from ..commands import CommandFailed
from ..docker import container_of, inside, volume_path
from ..engine import Repository
from ..errors import BackupError
from ..plan import Plan, Store
from ..postgres import Server
from ..restore import Step, manifest_of
from . import canaries

# In its own memory; of all credentials only the canary is made plain.
DECRYPT = f"""
n8n export:credentials --id={canaries.CREDENTIAL} --decrypted --output=/tmp/canary.json >&2
cat /tmp/canary.json
rm /tmp/canary.json
"""


def expected(repository: Repository, steps: tuple[Step, ...]) -> dict[str, Any]:
    """What a restore has to bring: `stores` {name: token} and `n8n`, the tokens its credential may hold."""
    found: dict[str, Any] = {"stores": {}, "n8n": []}
    for step in steps:
        saved = step.snapshot
        if step.recovery and step.recovery.log and step.recovery.until is None:
            saved = step.recovery.log
        canary = manifest_of(repository, saved).get("canary", {"stores": {}, "n8n": []})
        if step.store.name in canary["stores"]:
            found["stores"][step.store.name] = canary["token"]
        if step.recovery:
            found["n8n"] = canary["n8n"]
    return found


def judge(plan: Plan, wanted: dict[str, Any], say: Callable[[str], None]) -> list[str]:
    """Look for them; `say` what was found. What is wrong."""
    problems = []
    for name, look in _looks(plan, wanted):
        try:
            look()
            say(f"{name}: canary as written")
        except BackupError as error:
            problems.append(str(error))
    return problems


def _looks(plan: Plan, wanted: dict[str, Any]) -> Iterator[tuple[str, Callable[[], None]]]:
    for store in plan.stores:
        if store.name in wanted["stores"]:
            yield store.name, partial(_look, plan, store, wanted["stores"][store.name])
        if store.kind == "n8n" and wanted["n8n"]:
            yield f"{store.service} credential", partial(_decrypted, plan, store, wanted["n8n"])


def _look(plan: Plan, store: Store, token: str) -> None:
    if store.kind == "postgres":
        canaries.in_databases(Server(plan, store), token)
    elif store.kind == "redis":
        login = f"AUTH {store.user} {plan.secret(store.password_secret)}\n"
        container = container_of(plan, store.service)
        said = inside(container, ["valkey-cli"], text=f"{login}GET {canaries.KEY}\n", seconds=30)
        canaries.same(store, said.partition("\n")[2].strip(), token)
    else:
        canaries.in_folder(store, volume_path(plan, store.volume), token)


def _decrypted(plan: Plan, store: Store, tokens: list[str]) -> None:
    """The canary among n8n's credentials decrypts with the key that is here."""
    try:
        text = inside(container_of(plan, store.service), ["sh", "-euc", DECRYPT], seconds=600)
    except CommandFailed as error:
        raise BackupError(f"{store.service}: its credentials do not decrypt: {error.words.strip()[-600:]}") from error
    found = canaries.in_credential(text)
    if found not in tokens:
        raise BackupError(f"{store.service}: the canary credential is {found[:40] or 'gone'!r} instead of {tokens}")
