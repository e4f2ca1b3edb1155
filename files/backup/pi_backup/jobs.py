"""The two jobs: `ship` every few minutes, `nightly` with everything."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from . import files, host, n8n, redis, state, volumes
from .docker import volume_path
from .drill import canaries
from .engine import Repository
from .errors import BackupError, Refused
from .locks import locked
from .plan import Plan, Store
from .postgres import Server

# A repository that was away is owed a base; one that comes and goes does not get one each time.
OWED_SECONDS = 3600
LAYOUT = 1


class Run:
    """One run of one job: what it has staged, and what went wrong meanwhile.

    A part that fails is reported and left out; the others are kept all the same.
    """

    def __init__(self, plan: Plan, kind: str) -> None:
        """Empty the staging folder of the job `kind`."""
        self.plan, self.kind = plan, kind
        self.started = time.time()
        self.stage = files.fresh(plan.folder / "staging" / kind)
        self.paths: list[Path] = [self.stage]
        self.excluded: list[str] = []
        self.points: dict[str, float] = {}
        self.manifest: dict[str, Any] = {
            "layout": LAYOUT,
            "kind": kind,
            "host": plan.host,
            "started": self.started,
            "volumes": {},
            "keys": {},
        }
        self.problems: list[str] = []

    def attempt(self, what: str, part: Callable[[], None]) -> None:
        """Do a part; what is wrong with it does not keep the others from being done."""
        try:
            part()
        except (BackupError, OSError) as error:
            self.problems.append(f"{what}: {error}")

    def folder(self, name: str) -> Path:
        """A new folder in the staging area."""
        path = self.stage / name
        path.mkdir(mode=0o700, parents=True)
        return path

    def volume(self, store: Store) -> None:
        """A volume's files, as they are now."""
        path = volume_path(self.plan, store.volume)
        self.excluded += volumes.stage(path, self.folder(f"sqlite/{store.volume}"))
        measured = {**files.measure(path), **canaries.inspect(path)}
        self.manifest["volumes"][store.volume] = {"path": str(path), **measured}
        self.paths.append(path)
        self.points[store.name] = self.started

    def redis(self, store: Store) -> None:
        """A dump of this moment."""
        moment = time.time()
        keys = redis.save(self.plan, store, self.folder(f"redis/{store.volume}"))
        self.manifest["keys"][store.volume] = list(keys)
        self.points[store.name] = moment

    def log(self, store: Store) -> None:
        """PostgreSQL's log up to now."""
        server = Server(self.plan, store)
        moment = server.switch()
        chain = files.read_json(self.plan.folder / "state/chain.json")
        newest = max(path.name for path in server.wal.glob("0*.gz"))
        if chain and newest[:8] != chain["segment"][:8]:
            raise BackupError(f"{server.container} was restored since the last base: the next one begins a new chain")
        self.paths.append(server.wal)
        self.excluded.append(str(server.wal / ".part"))
        self.manifest["wal"] = {"path": str(server.wal), "base": chain.get("base"), "point": moment}
        if chain:
            self.points[store.name] = moment

    def canaries(self) -> None:
        """A token in every store, for a drill to find."""
        self.manifest["canary"] = canaries.begin(self.plan)
        for store in self.plan.stores:
            part = partial(canaries.plant, self.plan, store, self.manifest["canary"])
            self.attempt(f"{store.name} canary", part)

    def quick(self) -> None:
        """What both jobs save."""
        for store in self.plan.stores:
            if store.kind == "redis":
                self.attempt(store.name, lambda store=store: self.redis(store))  # type: ignore[misc]
            elif store.kind in ("volume", "n8n"):
                self.attempt(store.name, lambda store=store: self.volume(store))  # type: ignore[misc]

    def upload(self, tags: Sequence[str], remember: Callable[[Repository], None]) -> list[str]:
        """Save everything staged in every repository; the names of those that have it."""
        stores = [f"store={name}" for name in self.points]
        self.manifest["files"] = files.digests(self.stage)
        files.write_json(self.stage / "manifest.json", self.manifest)
        done = []
        for name in self.plan.targets:
            repository = Repository(self.plan, name)

            def save(repository: Repository = repository) -> None:
                repository.ensure()
                repository.backup(self.paths, [self.kind, *tags, *stores], self.excluded)
                remember(repository)
                done.append(repository.name)

            self.attempt(f"repository {name}", save)
        return done

    def end(self) -> list[str]:
        """Note how it went, and return the problems."""
        state.record(self.plan, self.kind, self.problems, self.started)
        return self.problems


def later(known: Mapping[str, float], news: Mapping[str, float]) -> dict[str, float]:
    """The later moment of each store: a long night may end after a ship that began meanwhile."""
    return {name: max(known.get(name, 0), news.get(name, 0)) for name in {**known, **news}}


def refuse_unfinished(plan: Plan) -> None:
    """Half-restored data is saved by nobody. Raises Refused."""
    if (plan.folder / "state/restore.json").exists():
        raise Refused("a restore was cut off and its data is in no order: `pi-commerce-backup restore --resume` first")


