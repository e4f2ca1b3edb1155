"""The two jobs: `ship` every few minutes, `nightly` with everything."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from . import files, host, images, losses, n8n, rebuild, redis, state, volumes
from .docker import volume_path
from .drill import canaries
from .engine import Repository
from .errors import BackupError, Busy, Refused
from .locks import all_locked, any_locked, locked
from .plan import Plan, Store
from .postgres import Server

# A repository that was away is owed a base, a new one at once; one that comes and goes does not get one each time.
OWED_SECONDS = 3600
WAIT_SECONDS = 900
LAYOUT = 1


class Run:
    """One run of one job: what it has staged, and what went wrong meanwhile.

    A part that fails is reported and left out; the others are kept all the same.
    """

    def __init__(self, plan: Plan, kind: str, slot: str = "") -> None:
        """Empty the staging folder of the job `kind`, of which several in different slots may be at work."""
        self.plan, self.kind = plan, kind
        self.started = time.time()
        self.stage = files.fresh(plan.folder / "staging" / slot / kind)
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
        self.left_out: list[str] = []

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
        measured = canaries.inspect(path)
        self.problems += losses.found(
            store.volume, losses.before(self.plan, store.volume), measured, shrinks=store.kind == "n8n"
        )
        self.manifest["volumes"][store.volume] = {"path": str(path), **measured}
        self.paths.append(path)
        self.points[store.name] = self.started

    def redis(self, store: Store) -> None:
        """A dump of this moment, and in it this run's canary: another run comes before or after."""
        folder = self.folder(f"redis/{store.volume}")
        with locked(self.plan.folder, f"save-{store.volume}", WAIT_SECONDS):
            self.canary(store)
            moment = time.time()
            keys = redis.save(self.plan, store, folder)
        self.manifest["keys"][store.volume] = list(keys)
        self.points[store.name] = moment

    def log(self, store: Store) -> None:
        """PostgreSQL's log up to now."""
        server = Server(self.plan, store)
        moment = server.switch()
        chain = files.read_json(self.plan.folder / "state/chain.json")
        if chain and not server.goes_on(chain):
            raise BackupError(f"{server.container} was restored since the last base: the next one begins a new chain")
        self.keep_log(server, chain.get("base"))
        if chain:
            self.points[store.name] = moment

    def keep_log(self, server: Server, base: str | None) -> None:
        """The log in the spool, which goes on from `base`."""
        self.paths.append(server.wal)
        self.excluded.append(str(server.wal / ".part"))
        self.manifest["wal"] = {"path": str(server.wal), "base": base}

    def canaries(self) -> None:
        """A token in every store, for a drill to find. Redis, which has one key for it, gets it with its dump."""
        self.manifest["canary"] = canaries.begin(self.plan)
        for store in self.plan.stores:
            if store.kind != "redis":
                self.canary(store)

    def canary(self, store: Store) -> None:
        """This run's token in one store."""
        self.attempt(f"{store.name} canary", partial(canaries.plant, self.plan, store, self.manifest["canary"]))

    def quick(self) -> None:
        """What both jobs save."""
        self.attempt("vault", lambda: host.vault(self.stage))
        for store in self.plan.stores:
            if store.kind == "redis":
                self.attempt(store.name, lambda store=store: self.redis(store))  # type: ignore[misc]
            elif store.kind in ("volume", "n8n"):
                self.attempt(store.name, lambda store=store: self.volume(store))  # type: ignore[misc]

    def upload(self, tags: Sequence[str], remember: Callable[[Repository], None]) -> list[str]:
        """Save everything staged in every repository; the names of those that have it.

        A ship passes over a repository that an earlier ship is still feeding, or a later one has fed.
        """
        stores = [f"store={name}" for name in self.points]
        # A night is made later than a ship that staged its data after it had. PostgreSQL's moment is `point`.
        stores += [
            f"moment.{store.name}={self.points[store.name]:.6f}"
            for store in self.plan.stores
            if store.kind != "postgres" and store.name in self.points
        ]
        self.manifest["points"] = self.points
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

            if self.kind != "ship":
                self.attempt(f"repository {name}", save)
                continue
            with ExitStack() as held:
                try:
                    held.enter_context(locked(self.plan.folder, f"place-{name}"))
                except Busy:
                    self.left_out.append(name)
                    continue
                if repository.state.get("shipped", 0) < self.started:
                    self.attempt(f"repository {name}", save)
        return done

    def end(self, **more: Any) -> list[str]:
        """Remove what was staged, note how it went, and return the problems."""
        shutil.rmtree(self.stage)
        canary = self.manifest["canary"]
        for store in self.plan.stores:
            if store.name in canary["stores"]:
                part = partial(canaries.remove, self.plan, store, canary["token"])
                self.attempt(f"{store.name} canary", part)
        if self.left_out:
            state.skipped(self.plan, self.kind)
        state.record(self.plan, self.kind, self.problems, self.started, **more)
        return self.problems


