"""PostgreSQL: the night's dumps loaded into an empty server; base and log replayed to a moment, then to their end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .. import choose, docker, files
from ..commands import CommandFailed, run
from ..docker import inside, scratch_container, scratch_volume, wait_until
from ..engine import Snapshot
from ..errors import BackupError
from ..plan import Store
from ..postgres import TABLES, Server, check_wal, recovered, replayed, table_counts
from . import canaries
from .checks import Left, Unable, ended
from .source import Source

# A superuser that no dump knows, so that the one every dump makes is not there yet.
FIRST = "pi_commerce_drill"
EMPTY = f"""
initdb --username={FIRST} --auth=trust --no-sync --encoding=UTF8 --locale=C.UTF-8 >&2
exec postgres -c listen_addresses= -c fsync=off
"""
# Sequences that would give a number again that a row has already.
BEHIND = r"""
SELECT format('SELECT %L FROM %s WHERE last_value + is_called::int * %s <= (SELECT max(%I) FROM %s)',
              s.seqrelid::regclass, s.seqrelid::regclass, s.seqincrement, a.attname, d.refobjid::regclass)
  FROM pg_sequence s
  JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = s.seqrelid AND d.deptype IN ('a', 'i')
                  AND d.refclassid = 'pg_class'::regclass
  JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
 WHERE s.seqincrement > 0
