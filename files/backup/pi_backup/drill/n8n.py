"""n8n on the restored data: it starts, credentials decrypt, a workflow runs. It reaches nothing but its database."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from .. import choose, docker
from ..commands import CommandFailed
from ..docker import inside, scratch_container, wait_until
from ..errors import BackupError
from ..plan import Plan, Store
from ..postgres import Server
from .canaries import CREDENTIAL, WORKFLOW, in_credential
from .checks import Unable, ended
from .source import Source
from .stores import Stores

START_SECONDS = 900
SECRETS = "/run/secrets/"
HEALTH = "http.get('http://127.0.0.1:5678/healthz/readiness',r=>process.exit(r.statusCode==200?0:1))"
# Plain text stays in the container's memory; what comes out is how many there are, and the canary.
DECRYPT = f"""
rm -rf /tmp/plain && mkdir /tmp/plain
n8n export:credentials --all --decrypted --separate --output=/tmp/plain/ >&2
ls /tmp/plain | wc -l
[ ! -e /tmp/plain/{CREDENTIAL}.json ] || cat /tmp/plain/{CREDENTIAL}.json
rm -rf /tmp/plain
"""
# Beside the running one it needs a port of its own for what runs its code. When all is done and said it may still
# crash on its way out: what counts is what it says.
EXECUTE = f"""
if N8N_RUNNERS_BROKER_PORT=5690 n8n execute --id={WORKFLOW} --rawOutput > /tmp/said; then code=0; else code=$?; fi
cat /tmp/said
echo "exit code $code"
rm /tmp/said
"""


def executed(said: str) -> tuple[str, str]:
    """The status of an execution and its document, out of all that EXECUTE printed: lines of a log stand around it.

    Raises BackupError where there is none.
    """
    document = "{\n" + ("\n" + said).partition("\n{\n")[2]
    try:
        ran, end = json.JSONDecoder().raw_decode(document)
    except ValueError as error:
        code = said.rpartition("exit code ")[2].strip()
        raise BackupError(f"the restored canary workflow does not run ({code}): {said[-600:]}") from error
    return str(ran.get("status")), document[:end]


class N8n:
    """The checks of one n8n."""

    def __init__(self, source: Source, stores: Stores, store: Store, live: Plan) -> None:
        """`live` is the shop's own plan: how its container is made is taken from there."""
        self.source, self.stores, self.store, self.live = source, stores, store, live
        self.plan, self.ladder = source.plan, source.ladder

    @contextmanager
    def started(self, server: Server) -> Iterator[str]:
        """The restored n8n beside the restored server, once it is ready; its container."""
        if self.store.name not in self.stores.data:
            raise Unable("its files could not be brought back")
        name = docker.container_of(self.live, self.store.service)
        live = docker.inspected("container", name)
        if live is None:
            raise Unable(f"{name} is not there: how n8n is started is taken from it; run site.yml")
        data = self.stores.data[self.store.name]
        service = self.plan.service(self.store.service)
        service = replace(service, options=(*service.options, *self._options(live)))
        home = docker.mount_of(self.live, name, self.store.volume)
        command = [*(live["Config"]["Entrypoint"] or []), *(live["Config"]["Cmd"] or [])]
        secrets = [
            f"{mount['Source']}:{mount['Destination']}:ro"
            for mount in live["Mounts"]
            if mount["Destination"].startswith(SECRETS)
        ]
        with scratch_container(
            self.plan, "n8n", service, command, f"{data}:{home}", *secrets, beside=server.container
        ) as container:
            wait_until(lambda: self._ready(container), START_SECONDS, f"{container} is ready")
            self.ladder.note("ready on the restored database")
            yield container

    def _options(self, live: dict[str, Any]) -> list[str]:
        """What makes its container the one that the shop has."""
        settings = self.plan.folder / "work/n8n.env"
        settings.write_text("\n".join(live["Config"]["Env"]) + "\n", encoding="utf-8")
        settings.chmod(0o600)
        tmpfs = (live["HostConfig"].get("Tmpfs") or {}).items()
        return [
            f"--env-file={settings}",
            *(f"--tmpfs={path}:{options}" for path, options in tmpfs),
            *(["--read-only"] if live["HostConfig"]["ReadonlyRootfs"] else []),
        ]

    def _ready(self, container: str) -> bool:
        if not docker.running(container):
            raise ended(container, "n8n does not start on the restored data")
        try:
            inside(container, ["node", "-e", HEALTH], seconds=60)
        except CommandFailed:
            return False
        return True

    def credentials(self, server: Server, container: str) -> None:
        """All credentials decrypt with the key that is here, the canary to what was written."""
        [wanted] = server.sql("SELECT count(*) FROM credentials_entity", self._database())
        try:
            count, _, text = inside(container, ["sh", "-euc", DECRYPT], seconds=900).partition("\n")
        except CommandFailed as error:
            if error.status in (None, 137):
                raise
            raise BackupError(f"the restored credentials do not decrypt: {error.words.strip()[-600:]}") from error
        found = in_credential(text)
        if count.strip() != wanted:
            raise BackupError(f"{count.strip()} of {wanted} restored credentials decrypt")
        if found not in self._tokens():
            raise BackupError(f"the canary credential is {found[:40] or 'gone'!r} instead of what was written")
        self.ladder.note(f"{wanted} decrypt, canary as written")

    def workflow(self, container: str) -> None:
        """The canary workflow runs to its end and says its token."""
        status, document = executed(inside(container, ["sh", "-euc", EXECUTE], seconds=900))
        if status != "success" or not any(f'"{token}"' in document for token in self._tokens()):
            raise BackupError(f"the restored canary workflow ended with {status}, and not with its token")
        self.ladder.note("the canary workflow ran, its token as written")

    def _database(self) -> str:
        return self.plan.service(self.store.service).databases[0]

    def _tokens(self) -> list[str]:
        """The tokens that it may have, as of the newest snapshot with data of PostgreSQL."""
        postgres = self.plan.postgres()
        if postgres is None:
            raise Unable("its database is not kept by this machine")
        found = choose.recovery(self.source.snapshots, postgres.name, None)
        tokens: list[str] = self.source.staged(found.log or found.base).manifest["canary"]["n8n"]
        if not tokens:
            raise Unable("n8n has been given no canary since it was restored: the next night does it")
        return tokens