def later(known: Mapping[str, float], news: Mapping[str, float]) -> dict[str, float]:
    """The later moment of each store: a long night may end after a ship that began meanwhile."""
    return {name: max(known.get(name, 0), news.get(name, 0)) for name in {**known, **news}}


def refuse_unfinished(plan: Plan) -> None:
    """Half-restored data is saved by nobody. Raises Refused, or Busy while it is on its way."""
    if rebuild.under_way(plan):
        raise Busy(
            "this machine is being rebuilt: saving begins when rebuild.yml has ended (run it again if it was cut off)"
        )
    if (plan.folder / "state/restore.json").exists():
        raise Refused("a restore was cut off and its data is in no order: `pi-commerce-backup restore --resume` first")


def ship(plan: Plan, wait: float = 0) -> list[str]:
    """Save what changes all the time; then a base where one is due. The problems.

    Raises Busy where another one is still staging after `wait` seconds.
    """
    with ExitStack() as held:
        with locked(plan.folder, "ship", wait):
            refuse_unfinished(plan)
            # One more than can be feeding a repository each.
            slots = [f"slot-{number}" for number in range(len(plan.targets) + 1)]
            run = Run(plan, "ship", held.enter_context(any_locked(plan.folder, slots)))
            run.canaries()
            store = plan.postgres()
            if store:
                run.attempt(store.name, lambda: run.log(store))
            run.quick()
        base = str(run.manifest.get("wal", {}).get("base") or "none")

        def remember(repository: Repository) -> None:
            known = repository.state
            # Log without the base it goes on from restores nothing.
            useless = {store.name} if store and base not in known.get("bases", []) else set()
            news = {name: point for name, point in run.points.items() if name not in useless}
            repository.remember(points=later(known.get("points", {}), news), shipped=run.started)

        point = f"point={run.points.get(store.name, 0):.6f}" if store else "point=0"
        run.upload([f"base={base}", point], remember)
        problems = run.end()
    if store:
        tidy(plan, store, ["nightly", "ship"])
        if base_due(plan, store):
            try:
                problems = problems + nightly(plan)
            except Busy:
                # It makes the base.
                return problems
    return problems


def base_due(plan: Plan, store: Store) -> bool:
    """Whether point-in-time recovery needs a new base before the night."""
    chain = files.read_json(plan.folder / "state/chain.json")
    last = files.read_json(plan.folder / "state/jobs.json").get("nightly", {})
    lately = time.time() - last.get("started", 0) < OWED_SECONDS
    if lately and not last.get("based"):
        return False
    server = Server(plan, store)
    if not chain or server.gap.exists() or server.spooled_mib() > plan.spool_mib // 2:
        return True
    if not server.goes_on(chain):
        return True
    owed = [name for name in plan.targets if _owed(Repository(plan, name), chain["base"])]
    return any(not lately or Repository(plan, name).state.get("since", 0) > last["started"] for name in owed)


def _owed(repository: Repository, base: str) -> bool:
    """Whether a repository that can be reached has another base than the log goes on from."""
    known = repository.state
    reached = time.time() - known.get("shipped", 0) < OWED_SECONDS
    return reached and base not in known.get("bases", [])