\gexec
"""
PAUSED = "SELECT pg_get_wal_replay_pause_state() = 'paused'"


class Postgres:
    """The checks of one PostgreSQL."""

    def __init__(self, source: Source, store: Store) -> None:
        """`source` is where the copies come from."""
        self.source, self.store, self.plan, self.ladder = source, store, source.plan, source.ladder
        self.service = self.plan.service(store.service)
        self.behind: dict[str, set[str]] = {}
        self._laid: tuple[str, Path] | None = None

    # --- the night's dumps ---------------------------------------------------------------------------------

    def dumps(self) -> None:
        """Every dump loads into an empty server, and gives the rows and sums counted when it was taken."""
        night = self.source.staged(self.source.latest("nightly"))
        dumped: dict[str, Any] = night.manifest.get("databases", {})
        if sorted(dumped) != sorted(self.store.databases):
            raise BackupError(f"the night dumped {sorted(dumped)}, declared are {sorted(self.store.databases)}")
        data = scratch_volume(self.plan, "dumps", self.service)
        mount = f"{data}:/var/lib/postgresql/data"
        with scratch_container(self.plan, "dumps", self.service, ["sh", "-euc", EMPTY], mount) as container:
            server = Server(self.plan, self.store, container)
            wait_until(lambda: self._answers(container), 120, f"{container} answers")
            with (night.folder / "postgres/globals.sql").open("rb") as source:
                client = ["psql", "-Xq", "-v", "ON_ERROR_STOP=1", "-U", FIRST, "-d", "postgres"]
                inside(container, client, source=source)
            for database, wanted in dumped.items():
                self._load(server, database, night.folder / f"postgres/{database}.dump", wanted)
        docker.docker("volume", "rm", f"{self.plan.project}_scratch_dumps")
        rows = sum(int(count) for tables in dumped.values() for count, _ in tables.values())
        tables = sum(map(len, dumped.values()))
        self.ladder.note(f"{len(dumped)} databases, {tables} tables, {rows} rows, as counted when they were dumped")

    def _answers(self, container: str) -> bool:
        if not docker.running(container):
            raise ended(container, f"{container} did not start")
        try:
            inside(container, ["psql", "-Xq", "-U", FIRST, "-d", "postgres", "-c", "SELECT 1"], seconds=30)
        except CommandFailed:
            return False
        return True

    def _load(self, server: Server, database: str, dump: Path, wanted: dict[str, list[str]]) -> None:
        server.sql(f'CREATE DATABASE "{database}" TEMPLATE template0')
        with dump.open("rb") as source:
            command = ["pg_restore", "-U", "postgres", "--exit-on-error", "--dbname", database]
            inside(server.container, command, source=source)
        found = table_counts(server.sql(TABLES, database))
        wrong = [
            f"{name} ({_rows(found, name)} rows instead of {_rows(wanted, name)})"
            for name in sorted({**wanted, **found})
            if wanted.get(name) != found.get(name)
        ]
        if wrong:
            raise BackupError(f"the dump of {database} differs from what was counted: {', '.join(wrong)}")
        self.behind[database] = set(server.sql(BEHIND, database))

    # --- base and log --------------------------------------------------------------------------------------

    def recovery(self, at: float | None = None) -> choose.Recovery:
        """The snapshots for a moment. Raises Refused or Unable."""
        return choose.recovery(self.source.snapshots, self.store.name, at)

    def base(self) -> None:
        """The newest base is there, and every file in it as PostgreSQL's own manifest says."""
        self._lay_base(self.recovery().base)

    def _lay_base(self, base: Snapshot) -> Path:
        if self._laid and self._laid[0] == base.id:
            return self._laid[1]
        self._laid = None
        wanted = self.source.staged(base).manifest["base"]
        data = scratch_volume(self.plan, self.store.volume, self.service)
        self.source.fetch(base, base.path("base"), data)
        found = files.measure(data)
        if (found["files"], found["bytes"]) != (wanted["files"], wanted["bytes"]):
            raise BackupError(f"the base holds {found}, its manifest says {wanted}")
        self._own(data)
        with scratch_container(self.plan, "base", self.service, ["sleep", "infinity"], f"{data}:/base:ro") as container:
            inside(container, ["pg_verifybackup", "--quiet", "/base"])
        self.ladder.note(f"{found['files']} files, {found['bytes']} bytes, verified")
        self._laid = (base.id, data)
        return data

    def _own(self, folder: Path) -> None:
        run(["chown", "-R", f"{self.service.uid}:{self.service.gid}", str(folder)])
        folder.chmod(0o700)

    def _lay_log(self, found: choose.Recovery) -> Path:
        wal = scratch_volume(self.plan, "wal", self.service)
        if found.log:
            self.source.fetch(found.log, found.log.path("wal"), wal)
            segments = check_wal(wal, self.source.staged(found.base).manifest["base"]["segment"])
            text = f"{len(segments)} segments without a hole, up to {choose.shown(found.reached)}"
            self.ladder.note(text)
        return wal

    def log(self) -> None:
        """The log is whole from the base on."""
        self.ladder.note("there is none")
        self._lay_log(self.recovery())

    def point_in_time(self) -> None:
        """Between two runs: the canary of the earlier one is there, that of the later one is not."""
        runs = [one for one in self.source.snapshots if one.holds(self.store.name) and one.path("wal")]
        if not runs:
            raise Unable("there is no log in the repository yet: the next ship brings it")
        later = max(runs, key=_point)
        after, written = self.source.token(later, self.store), self._written(later)
        earlier = [one for one in self.source.snapshots if one.holds(self.store.name) and _point(one) < written]
        if not earlier:
            raise Unable("there is only one run with a log in the repository: the next ship brings another")
        first = max(earlier, key=_point)
        before = self.source.token(first, self.store)
        moment = (_point(first) + written) / 2
        found = self.recovery(moment)
        if found.until != moment:
            raise BackupError(f"{self.store.name} cannot be had as of {choose.shown(moment)}: the log ends before")
        data, wal = self._lay_base(found.base), self._lay_log(found)
        with recovered(
            self.plan,
            self.service,
            self.store,
            data,
            wal,
            moment,
            ready=_paused,
            hot_standby="on",
            recovery_target_action="pause",
        ) as server:
            for database in self.store.databases:
                there = set(server.sql(f"SELECT token FROM {canaries.TABLE}", database))  # noqa: S608 - a constant
                if before not in there:
                    raise BackupError(f"{database} as of {choose.shown(moment)}: the canary of before is not there")
                if after in there:
                    raise BackupError(f"{database} as of {choose.shown(moment)}: the canary of later is there already")
        self.ladder.note(f"as of {choose.shown(moment)} the canary of before is there, that of later is not")

    def _written(self, snapshot: Snapshot) -> float:
        """When a run began to write its canaries."""
        return float(self.source.staged(snapshot).manifest["canary"]["stores"][self.store.name]["before"])

    @contextmanager
    def newest(self) -> Iterator[Server]:
        """A server on everything there is; it listens to nobody but itself and what shares its network."""
        found = self.recovery()
        data, wal = self._lay_base(found.base), self._lay_log(found)
        with recovered(self.plan, self.service, self.store, data, wal, None, listen_addresses="127.0.0.1") as server:
            self.ladder.note(f"replayed up to {choose.shown(found.reached)}")
            yield server

    def canaries(self, server: Server) -> None:
        """The newest run's canary is in every database, which is the one it says."""
        found = self.recovery()
        token = self.source.token(found.log or found.base, self.store)
        canaries.in_databases(server, token)
        self.ladder.note(f"in {', '.join(self.store.databases)}")

    def pages(self, server: Server) -> None:
        """PostgreSQL's own check of its tables and indexes."""
        if inside(server.container, ["sh", "-c", "command -v pg_amcheck; echo"]).strip() == "":
            raise Left("this PostgreSQL comes without pg_amcheck")
        inside(server.container, ["pg_amcheck", "-U", "postgres", "--all", "--install-missing", "--heapallindexed"])
        self.ladder.note("tables and indexes whole")

    def sequences(self, server: Server) -> None:
        """No dump has lost the place of a sequence. What the shop itself numbers so is said, and no fault of a copy."""
        if not self.behind:
            raise Unable("the dumps could not be loaded")
        own: list[str] = []
        lost: list[str] = []
        for database, behind in self.behind.items():
            live = set(server.sql(BEHIND, database))
            own += sorted(f"{database}: {name}" for name in live)
            lost += sorted(f"{database}: {name}" for name in behind - live)
        if lost:
            raise BackupError(f"sequences that give numbers again: {', '.join(lost)}")
        self.ladder.note(f"none is behind{' but in the shop itself: ' + ', '.join(own) if own else ''}")


def _paused(server: Server) -> bool:
    return replayed(server, PAUSED)


def _point(snapshot: Snapshot) -> float:
    return float(snapshot.tag("point") or 0)


def _rows(tables: dict[str, list[str]], name: str) -> str:
    return tables[name][0] if name in tables else "no"
