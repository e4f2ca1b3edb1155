"""What may be wrong with copies, or with the machine that drills them; and what a drill has to say of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

from backup_shop import FOLDER, PLAN, SECRETS, SMALL
from drill_shop import DrillShop

FAILED, UNKNOWN = 1, 2
Harm = Callable[[DrillShop], AbstractContextManager[Any]]


@dataclass(frozen=True)
class Fault:
    """Something that is wrong while `harm` lasts. The checks that did not pass have to say `words` (a pattern).

    `hook` replaces parts of the program during the drill, `key` is the file of the operator's key. Those that are
    `quick` are shown in every test run.
    """

    name: str
    verdict: int
    words: str
    harm: Harm = nullcontext
    hook: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    key: str = ""
    quick: bool = False


# --- the repository, as its own disk has it ----------------------------------------------------------------


def pack(script: str) -> Harm:
    """Shell that harms $file, the largest pack of the far repository; afterwards it is as it was."""
    return stored("data", script)


def stored(kind: str, script: str) -> Harm:
    """Shell that harms $file, the largest file of one kind in the far repository."""

    @contextmanager
    def harm(shop: DrillShop) -> Iterator[None]:
        find = f"find {shop.far_root}/{kind} -type f -printf '%s %p\\n' | sort -n | tail -1 | cut -d' ' -f2"
        done = shop.shell(f"set -eu; file=$({find}); cp -p $file /root/kept; chmod u+w $file; echo $file; {script}")
        assert done.status == 0, done.output
        try:
            yield
        finally:
            assert shop.shell(f"cp -p /root/kept {done.output.split()[0]}").status == 0

    return harm


FLIP = """python3 -c "
import sys
with open(sys.argv[1], 'r+b') as file:
    middle = file.seek(0, 2) // 2
    file.seek(middle)
    byte = file.read(1)[0]
    file.seek(middle)
    file.write(bytes([byte ^ 1]))
" $file"""


@contextmanager
def emptied(shop: DrillShop) -> Iterator[None]:
    """Another disk is mounted there, an empty one."""
    shop.shell(f"mv {shop.far_root} {shop.far_root}.away")
    try:
        yield
    finally:
        shop.shell(f"rm -rf {shop.far_root}; mv {shop.far_root}.away {shop.far_root}")


@contextmanager
def without_nights(shop: DrillShop) -> Iterator[None]:
    """Somebody has removed what all nights have saved."""
    listed = shop.restic("snapshots", "--no-lock", "--json", "--tag=nightly", repository="far").output
    names = " ".join(f"{shop.far_root}/snapshots/{entry['id']}" for entry in json.loads(listed))
    shop.shell(f"mkdir /root/nights; mv {names} /root/nights")
    try:
        yield
    finally:
        assert shop.shell(f"mv /root/nights/* {shop.far_root}/snapshots; rmdir /root/nights").status == 0


@contextmanager
def away(shop: DrillShop) -> Iterator[None]:
    """The far server is down."""
    shop.far.stop(timeout=1)
    try:
        yield
    finally:
        shop.far.start()


@contextmanager
def hanging(shop: DrillShop) -> Iterator[None]:
    """The far server takes connections and never answers."""
    shop.far.pause()
    try:
        yield
    finally:
        shop.far.unpause()


@contextmanager
def ahead(shop: DrillShop) -> Iterator[None]:
    """There is a snapshot from next year."""
    words = ["--host=shop-pi", "--time=2999-01-01 00:00:00", "--tag=ship", PLAN]
    assert shop.restic("backup", *words, repository="far").status == 0
    try:
        yield
    finally:
        listed = json.loads(shop.restic("snapshots", "--no-lock", "--json", repository="far").output)
        newest = max(listed, key=lambda entry: str(entry["time"]))
        assert str(newest["time"]).startswith("2999")
        assert shop.shell(f"rm -f {shop.far_root}/snapshots/{newest['id']}").status == 0


def secret(name: str, text: str) -> Harm:
    """A secret has another content on the machine."""

    @contextmanager
    def harm(shop: DrillShop) -> Iterator[None]:
        shop.write(f"{SECRETS}/{name}", text)
        try:
            yield
        finally:
            shop.write_plan()

    return harm