def nightly(plan: Plan, wait: float = 0) -> list[str]:
    """Save everything, and begin a new chain of log. The problems.

    Raises Busy where another one is still at work after `wait` seconds.
    """
    with locked(plan.folder, "nightly", wait):
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
            run.attempt(store.name, lambda: _end_log(run, store))
        run.quick()
        for other in plan.stores:
            if other.kind == "n8n":
                run.attempt(f"{other.service} export", lambda: _export(run, other))  # noqa: B023 - called at once
        run.attempt("host", lambda: _host(run))

        def remember(repository: Repository) -> None:
            known = repository.state
            chain = files.read_json(plan.folder / "state/chain.json")
            bases = [name for name in known.get("bases", []) if name == chain.get("base")]
            bases += [base] if "base" in run.manifest else []
            repository.remember(points=later(known.get("points", {}), run.points), bases=bases)

        point = run.points.get(store.name, 0) if store else 0
        tags = [f"base={base}", f"point={point:.6f}"]
        if "base" in run.manifest:
            tags.append(f"consistent={run.manifest['base']['consistent']:.6f}")
        ends = run.manifest.get("wal", {}).get("base")
        tags += [f"ends={ends}"] if ends else []
        done = run.upload(tags, remember)
        if done:
            losses.remember(plan, run.manifest["volumes"])
        if store and "base" in run.manifest and done:
            run.attempt(store.name, lambda: _begin_chain(plan, base, run.manifest["base"]["segment"]))
            run.attempt(store.name, lambda: tidy(plan, store, ["ship"]))
        if store:
            run.attempt(store.name, Server(plan, store).drop_base)
        for name in plan.images_in:
            run.attempt(f"images in {name}", lambda: images.save(plan, Repository(plan, name)))  # noqa: B023 - at once
        chain = files.read_json(plan.folder / "state/chain.json")
        return run.end(based=chain.get("base") == base)


def _dump(run: Run, store: Store, base: str) -> None:
    server = Server(run.plan, store)
    if server.gap.exists():
        # What is left leads nowhere, and while the spool is full the log of the new base would be dropped, too.
        with all_locked(run.plan.folder, ["ship", *run.plan.places], WAIT_SECONDS):
            (run.plan.folder / "state/chain.json").unlink(missing_ok=True)
            server.drop_log()
    tables = server.dump(run.folder("postgres"))
    run.manifest["databases"] = tables
    begun = time.time()
    taken = server.take_base()
    run.manifest["base"] = {"id": base, **taken, **files.measure(Path(taken["path"]))}
    run.paths.append(Path(taken["path"]))
    # What it surely holds, should its log not be had.
    run.points[store.name] = begun


def _export(run: Run, store: Store) -> None:
    run.manifest["n8n"] = n8n.export(run.plan, store, run.folder("n8n"))


def _host(run: Run) -> None:
    folder = run.folder("host")
    host.describe(run.plan, folder)
    host.seal(run.plan, folder / "secrets.tar.age")
    run.paths += host.paths(run.plan)
    run.excluded += host.excluded(run.plan)


def _end_log(run: Run, store: Store) -> None:
    """Save the log up to now: the new base reaches a moment that is known by it.

    It is the end of the old chain's log, too: when its ships are thinned out, every moment can still be had.
    """
    if "base" not in run.manifest:
        return
    server = Server(run.plan, store)
    moment = server.switch()
    chain = files.read_json(run.plan.folder / "state/chain.json")
    run.keep_log(server, chain["base"] if chain and server.goes_on(chain) else None)
    run.points[store.name] = moment


def _begin_chain(plan: Plan, base: str, segment: str) -> None:
    """From now on the log goes on from this base."""
    with locked(plan.folder, "ship", WAIT_SECONDS):
        files.write_json(plan.folder / "state/chain.json", {"base": base, "segment": segment})


def tidy(plan: Plan, store: Store, others: Sequence[str]) -> None:
    """Remove log from before the chain's base, unless somebody is reading it (`others`); then the next run does."""
    chain = files.read_json(plan.folder / "state/chain.json")
    old = [path for path in Server(plan, store).segments() if chain and path.name < f"{chain['segment']}.gz"]
    try:
        with all_locked(plan.folder, [*others, *plan.places] if old else []):
            for path in old:
                path.unlink()
    except Busy:
        return
