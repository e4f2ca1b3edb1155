"""PostgreSQL: a base copy and logical dumps by night, the log (WAL) every few minutes, and recovery to a moment."""

from __future__ import annotations

import gzip
import re
import shutil
import subprocess
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

from . import files
from .commands import CommandFailed, run
from .docker import container_of, docker, inside, mount_of, running, scratch_container, volume_path, wait_until
from .errors import BackupError
from .plan import Plan, Service, Store

SEGMENT_MIB = 16
SEGMENT = r"[0-9A-F]{24}\.gz"
SWITCH_SECONDS = 120
# Row counts and sums of hashed rows of every table, which do not depend on the order of the rows.
# The settings are those that the text of a value depends on.
TABLES = r"""
SET timezone = 'UTC'; SET datestyle = 'ISO'; SET intervalstyle = 'postgres'; SET bytea_output = 'hex';
SET extra_float_digits = 1; SET lc_monetary = 'C';
SELECT format('SELECT %L, count(*), coalesce(sum(hashtextextended(t::text, 0)::numeric), 0) FROM %I.%I t',
              schemaname || '.' || tablename, schemaname, tablename)
  FROM pg_tables WHERE schemaname !~ '^(pg_|information_schema$)' ORDER BY 1
\gexec
"""


class Server:
    """The running server in its container."""

    def __init__(self, plan: Plan, store: Store, container: str = "") -> None:
        """`container` is the service's own unless another one is named."""
        self.plan, self.store = plan, store
        self.container = container or container_of(plan, store.service)

    def sql(self, text: str, database: str = "postgres", seconds: float = 3600) -> list[str]:
        """Lines that a script prints. Raises BackupError at its first error."""
        client = ["psql", "-XAtq", "-U", "postgres", "-d", database, "-v", "ON_ERROR_STOP=1"]
        return inside(self.container, client, text=text, seconds=seconds).splitlines()

    @cached_property
    def spool(self) -> Path:
        """The spool volume on this machine."""
        return volume_path(self.plan, self.store.spool)

    @cached_property
    def wal(self) -> Path:
        """Where the server leaves its log."""
        return self.spool / "wal"

    @property
    def gap(self) -> Path:
        """The mark that says: log was dropped, the chain is broken."""
        return self.wal / "gap"

    def databases(self) -> list[str]:
        """The databases that are there and are to be kept. Raises BackupError where a declared one is missing."""
        there = set(self.sql("SELECT datname FROM pg_database WHERE datallowconn AND NOT datistemplate"))
        missing = sorted(set(self.store.databases) - there)
        if missing:
            raise BackupError(
                f"{self.container}: database {', '.join(missing)} is declared and is not there; run site.yml"
            )
        return list(self.store.databases)

    # --- every few minutes ---------------------------------------------------------------------------------

    def switch(self) -> float:
        """Have the log up to now in the spool; the moment (seconds since 1970) up to which it reaches.

        Raises BackupError where the server does not archive, or where log was dropped.
        """
        # The message is a transaction, so that recovery finds a moment to stop at even where nobody wrote anything.
        _, moment, segment = self.sql(
            "SELECT pg_logical_emit_message(true, 'pi-commerce', 'ship');\n"
            "SELECT extract(epoch FROM clock_timestamp());\n"
            "SELECT pg_walfile_name(pg_switch_wal());\n",
            seconds=60,
        )
        packed = self.wal / f"{segment}.gz"
        wait_until(lambda: packed.exists() or self.gap.exists(), SWITCH_SECONDS, f"{self.container} archives {segment}")
        if self.gap.exists():
            raise BackupError(
                f"{self.gap}: the spool was full, log was dropped; a new base is needed, and made by this program. "
                "It stays full where no repository can be reached: see `pi-commerce-backup status`"
            )
        return float(moment)

    def spooled_mib(self) -> int:
        """MiB of log in the spool."""
        return files.measure(self.wal)["bytes"] // files.MIB

    def drop_log(self) -> None:
        """Empty the spool, with the mark that says it was full."""
        for path in self.segments():
            path.unlink()
        self.gap.unlink(missing_ok=True)

    def segments(self) -> list[Path]:
        """The segments in the spool, the oldest first. Histories of timelines are tiny and needed for long."""
        return sorted(path for path in self.wal.glob("*.gz") if re.fullmatch(SEGMENT, path.name))

    def goes_on(self, chain: Mapping[str, str]) -> bool:
        """Whether the log in the spool goes on from a chain's base; not so after a restore."""
        newest = self.segments()[-1:]
        return not newest or newest[0].name[:8] == chain["segment"][:8]

    # --- by night ------------------------------------------------------------------------------------------

    def take_base(self) -> dict[str, Any]:
        """Copy the cluster into the spool volume and check the copy.

        `path`: where it lies. `segment`: the first of the log it needs. `consistent`: seconds since 1970, from which
        moment on it can be recovered to. Raises BackupError.
        """
        folder = f"{mount_of(self.plan, self.container, self.store.spool)}/base"
        size = int(self.sql("SELECT (sum(pg_database_size(oid)) / 1048576)::int FROM pg_database")[0])
        self.drop_base()
        files.require_room(self.spool, size + 4 * SEGMENT_MIB, f"a base of {self.container}")
        # With the log it needs to be whole by itself, even where the spool has a gap.
        command = ["pg_basebackup", "-U", "postgres", "--wal-method=stream", "--checkpoint=fast", "--pgdata", folder]
        inside(self.container, [*command, "--manifest-checksums=SHA256"])
        consistent = time.time()
        inside(self.container, ["pg_verifybackup", "--quiet", folder])
        label = (self.spool / "base/backup_label").read_text(encoding="utf-8")
        segment = re.search(r"^START WAL LOCATION: \S+ \(file ([0-9A-F]{24})\)$", label, re.MULTILINE)
        if segment is None:
            raise BackupError(f"{self.spool}/base/backup_label: names no first segment: {label}")
        return {"path": str(self.spool / "base"), "segment": segment[1], "consistent": consistent}

    def drop_base(self) -> None:
        """Remove the base in the spool volume."""
        shutil.rmtree(self.spool / "base", ignore_errors=True)

    def dump(self, folder: Path) -> dict[str, Any]:
        """Dump roles and every database; the rows and sums of all tables at the moment of each dump."""
        with (folder / "globals.sql").open("wb") as target:
            inside(self.container, ["pg_dumpall", "-U", "postgres", "--globals-only"], target=target)
        return {database: self._dump(database, folder / f"{database}.dump") for database in self.databases()}

    def _dump(self, database: str, path: Path) -> dict[str, list[str]]:
        """Dump one database, and count its rows as they are at that very moment."""
        with self._moment(database) as (snapshot, ask):
            # Uncompressed: the engine packs, and finds again what did not change.
            command = [
                "pg_dump",
                "-U",
                "postgres",
                "--format=custom",
                "--compress=0",
                f"--snapshot={snapshot}",
                database,
            ]
            with path.open("wb") as target:
                inside(self.container, command, target=target)
            counted = ask(TABLES)
        with path.open("rb") as source:
            # Reads it to the end: a dump that was cut off is found here, not on the bad day.
            inside(self.container, ["pg_restore", "--file=/dev/null"], source=source)
        return table_counts(counted)

    @contextmanager
    def _moment(self, database: str) -> Iterator[tuple[str, Callable[[str], list[str]]]]:
        """A transaction that stays open: the name of its snapshot, and a function that ends it with a last script."""
        client = ["psql", "-XAtq", "-U", "postgres", "-d", database, "-v", "ON_ERROR_STOP=1"]
        session = subprocess.Popen(
            ["docker", "exec", "--interactive", self.container, *client],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        if session.stdin is None or session.stdout is None:
            raise BackupError("no pipes to psql")
        try:
            session.stdin.write("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;\nSELECT pg_export_snapshot();\n")
            session.stdin.flush()
            snapshot = session.stdout.readline().strip()

            def ask(script: str) -> list[str]:
                printed, said = session.communicate(script + "COMMIT;\n", timeout=3600)
                if session.returncode:
                    raise BackupError(f"{self.container}: database {database}: {said.strip()}")
                return printed.splitlines()

            yield snapshot, ask
        finally:
            session.kill()
            session.communicate()


def table_counts(lines: Sequence[str]) -> dict[str, list[str]]:
    """Rows and order-independent sum of every table: {schema.table: [rows, sum]}."""
    return {name: [rows, total] for name, rows, total in (line.split("|") for line in lines)}


# --- recovery ----------------------------------------------------------------------------------------------


def check_wal(folder: Path, first: str) -> list[str]:
    """The segments in `folder` from `first` on, each whole and none missing between. Raises BackupError."""
    names = sorted(path.name[:-3] for path in folder.glob("*.gz") if re.fullmatch(SEGMENT, path.name))
    chain = [name for name in names if name[:8] == first[:8] and name >= first]
    for index, name in enumerate(chain):
        if _number(name) != _number(first) + index:
            raise BackupError(f"{folder}: the log has a hole before {name}; choose a moment before it was written")
    for name in chain:
        _check_segment(folder / f"{name}.gz")
    return chain


def _number(name: str) -> int:
    """The running number of a segment of 16 MiB: 256 of them to each step of the middle part of its name."""
    return (int(name[8:16], 16) << 8) + int(name[16:24], 16)


def _check_segment(path: Path) -> None:
    size = 0
    try:
        with gzip.open(path) as packed:
            for block in iter(lambda: packed.read(files.MIB), b""):
                size += len(block)
    except (OSError, EOFError, zlib.error) as error:
        raise BackupError(f"{path}: is damaged: {error}") from error
    if size != SEGMENT_MIB * files.MIB:
        raise BackupError(f"{path}: holds {size} bytes instead of {SEGMENT_MIB} MiB: it was cut off")


@contextmanager
def recovered(
    plan: Plan,
    service: Service,
    store: Store,
    data: Path,
    wal: Path,
    until: float | None,
    seconds: float = 7200,
    *,
    ready: Callable[[Server], bool] | None = None,
    **other: str,
) -> Iterator[Server]:
    """A server on the base in `data`, brought forward with the log in `wal` up to `until` (None: to its end).

    It has no network and ends with the block, shut down in order. `ready` says when it is where it should be, `other`
    are settings that differ. Raises BackupError.
    """
    ready = ready or promoted
    (data / "recovery.signal").touch()
    run(["chown", "-R", f"{service.uid}:{service.gid}", str(data), str(wal)])
    data.chmod(0o700)
    settings = {
        "archive_mode": "off",
        "hot_standby": "off",
        "listen_addresses": "",
        "restore_command": '[ -f "/wal/%f.gz" ] && gunzip -c "/wal/%f.gz" > "%p"',
        "recovery_target_action": "promote",
        **({} if until is None else {"recovery_target_time": moment_text(until)}),
        **other,
    }
    words = [word for key, value in settings.items() for word in ("-c", f"{key}={value}")]
    inner = "/var/lib/postgresql/data"
    with scratch_container(
        plan, "postgres", service, ["postgres", "-D", inner, *words], f"{data}:{inner}", f"{wal}:/wal:ro"
    ) as container:
        server = Server(plan, store, container)
        wait_until(lambda: ready(server), seconds, f"{container} has replayed the log")
        yield server
        docker("stop", "--time", "120", container, seconds=180)


def promoted(server: Server) -> bool:
    """Whether recovery is over. Raises BackupError where it failed."""
    return replayed(server, "SELECT NOT pg_is_in_recovery()")


def replayed(server: Server, query: str) -> bool:
    """Whether a server in recovery answers a query with true by now. Raises BackupError where recovery failed."""
    if not running(server.container):
        log = docker("logs", "--tail", "15", server.container, both=True)
        raise BackupError(f"the log could not be replayed:\n{log}")
    try:
        return server.sql(query, seconds=30) == ["t"]
    except CommandFailed:
        return False


def moment_text(moment: float) -> str:
    """A moment as PostgreSQL takes it."""
    whole = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(int(moment)))
    return f"{whole}.{int(moment % 1 * 1_000_000):06d}+00"