def planned(**changes: Any) -> Harm:
    """The plan says something else."""

    @contextmanager
    def harm(shop: DrillShop) -> Iterator[None]:
        shop.write_plan(**changes)
        try:
            yield
        finally:
            shop.write_plan()

    return harm


# --- what a job has saved ----------------------------------------------------------------------------------


def saved(job: str, *hooks: str) -> Harm:
    """A job saved something wrong, and knows nothing of it; afterwards all is saved anew."""

    @contextmanager
    def harm(shop: DrillShop) -> Iterator[None]:
        done = shop.hooked(hooks, job)
        assert done.status == 0, done.output
        try:
            yield
        finally:
            shop.settle()

    return harm


DUMP = """
import subprocess
from pi_backup import postgres
dump = postgres.Server.dump
def harmed(self, folder):
    counted = dump(self, folder)
    harm(self, folder)
    return counted
def again(server, folder, *words):
    command = ["docker", "exec", server.container, "pg_dump", "-U", "postgres", "-Fc", "--compress=0", *words, "shop"]
    (folder / "shop.dump").write_bytes(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
postgres.Server.dump = harmed
"""
CUT_DUMP = f"""{DUMP}
def harm(server, folder):
    path = folder / "shop.dump"
    path.write_bytes(path.read_bytes()[:-2000])
"""
SWAPPED = f"""{DUMP}
def harm(server, folder):
    one, other = (folder / name for name in ("shop.dump", "extra.dump"))
    content = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(content)
"""
EMPTIED_TABLE = f"""{DUMP}
def harm(server, folder):
    again(server, folder, "--exclude-table-data=prices")
"""
SET_BACK = f"""{DUMP}
def harm(server, folder):
    server.sql("SELECT setval('prices_id_seq', 1)", "shop")
    again(server, folder)
    server.sql("SELECT setval('prices_id_seq', (SELECT max(id) FROM prices))", "shop")
"""
NO_ROLES = f"""{DUMP}
def harm(server, folder):
    (folder / "globals.sql").write_text("CREATE ROLE shop; SELEC 1;")
"""
BASE = """
from pathlib import Path
from pi_backup import postgres
take = postgres.Server.take_base
def harmed(self):
    taken = take(self)
    path = max((self.spool / "base/base").rglob("*"), key=lambda path: path.stat().st_size if path.is_file() else 0)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    return taken
postgres.Server.take_base = harmed
"""
LOST_BASE_FILE = BASE.replace("path.write_bytes(content)", "path.unlink()")
BACKUP = """
import json
from pi_backup import engine, files
backup = engine.Repository.backup
def harmed(self, paths, tags, excluded=()):
    harm(paths[0])
    return backup(self, paths, tags, excluded)
engine.Repository.backup = harmed
"""
NO_MANIFEST = f"""{BACKUP}
def harm(stage):
    (stage / "manifest.json").unlink(missing_ok=True)
"""
OLD_MANIFEST = f"""{BACKUP}
def harm(stage):
    manifest = files.read_json(stage / "manifest.json")
    manifest["started"] -= 86400
    files.write_json(stage / "manifest.json", manifest)
"""
OTHER_MANIFEST = f"""{BACKUP}
def harm(stage):
    manifest = files.read_json(stage / "manifest.json")
    manifest["points"]["postgres_data"] -= 300
    files.write_json(stage / "manifest.json", manifest)
"""
CHANGED_STAGED = f"""{BACKUP}
def harm(stage):
    (stage / "host/packages.txt").write_text("none")
"""
CUT_RDB = """
from pi_backup import redis
save = redis.save
def harmed(plan, store, folder):
    counted = save(plan, store, folder)
    path = folder / redis.DUMP
    path.write_bytes(path.read_bytes()[:-20])
    return counted
redis.save = harmed
"""
LOST_KEYS = CUT_RDB.replace("return counted", "return counted[0] + 3, counted[1]").replace("[:-20]", "")
LOG = """
from pi_backup import jobs, postgres
log = jobs.Run.log
def harmed(self, store):
    log(self, store)
    wal = postgres.Server(self.plan, store).wal
    chain = jobs.files.read_json(self.plan.folder / "state/chain.json")
    harm(sorted(path for path in wal.glob("0*.gz") if len(path.name) == 27 and path.name >= chain["segment"]))
jobs.Run.log = harmed
"""
LOST_SEGMENT = f"""{LOG}
def harm(segments):
    segments[1].unlink()
"""
CUT_SEGMENT = f"""{LOG}
def harm(segments):
    segments[1].write_bytes(segments[1].read_bytes()[:-100])
"""
LOST_LAST_SEGMENT = f"""{LOG}
def harm(segments):
    segments[-1].unlink()
"""
CANARY = """
from pi_backup import docker
from pi_backup.drill import canaries
plant = canaries.plant
def harmed(plan, store, canary):
    plant(plan, store, canary)
    if store.kind == KIND:
        harm(plan, store, canary["token"])
canaries.plant = harmed
"""
ROW_CHANGED = f"""{CANARY}
KIND = "postgres"
def harm(plan, store, token):
    text = f"UPDATE pi_commerce.canary SET database = 'shop ' WHERE token = '{{token}}'"
    canaries.Server(plan, store).sql(text, "shop")
"""
KEY_CHANGED = f"""{CANARY}
KIND = "redis"
def harm(plan, store, token):
    docker.inside(docker.container_of(plan, "redis"), ["valkey-cli"], text=f"SET {{canaries.KEY}} {{token}}0\\n")
"""
FILE_CHANGED = f"""{CANARY}
KIND = "volume"
def harm(plan, store, token):
    canaries.file_of(docker.volume_path(plan, store.volume), token).write_text(token[:-1])
"""
STAGE = """
from pi_backup import volumes
stage = volumes.stage
def harmed(volume, folder):
    return [*stage(volume, folder), *harm(volume, folder)]
volumes.stage = harmed
"""
EMPTY_VOLUME = f"""{STAGE}
def harm(volume, folder):
    return [f"{{volume}}/file*", f"{{volume}}/app"]
"""
BROKEN_SQLITE = f"""{STAGE}
def harm(volume, folder):
    path = folder / "app/shop.db"
    content = path.read_bytes()
    path.write_bytes(content[:4096] + bytes([255]) * 4096 + content[8192:])
    return []
"""
NO_SQLITE = f"""{STAGE}
def harm(volume, folder):
    (folder / "app/shop.db").write_bytes(b"")
    return []
"""
SEAL = """
from dataclasses import replace
from pi_backup import host
seal = host.seal
def harmed(plan, path):
    harm(plan, path)
host.seal = harmed
"""
PLAIN_BUNDLE = f"""{SEAL}
def harm(plan, path):
    path.write_bytes(b"all my secrets")
"""
POOR_BUNDLE = f"""{SEAL}
def harm(plan, path):
    seal(replace(plan, sealed=("/etc/hostname",)), path)
"""
OTHER_SECRETS = f"""{SEAL}
import os, time
def harm(plan, path):
    file = plan.secrets_folder / "far_access"
    kept, times = file.read_text(), file.stat()
    file.write_text("another")
    seal(plan, path)
    file.write_text(kept)
    os.utime(file, (times.st_atime, times.st_mtime))
"""


