"""Redis, volumes, SQLite, the machine's own description, and the secrets bundle."""

from __future__ import annotations

import re
import sqlite3
import tarfile
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

from .. import choose, docker, files, losses, redis, volumes
from ..commands import CommandFailed, run
from ..docker import inside, scratch_container, scratch_volume, wait_until
from ..engine import Snapshot
from ..errors import BackupError
from ..plan import Store
from .canaries import KEY, in_folder, inspect, look, same
from .checks import Left, Unable, ended
from .source import Source, Staged

SOCKET = "/data/.drill.sock"
AGE_MAGIC = "age-encryption.org/v1"


class Stores:
    """The checks of what is no PostgreSQL."""

    def __init__(self, source: Source, known: dict[str, Any]) -> None:
        """`known` is what earlier drills have noted; sizes are added to it."""
        self.source, self.plan, self.ladder, self.known = source, source.plan, source.ladder, known
        self.data: dict[str, Path] = {}

    def _holding(self, store: Store) -> tuple[Snapshot, Staged]:
        snapshot = choose.holding(self.source.snapshots, store.name, None)
        return snapshot, self.source.staged(snapshot)

    def redis(self, store: Store) -> None:
        """The dump is whole, a server with an append-only log starts from it, all keys and the canary are in it."""
        snapshot, staged = self._holding(store)
        service, dump = self.plan.service(store.service), staged.folder / f"redis/{store.volume}" / redis.DUMP
        data = scratch_volume(self.plan, store.volume, service)
        held = scratch_volume(self.plan, "rdb", service)
        (held / redis.DUMP).write_bytes(dump.read_bytes())
        (held / redis.DUMP).chmod(0o644)
        with scratch_container(self.plan, "rdb", service, ["sleep", "infinity"], f"{held}:/rdb:ro") as container:
            keys = redis.keys(inside(container, ["valkey-check-rdb", f"/rdb/{redis.DUMP}"]))
        wanted = staged.manifest["keys"][store.volume]
        if list(keys) != wanted:
            raise BackupError(f"{store.name}: the dump holds {keys} keys (all, ending), its manifest says {wanted}")
        redis.prepare(self.plan, service, dump, data)
        server = ["valkey-server", "--dir", "/data", "--port", "0", "--unixsocket", SOCKET, "--appendonly", "yes"]
        with scratch_container(self.plan, "redis", service, server, f"{data}:/data") as container:
            wait_until(lambda: self._loaded(container, data), 600, f"{container} has read its log")
            found = self._ask(container, f"GET {KEY}")
            spaces = re.findall(r"keys=(\d+),expires=(\d+)", self._ask(container, "INFO keyspace"))
        token = self.source.token(snapshot, store)
        same(store, found, token)
        # Those whose time has run out since are gone; the others have to be there.
        lasting = sum(int(count) - int(ending) for count, ending in spaces)
        if lasting != keys[0] - keys[1]:
            raise BackupError(f"{store.name}: {lasting} keys without an end came back of {keys[0] - keys[1]}")
        self.ladder.note(f"all {lasting} lasting keys of {keys[0]}, canary as written")

    def _ask(self, container: str, command: str) -> str:
        return inside(container, ["valkey-cli", "-e", "-s", SOCKET], text=f"{command}\n", seconds=60).strip()

    def _loaded(self, container: str, data: Path) -> bool:
        if not docker.running(container):
            raise ended(container, "the server does not start from its append-only log")
        if not (data / Path(SOCKET).name).exists():
            return False
        try:
            return "loading:0" in self._ask(container, "INFO persistence")
        except CommandFailed:
            return False

    def volume(self, store: Store) -> None:
        """Files and bytes as they were counted, sampled files by their digests, the canary; not less than last time."""
        snapshot, staged = self._holding(store)
        wanted = staged.manifest["volumes"][store.volume]
        data = scratch_volume(self.plan, store.volume, self.plan.service(store.service))
        self.source.fetch(snapshot, wanted["path"], data)
        if (staged.folder / f"sqlite/{store.volume}").exists():
            volumes.lay_out(staged.folder / f"sqlite/{store.volume}", data)
        self.data[store.name] = data
        found = {what: size for what, size in inspect(data).items() if what != "sample"}
        before = self.known["volumes"].get(store.name, found)
        self.known["volumes"][store.name] = found
        token = self.source.token(snapshot, store)
        in_folder(store, data, token)
        for other, when in ((wanted, "when it was saved"), (before, "in the last drill")):
            lost = losses.missing(other, found, shrinks=store.kind == "n8n")
            if lost:
                raise BackupError(f"{store.name}: {', '.join(lost)} {when}")
        self._sampled(store, data, wanted["sample"])
        self.ladder.note(f"{_shown(found)}, {len(wanted['sample'])} compared, canary as written", **found)

    def _sampled(self, store: Store, data: Path, sample: dict[str, list[Any]]) -> None:
        missing = []
        for name, seen in sample.items():
            found = look(data / name)
            if not found:
                missing.append(name)
            elif found[:2] == seen[:2] and found[2] != seen[2]:
                raise BackupError(f"{store.name}: {name} has other content than when it was saved")
        if len(missing) > losses.SHARE * len(sample):
            raise BackupError(f"{store.name}: {', '.join(missing[:5])} did not come back")

    def sqlite(self, store: Store) -> None:
        """Every SQLite database is whole, and nothing of another moment lies beside it."""
        if store.name not in self.data:
            raise Unable("its files could not be brought back")
        data = self.data[store.name]
        staged = self._holding(store)[1].folder / f"sqlite/{store.volume}"
        names = [path.relative_to(staged) for path in files.regular(staged)]
        lost = [str(name) for name in names if not volumes.is_database(data / name)]
        if lost:
            raise BackupError(f"{store.name}: {', '.join(lost)} did not come back as a database")
        found = volumes.databases(data)
        for path in found:
            beside = [path.name + end for end in volumes.COMPANIONS if path.with_name(path.name + end).exists()]
            if beside:
                raise BackupError(f"{store.name}: {', '.join(beside)} of another moment lies beside {path.name}")
            try:
                # As it is on the disk: nothing is written, nothing is looked for beside it.
                with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro&immutable=1", uri=True)) as base:
                    verdict = base.execute("PRAGMA integrity_check").fetchone()[0]
            except sqlite3.Error as error:
                verdict = str(error)
            if verdict != "ok":
                raise BackupError(f"{store.name}: {path.name} is damaged: {verdict[:300]}")
        self.ladder.note(f"{len(found)} databases whole")

    # --- the machine ---------------------------------------------------------------------------------------

    def host(self) -> None:
        """The machine's description and its own plan are there and can be read."""
        night = self.source.staged(self.source.latest("nightly"))
        images = files.read_json(night.folder / "host/images.json")
        unknown = [service.name for service in self.plan.services if not images.get(service.name, {}).get("id")]
        packages = (night.folder / "host/packages.txt").read_text(encoding="utf-8").splitlines()
        if unknown or not packages:
            raise BackupError(f"of {', '.join(unknown) or 'the packages'} is not known what it is made of")
        saved = [path for path in night.snapshot.paths if path in self.plan.host_paths]
        if not saved:
            raise BackupError(f"none of {', '.join(self.plan.host_paths)} was saved")
        self.ladder.note(f"{len(images)} images, {len(packages)} packages, {', '.join(saved)}")

    def sealed(self) -> None:
        """The secrets bundle is there, encrypted for as many as it should be."""
        text = self._bundle().read_bytes()[:65536].split(b"\n---", 1)[0].decode("ascii", errors="replace")
        stanzas = sum(line.startswith("-> X25519 ") for line in text.splitlines())
        if not text.startswith(AGE_MAGIC) or stanzas != len(self.plan.recipients):
            raise BackupError(f"the secrets bundle is encrypted for {stanzas} instead of {len(self.plan.recipients)}")
        self.ladder.note(f"encrypted for {stanzas}")

    def opened(self, key: str) -> None:
        """The operator's key opens the bundle, and in it is what the plan says, as it is here."""
        if not key:
            raise Left("the operator's key is not on this machine: `make drill` opens it from yours")
        staged, path = self.source.staged(self.source.latest("nightly")), self._bundle()
        # The key goes through a pipe; neither it nor what it opens touches a disk.
        with files.in_memory() as content:
            try:
                run(["age", "--decrypt", "--identity", "-", str(path)], text=key + "\n", target=content)
            except CommandFailed as error:
                text = "the secrets bundle does not open with the operator's key: "
                raise BackupError(text + error.words.strip()) from error
            content.seek(0)
            with tarfile.open(fileobj=content) as bundle:
                names = {f"/{member.name}" for member in bundle}
                secrets = [name for name in names if Path(name).parent == self.plan.secrets_folder]
                other = [name for name in secrets if _differs(bundle, name, staged.manifest["started"])]
        lost = [path for path in self.plan.sealed if Path(path).exists() and path not in names]
        if lost or not secrets:
            raise BackupError(f"{', '.join(lost) or self.plan.secrets_folder} is not in the secrets bundle")
        if other:
            raise BackupError(f"the secrets bundle has another content of {', '.join(sorted(other))}")
        self.ladder.note(f"opens, {len(names)} files, {len(secrets)} secrets as they are here")

    def _bundle(self) -> Path:
        path = self.source.staged(self.source.latest("nightly")).folder / "host/secrets.tar.age"
        if not path.exists():
            raise BackupError("there is no secrets bundle in the night's copies")
        return path


def _shown(found: dict[str, Any]) -> str:
    return f"{found['files']} files, {found['bytes']} bytes"


def _differs(bundle: tarfile.TarFile, name: str, since: float) -> bool:
    """Whether a file of the bundle is another than here. One that was changed or removed here since says nothing."""
    path, found = Path(name), bundle.extractfile(name[1:]) if bundle.getmember(name[1:]).isfile() else None
    if found is None or not path.is_file() or path.stat().st_mtime > since:
        return False
    return found.read() != path.read_bytes()
