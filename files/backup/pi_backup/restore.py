"""Bringing data back: what would be done, doing it, and completing or undoing it.

Everything is prepared beside the live data first; then services stop, folders change places, services start. A journal
says which moves are done, so that a run that was cut off is completed by the next. What was replaced is kept.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from . import choose, databases, docker, files, redis, volumes
from .drill import canaries
from .engine import Repository, Snapshot
from .errors import BackupError, Refused
from .locks import all_locked
from .plan import Plan, Service, Store
from .postgres import Server, check_wal, recovered

LOCK_SECONDS = 900


@dataclass(frozen=True)
class Step:
    """One store to bring back. `names` are single databases; empty: the whole store. `reached` is its moment."""

    service: Service
    store: Store
    names: tuple[str, ...]
    snapshot: Snapshot
    recovery: choose.Recovery | None
    reached: float

    @property
    def what(self) -> str:
        """How a person calls it."""
        return f"database {', '.join(self.names)}" if self.names else f"{self.store.kind} {self.store.volume}"


@dataclass(frozen=True)
class Intent:
    """What will be done."""

    plan: Plan
    title: str
    at: float | None
    repository: Repository
    steps: tuple[Step, ...]
    stopped: tuple[str, ...]
    replaced: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def confirmation(self) -> str:
        """What has to be typed where data would be replaced by older data."""
        return f"replace {self.title} with {'newest' if self.at is None else choose.shown(self.at)}"

    def lines(self) -> list[str]:
        """The plan for a person."""
        found = [f"from repository {self.repository.name} ({self.repository.shown}):", *self.notes]
        found += [f"  {step.what}: as of {choose.shown(step.reached)}" for step in self.steps]
        found.append(f"stopped meanwhile: {', '.join(self.stopped) or 'nothing'}")
        found.append(f"replaced, and kept until `discard`: {', '.join(self.replaced) or 'nothing, there is no data'}")
        return found


def journal(plan: Plan) -> Path:
    """Where a restore under way keeps its moves."""
    return plan.folder / "state/restore.json"


def kept_file(plan: Plan) -> Path:
    """Where is noted what was replaced."""
    return plan.folder / "state/kept.json"


# --- what would be done ------------------------------------------------------------------------------------


def intend(plan: Plan, service: str, at_text: str, source: str = "", now: float | None = None) -> Intent:
    """The plan for one service, or for `all`. Raises Refused or BackupError; touches nothing."""
    now = time.time() if now is None else now
    at = choose.moment_of(at_text, now)
    chosen = plan.services if service == "all" else (plan.service(service),)
    repository, snapshots, notes = _readable(plan, source, now)
    steps = []
    for entry in chosen:
        steps += [_step(entry, store, (), snapshots, at) for store in entry.stores]
        postgres = plan.postgres()
        if entry.databases and service != "all" and postgres and postgres.service != entry.name:
            owner = plan.service(postgres.service)
            steps.append(_step(owner, postgres, entry.databases, snapshots, at))
    if not steps:
        raise Refused(f"{service} holds no data of its own; there is nothing to restore")
    for step in steps:
        if at is not None and step.recovery and step.reached < at:
            notes.append(f"  the log of {step.store.name} ends before that moment")
    return Intent(
        plan=plan,
        title=service,
        at=at,
        repository=repository,
        steps=tuple(steps),
        stopped=stopped(plan, steps, service),
        replaced=tuple(step.what for step in steps if _is_live(plan, step)),
        notes=tuple(notes),
    )


def _readable(plan: Plan, source: str, now: float) -> tuple[Repository, list[Snapshot], list[str]]:
    """The repository `source`, or the first that answers and has snapshots of this machine."""
    notes: list[str] = []
    problems: list[str] = []
    for name in [source] if source else plan.targets:
        repository = Repository(plan, name)
        try:
            return repository, choose.usable(repository.snapshots(), plan.host, now), notes
        except BackupError as error:
            text = str(error)
            problems.append(
                text if text.startswith("repository ") else f"repository {name} ({repository.shown}) {text}"
            )
            notes.append(f"  not used: {problems[-1]}")
    raise Refused("; ".join(problems))


def _step(
    service: Service, store: Store, names: tuple[str, ...], snapshots: Sequence[Snapshot], at: float | None
) -> Step:
    if store.kind == "postgres":
        found = choose.recovery(snapshots, store.name, at)
        return Step(service, store, names, found.base, found, found.reached)
    snapshot = choose.holding(snapshots, store.name, at)
    return Step(service, store, names, snapshot, None, snapshot.moment(store.name))


def stopped(plan: Plan, steps: Sequence[Step], title: str) -> tuple[str, ...]:
    """The services that have to stand still: whose volumes move, and all that cannot run without them."""
    still = {step.service.name for step in steps if not step.names}
    if title != "all":
        still.add(title)
    for service in plan.services:
        if still.intersection(service.needs):
            still.add(service.name)
    return tuple(service.name for service in plan.services if service.name in still)


def _is_live(plan: Plan, step: Step) -> bool:
    """Whether there is something that would be replaced."""
    if docker.inspected("volume", f"{plan.project}_{step.store.volume}") is None:
        return False
    return any(docker.volume_path(plan, step.store.volume).iterdir())


# --- doing it ----------------------------------------------------------------------------------------------


@contextmanager
def alone(plan: Plan) -> Iterator[None]:
    """No job runs meanwhile. Raises Busy."""
    with all_locked(plan.folder, ["nightly", "ship", *plan.places], LOCK_SECONDS):
        yield


def carry_out(intent: Intent, confirmed: str, say: Callable[[str], None]) -> str:
    """Do it; return the name under which the replaced state is kept. Raises Refused, Busy or BackupError."""
    plan = intent.plan
    if intent.replaced and confirmed != intent.confirmation:
        raise Refused(f'this replaces newer data. If that is what you want, type: "{intent.confirmation}"')
    with alone(plan):
        if journal(plan).exists():
            raise Refused("an earlier restore was cut off: `pi-commerce-backup restore --resume` first")
        docker.sweep(plan)
        name = time.strftime("%Y%m%dt%H%M%S", time.gmtime())
        moves: list[dict[str, str]] = []
        swaps: list[str] = []
        for step in intent.steps:
            say(f"preparing {step.what}")
            if step.names:
                swaps += _prepare_databases(intent, step, name, say)
            else:
                moves += _prepare_volume(intent, step, name, say)
        document = {
            "name": name,
            "title": intent.title,
            "at": intent.at,
            "stopped": list(intent.stopped),
            "moves": moves,
            "databases": swaps,
            "phase": "stop",
        }
        files.write_json(journal(plan), document)
        _complete(plan, document, say)
    return name


def resume(plan: Plan, say: Callable[[str], None]) -> str:
    """Complete a restore that was cut off after its data was prepared. Raises Refused where there is none."""
    with alone(plan):
        document = files.read_json(journal(plan))
        if not document:
            raise Refused("no restore was cut off")
        _complete(plan, document, say)
    return str(document["name"])


def _complete(plan: Plan, document: dict[str, Any], say: Callable[[str], None]) -> None:
    """Go through the phases from where the journal stands."""
    for service in reversed(document["stopped"]):
        say(f"stopping {service}")
        docker.stop(docker.container_of(plan, service))
    for move in document["moves"]:
        for phase, source, target in (("keep", "live", "kept"), ("place", "prepared", "live")):
            if move["phase"] == phase:
                volumes.move(Path(move[source]), Path(move[target]))
                move["phase"] = "place" if phase == "keep" else "done"
                files.write_json(journal(plan), document)
    postgres = plan.postgres()
    if document["databases"] and postgres:
        databases.swap(Server(plan, postgres), document["databases"], document["name"])
    if any(move["kind"] == "postgres" for move in document["moves"]):
        # The restored server goes on in a history of its own; the next run begins with a base.
        (plan.folder / "state/chain.json").unlink(missing_ok=True)
    canaries.forget(plan)
    kept = files.read_json(kept_file(plan))
    kept[document["name"]] = {
        "title": document["title"],
        "at": document["at"],
        "moves": [{key: move[key] for key in ("volume", "kept_volume")} for move in document["moves"]],
        "databases": document["databases"],
    }
    files.write_json(kept_file(plan), kept)
    journal(plan).unlink()
    docker.sweep(plan)
    for service in document["stopped"]:
        say(f"starting {service}")
        docker.start(docker.container_of(plan, service))


def _move(plan: Plan, volume: str, prepared: Path, name: str, kind: str) -> dict[str, str]:
    """A move of the journal; the volume that keeps the replaced state is there already."""
    live, kept = docker.make_volume(plan, volume), docker.make_volume(plan, f"{volume}_before_{name}")
    for path in (prepared, kept):
        if path.stat().st_dev != live.stat().st_dev:
            raise BackupError(f"{path} and {live} are on different file systems; folders cannot change places")
    return {
        "volume": volume,
        "kept_volume": f"{volume}_before_{name}",
        "kind": kind,
        "live": str(live),
        "prepared": str(prepared),
        "kept": str(kept),
        "phase": "keep",
    }


@lru_cache(maxsize=8)
def manifest_of(repository: Repository, snapshot: Snapshot) -> dict[str, Any]:
    """What a snapshot says of itself, fetched once in a run. Raises BackupError."""
    stage = snapshot.path(snapshot.kind)
    found: dict[str, Any] = json.loads(repository.read(snapshot, f"{stage}/manifest.json"))
    return found


def fetch_staged(repository: Repository, snapshot: Snapshot, part: str, target: Path) -> None:
    """Lay a part of the staging area out in `target`, each file as the manifest says. Raises BackupError."""
    wanted = {
        path[len(part) + 1 :]: digest
        for path, digest in manifest_of(repository, snapshot)["files"].items()
        if path.startswith(f"{part}/")
    }
    repository.fetch(snapshot, f"{snapshot.path(snapshot.kind)}/{part}", target)
    found = files.digests(target)
    wrong = sorted(path for path in {**wanted, **found} if wanted.get(path) != found.get(path))
    if wrong:
        raise BackupError(f"repository {repository.name}: {', '.join(wrong)} of {part} are not as they were saved")


def _prepare_volume(intent: Intent, step: Step, name: str, say: Callable[[str], None]) -> list[dict[str, str]]:
    """Lay a store out in a volume of its own; the moves that put it in place."""
    plan, repository, store = intent.plan, intent.repository, step.store
    data = docker.scratch_volume(plan, store.volume, step.service)
    if step.recovery:
        with _server(intent, step, data, say):
            pass
        spool = docker.scratch_volume(plan, store.spool, step.service)
        return [
            _move(plan, store.volume, data, name, "postgres"),
            _move(plan, store.spool, spool, name, "spool"),
        ]
    if store.kind == "redis":
        dumped = files.fresh(plan.folder / "staging/restore")
        fetch_staged(repository, step.snapshot, f"redis/{store.volume}", dumped)
        redis.prepare(plan, step.service, dumped / redis.DUMP, data)
    else:
        manifest = manifest_of(repository, step.snapshot)
        repository.fetch(step.snapshot, manifest["volumes"][store.volume]["path"], data)
        part = f"sqlite/{store.volume}"
        if any(path.startswith(f"{part}/") for path in manifest["files"]):
            staged = files.fresh(plan.folder / "staging/restore")
            fetch_staged(repository, step.snapshot, part, staged)
            volumes.lay_out(staged, data)
    return [_move(plan, store.volume, data, name, store.kind)]


@contextmanager
def _server(intent: Intent, step: Step, data: Path, say: Callable[[str], None]) -> Iterator[Server]:
    """PostgreSQL as it was, running beside the live one."""
    plan, repository, found = intent.plan, intent.repository, step.recovery
    if found is None:
        raise BackupError(f"{step.store.name} is no PostgreSQL")
    manifest = manifest_of(repository, found.base)
    files.require_room(data, 2 * manifest["base"]["bytes"] // files.MIB, f"restoring {step.store.name}")
    repository.fetch(found.base, found.base.path("base"), data)
    wal = docker.scratch_volume(plan, "wal", step.service)
    if found.log:
        repository.fetch(found.log, found.log.path("wal"), wal)
        check_wal(wal, manifest["base"]["segment"])
    say(f"replaying {step.what}")
    with recovered(plan, step.service, step.store, data, wal, found.until) as server:
        yield server


def _prepare_databases(intent: Intent, step: Step, name: str, say: Callable[[str], None]) -> list[str]:
    """Load single databases, as they were, beside those in use; their names."""
    live = Server(intent.plan, step.store)
    data = docker.scratch_volume(intent.plan, step.store.volume, step.service)
    with _server(intent, step, data, say) as server:
        for database in step.names:
            databases.load(server, live, database, files.fresh(intent.plan.folder / "staging/restore"))
    return list(step.names)


# --- afterwards --------------------------------------------------------------------------------------------


def discard(plan: Plan, name: str) -> None:
    """Remove for good what a restore has replaced. Raises Refused for an unknown name."""
    with alone(plan):
        kept = files.read_json(kept_file(plan))
        if name not in kept:
            raise Refused(f"nothing is kept under {name!r}; there are: {', '.join(kept) or 'none'}")
        entry = kept.pop(name)
        for move in entry["moves"]:
            docker.docker("volume", "rm", "--force", f"{plan.project}_{move['kept_volume']}")
        postgres = plan.postgres()
        if entry["databases"] and postgres:
            databases.drop(Server(plan, postgres), entry["databases"], name)
        files.write_json(kept_file(plan), kept)


def undo(plan: Plan, name: str, say: Callable[[str], None]) -> str:
    """Put back what a restore has replaced; the restored state is kept instead, under the name returned."""
    with alone(plan):
        kept = files.read_json(kept_file(plan))
        if name not in kept or journal(plan).exists():
            raise Refused(f"nothing can be put back under {name!r}; there are: {', '.join(kept) or 'none'}")
        entry = kept[name]
        now = time.strftime("%Y%m%dt%H%M%S", time.gmtime())
        moves = [
            _move(plan, move["volume"], docker.volume_path(plan, move["kept_volume"]), now, "postgres")
            for move in entry["moves"]
        ]
        still = {service.name for service in plan.services if _touches(plan, service, entry)}
        for service in plan.services:
            if still.intersection(service.needs) and entry["moves"]:
                still.add(service.name)
        postgres = plan.postgres()
        if entry["databases"] and postgres:
            databases.unkeep(Server(plan, postgres), entry["databases"], name)
        document = {
            "name": now,
            "title": f"undo {name}",
            "at": None,
            "stopped": [service.name for service in plan.services if service.name in still],
            "moves": moves,
            "databases": entry["databases"],
            "phase": "stop",
        }
        files.write_json(journal(plan), document)
        _complete(plan, document, say)
        kept = files.read_json(kept_file(plan))
        for move in kept.pop(name)["moves"]:
            docker.docker("volume", "rm", "--force", f"{plan.project}_{move['kept_volume']}")
        files.write_json(kept_file(plan), kept)
    return now


def _touches(plan: Plan, service: Service, entry: dict[str, Any]) -> bool:
    moved = {move["volume"] for move in entry["moves"]}
    own = {store.volume for store in service.stores} | {store.spool for store in service.stores}
    return bool(own & moved) or bool(set(service.databases) & set(entry["databases"]))