@contextmanager
def shrunk(shop: DrillShop) -> Iterator[None]:
    """Most of a volume's files are gone since the last drill, and that was saved truly."""
    shop.shell(
        "mkdir /data/hoard; for n in $(seq 60); do head -c 40000 /dev/urandom > /data/hoard/$n; done", shop.files
    )
    shop.must("ship")
    assert shop.drill().status == 0
    shop.shell("rm -r /data/hoard", shop.files)
    shop.must("ship")
    yield


# --- the machine that drills -------------------------------------------------------------------------------


def later(hours: float) -> str:
    """The drill's clock is ahead: nothing was saved for so long."""
    return f"import time\nnow = time.time\ntime.time = lambda: now() + {hours * 3600}"


@contextmanager
def little_room(shop: DrillShop) -> Iterator[None]:
    """There are only 24 MiB left for a drill."""
    shop.shell(f"rm -rf {FOLDER}/drill; mkdir -p {SMALL}/drill; ln -s {SMALL}/drill {FOLDER}/drill")
    try:
        yield
    finally:
        shop.shell(f"rm -rf {FOLDER}/drill {SMALL}/*")


@contextmanager
def no_room(shop: DrillShop) -> Iterator[None]:
    """There is nothing left, and nobody had foreseen it."""
    with little_room(shop):
        shop.shell(f"head -c 24000000 /dev/zero > {SMALL}/filler; head -c 2000000 /dev/zero >> {SMALL}/filler; true")
        yield