def ship(plan: Plan) -> list[str]:
    """Save what changes all the time; then a base where one is due. The problems. Raises Busy."""
    with locked(plan.folder, "ship"):
        refuse_unfinished(plan)
        run = Run(plan, "ship")
        run.canaries()
        store = plan.postgres()
        if store:
            run.attempt(store.name, lambda: run.log(store))
        run.quick()
        base = str(run.manifest.get("wal", {}).get("base") or "none")

        def remember(repository: Repository) -> None:
            known = repository.state
            points = later(known.get("points", {}), run.points)
            if store and known.get("base") != base:
                # Log without the base it goes on from restores nothing.
                points.pop(store.name, None)
            repository.remember(points=points, shipped=run.started)

        point = f"point={run.points.get(store.name, 0):.6f}" if store else "point=0"
        run.upload([f"base={base}", point], remember)
        problems = run.end()
    if store and base_due(plan, store):
        problems = problems + nightly(plan)
    return problems


def base_due(plan: Plan, store: Store) -> bool:
    """Whether point-in-time recovery needs a new base before the night."""
    chain = files.read_json(plan.folder / "state/chain.json")
    job = files.read_json(plan.folder / "state/jobs.json").get("nightly", {})
    if time.time() - job.get("started", 0) < OWED_SECONDS and job.get("problems"):
        return False
    server = Server(plan, store)
    if not chain or server.gap.exists() or server.spooled_mib() > plan.spool_mib // 2:
        return True
    newest = max((path.name for path in server.wal.glob("0*.gz")), default="")
    if newest and newest[:8] != chain["segment"][:8]:
        return True
    owed = [name for name in plan.targets if _owed(Repository(plan, name), chain["base"])]
    return bool(owed) and time.time() - job.get("started", 0) > OWED_SECONDS


def _owed(repository: Repository, base: str) -> bool:
    """Whether a repository that can be reached has another base than the log goes on from."""
    known = repository.state
    reached = time.time() - known.get("shipped", 0) < OWED_SECONDS
    return reached and known.get("base") != base


def nightly(plan: Plan) -> list[str]:
    """Save everything, and begin a new chain of log. The problems. Raises Busy."""
    with locked(plan.folder, "nightly"):
        refuse_unfinished(plan)
        run = Run(plan, "nightly")
        store = plan.postgres()
        base = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(run.started))
        run.canaries()
        for other in plan.stores:
            if other.kind == "n8n":
                run.attempt(f"{other.service} canary", partial(canaries.plant_n8n, plan, other, run.manifest["canary"]))
        if store:
            run.attempt(store.name, lambda: _dump(run, store, base))
        run.quick()
        for other in plan.stores:
            if other.kind == "n8n":
                run.attempt(f"{other.service} export", lambda: _export(run, other))  # noqa: B023 - called at once
        run.attempt("host", lambda: _host(run))

        def remember(repository: Repository) -> None:
            repository.remember(points=later(repository.state.get("points", {}), run.points))

        done = run.upload([f"base={base}", f"point={run.points.get(store.name, 0) if store else 0:.6f}"], remember)
        if store and "base" in run.manifest and done:
            run.attempt(store.name, lambda: _begin_chain(run, store, base, done))
        if store:
            run.attempt(store.name, Server(plan, store).drop_base)
        shutil.rmtree(run.stage)
        return run.end()


def _dump(run: Run, store: Store, base: str) -> None:
    server = Server(run.plan, store)
    tables = server.dump(run.folder("postgres"))
    run.manifest["databases"] = tables
    taken = server.take_base()
    run.manifest["base"] = {"id": base, "segment": taken["segment"], "path": taken["folder"], "ended": time.time()}
    run.manifest["base"].update(files.measure(Path(taken["folder"])))
    run.paths.append(Path(taken["folder"]))
    run.points[store.name] = run.manifest["base"]["ended"]


def _export(run: Run, store: Store) -> None:
    run.manifest["n8n"] = n8n.export(run.plan, store, run.folder("n8n"))


def _host(run: Run) -> None:
    folder = run.folder("host")
    host.describe(run.plan, folder)
    host.seal(run.plan, folder / "secrets.tar.age")
    run.paths += host.paths(run.plan)
    run.excluded += host.excluded(run.plan)


def _begin_chain(run: Run, store: Store, base: str, holders: Sequence[str]) -> None:
    """From now on the log goes on from this base, which the repositories `holders` have; what is older may go."""
    server = Server(run.plan, store)
    segment = run.manifest["base"]["segment"]
    with locked(run.plan.folder, "ship", seconds=900):
        if server.gap.exists() and server.gap.stat().st_mtime < run.started:
            server.gap.unlink()
        files.write_json(run.plan.folder / "state/chain.json", {"base": base, "segment": segment})
        for name in holders:
            Repository(run.plan, name).remember(base=base)
        for path in server.wal.glob("*.gz"):
            # Histories of timelines are tiny and needed for long.
            if len(path.name) == len("000000010000000000000001.gz") and path.name < f"{segment}.gz":
                path.unlink()