@contextmanager
def without_image(shop: DrillShop) -> Iterator[None]:
    """A service was taken away, its image too."""
    found = shop.plan()
    found["services"][1]["image"] = "pi-commerce/valkey:never-built"
    shop.write(PLAN, json.dumps(found))
    name = f"{shop.project}-redis-1"
    shop.redis.rename(f"{shop.project}-redis-away")
    try:
        yield
    finally:
        shop.redis.rename(name)
        shop.write_plan()


STALE_WAL = """
from pi_backup import volumes
lay_out = volumes.lay_out
def harmed(folder, volume):
    lay_out(folder, volume)
    (volume / "app/shop.db-wal").write_bytes(b"of another moment")
volumes.lay_out = harmed
"""
ZEROED_TAIL = """
from pi_backup import redis
prepare = redis.prepare
def harmed(plan, service, dump, data):
    prepare(plan, service, dump, data)
    [log] = (data / "appendonlydir").glob("*.incr.aof")
    with log.open("ab") as file:
        file.write(bytes(512))
redis.prepare = harmed
"""
NO_TABLES = """
from pi_backup.drill import source
source.files.require_room = lambda *words: None
"""
NO_IMPATIENCE = """
from pi_backup.drill import source
source.ANSWER_SECONDS = 5
"""

# The other tests may take as long as they do.
PROMISED, PATIENT = {"window_minutes": 15}, {"window_minutes": 600}
FAULTS = [
    Fault(
        "bit flipped in a pack", FAILED, r"(structure|night|base|files \w+): .*far", pack(FLIP), settings={"parts": 1}
    ),
    Fault("pack cut short", FAILED, r"structure: .*far", pack("truncate -s -1000 $file")),
    Fault("pack gone", FAILED, r"structure: .*far", pack("rm -f $file")),
    Fault("index gone", FAILED, r"structure: .*far", stored("index", "rm -f $file")),
    Fault("repository's settings damaged", FAILED, r"repository: .*far", stored("config", FLIP)),
    Fault("all nights gone", FAILED, r"night: there is no snapshot of the job nightly", without_nights),
    Fault("another, empty disk", FAILED, r"repository: .*holds no repository", emptied),
    Fault(
        "wrong repository key",
        FAILED,
        r"repository: .*is not opened by the password",
        secret("backup_far_password", "no"),
        quick=True,
    ),
    Fault(
        "repository cannot be reached", UNKNOWN, r"repository: .*does not answer", away, hook=NO_IMPATIENCE, quick=True
    ),
    Fault("repository hangs", UNKNOWN, r"repository: .*does not answer", hanging, hook=NO_IMPATIENCE),
    Fault(
        "snapshots of another machine",
        FAILED,
        r"holds no snapshot of other-pi; there are snapshots of shop-pi",
        planned(host="other-pi"),
    ),
    Fault("snapshot from the future", FAILED, r"snapshots: 1 snapshots claim to be from the future", ahead),
    Fault(
        "nothing saved for an hour",
        FAILED,
        r"freshness: .*postgres_data is \d\d+ minutes old",
        hook=later(1),
        settings=PROMISED,
    ),
    Fault("nothing saved for two nights", FAILED, r"the night's copies are (4[89]|50) hours old", hook=later(48)),
    Fault("dump cut short", FAILED, r"dumps: .*pg_restore", saved("nightly", CUT_DUMP)),
    Fault("databases swapped", FAILED, r"dumps: .*public.(orders|prices|stock)", saved("nightly", SWAPPED)),
    Fault(
        "table emptied behind the manifest",
        FAILED,
        r"dumps: .*public.prices \(0 rows instead of \d+\)",
        saved("nightly", EMPTIED_TABLE),
    ),
    Fault("sequence set back", FAILED, r"sequences: .*shop: prices_id_seq", saved("nightly", SET_BACK)),
    Fault("roles cannot be loaded", FAILED, r"dumps: .*syntax error", saved("nightly", NO_ROLES)),
    Fault("base changed", FAILED, r"base: .*pg_verifybackup", saved("nightly", BASE)),
    Fault("file of the base lost", FAILED, r"base: .*pg_verifybackup", saved("nightly", LOST_BASE_FILE)),
    Fault("no manifest", FAILED, r"night: .*holds no manifest", saved("nightly", NO_MANIFEST)),
    Fault(
        "manifest of another night", FAILED, r"night: .*its manifest is of another run", saved("nightly", OLD_MANIFEST)
    ),
    Fault("manifest of another ship", FAILED, r"ship: .*its manifest is of another run", saved("ship", OTHER_MANIFEST)),
    Fault(
        "staged file changed",
        FAILED,
        r"night: .*host/packages.txt are not as its manifest says",
        saved("nightly", CHANGED_STAGED),
    ),
    Fault("segment of the log lost", FAILED, r"log: .*the log has a hole", saved("ship", LOST_SEGMENT)),
    Fault("segment of the log cut short", FAILED, r"log: .*is damaged", saved("ship", CUT_SEGMENT)),
    Fault(
        "last segment lost",
        FAILED,
        r"canaries: .*the canary of the last run is not in it",
        saved("ship", LOST_LAST_SEGMENT),
    ),
    Fault("canary in a database changed", FAILED, r"canaries: database shop: the canary", saved("ship", ROW_CHANGED)),
    Fault("canary in Redis changed", FAILED, r"redis redis_data: .*the canary is", saved("ship", KEY_CHANGED)),
    Fault(
        "canary in a volume changed",
        FAILED,
        r"files files_data: .*the canary is",
        saved("ship", FILE_CHANGED),
    ),
    Fault("dump of Redis cut short", FAILED, r"redis redis_data: .*valkey-check-rdb", saved("ship", CUT_RDB)),
    Fault("keys lost", FAILED, r"redis redis_data: .*the dump holds", saved("ship", LOST_KEYS)),
    Fault("zeros at the end of the restored log", FAILED, r"does not start from its append-only log", hook=ZEROED_TAIL),
    Fault(
        "volume saved empty",
        FAILED,
        r"files files_data: .*holds 1 files instead of \d+, .* when it was saved",
        saved("ship", EMPTY_VOLUME),
    ),
    Fault(
        "volume emptied since the last drill",
        FAILED,
        r"files files_data: .*holds \d+ files instead of \d+.* in the last drill",
        shrunk,
    ),
    Fault("SQLite database damaged", FAILED, r"sqlite files_data: .*shop.db is damaged", saved("ship", BROKEN_SQLITE)),
    Fault(
        "SQLite database gone", FAILED, r"sqlite files_data: .*app/shop.db did not come back", saved("ship", NO_SQLITE)
    ),
    Fault(
        "log of another moment beside SQLite",
        FAILED,
        r"sqlite files_data: .*shop.db-wal of another moment",
        hook=STALE_WAL,
    ),
    Fault("secrets bundle not encrypted", FAILED, r"bundle sealed: .*encrypted for 0", saved("nightly", PLAIN_BUNDLE)),
    Fault("secrets bundle for another", FAILED, r"bundle opens: .*does not open", key="/root/stranger"),
    Fault(
        "secrets bundle without the secrets",
        FAILED,
        r"bundle opens: .* is not in the secrets bundle",
        saved("nightly", POOR_BUNDLE),
        key="/root/operator",
    ),
    Fault(
        "secrets bundle with other secrets",
        FAILED,
        r"bundle opens: .*another content of .*/far_access",
        saved("nightly", OTHER_SECRETS),
        key="/root/operator",
    ),
    Fault("disk too small for a drill", UNKNOWN, r"room: .*make room", little_room, quick=True),
    Fault("disk full meanwhile", UNKNOWN, r"no space left on device", no_room, hook=NO_TABLES),
    Fault("image gone", UNKNOWN, r"images: .*never-built", without_image),
    Fault("no time", UNKNOWN, r"time", settings={"budget_minutes": 0.1}),
]
