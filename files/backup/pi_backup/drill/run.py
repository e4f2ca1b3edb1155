"""One drill: everything it makes has a name of its own, ends by itself, and is taken away whatever happens."""

from __future__ import annotations

import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any, TypeVar

from .. import docker
from ..errors import Refused
from ..locks import locked
from ..plan import Plan, Service
from . import overdue, report
from .checks import UNABLE, Check, Ladder, TimeUp, Unable
from .database import Postgres
from .n8n import N8n
from .settings import Settings
from .source import Source
from .stores import Stores

Thing = TypeVar("Thing")


def scratch_plan(plan: Plan, settings: Settings) -> Plan:
    """The shop's plan under a name of its own, with the very images that its containers are made from."""

    def scratch(service: Service) -> Service:
        live = docker.inspected("container", docker.container_of(plan, service.name)) or {"Image": service.image}
        memory = live.get("HostConfig", {}).get("Memory", 0)
        # Where memory or time is short, the shop comes first. What runs beside PostgreSQL finds it by its name.
        options = ["--pull=never", "--oom-score-adj=1000", "--cpu-shares=512"]
        options += [f"--memory={memory}"] if memory else []
        if any(store.kind == "postgres" for store in service.stores):
            options.append(f"--add-host={service.name}:127.0.0.1")
        lifetime = settings.budget_minutes * 60 + 600
        return replace(service, image=live["Image"], options=tuple(options), lifetime=lifetime)

    return replace(
        plan,
        project=f"{plan.project}-drill",
        folder=plan.folder / "drill",
        services=tuple(scratch(service) for service in plan.services),
    )


def refuse_live(scratch: Plan) -> None:
    """Nothing that this program has not made itself may have a name like those of a drill. Raises Refused."""
    label = f"label={docker.SCRATCH}={scratch.project}"
    listings = (
        ("ps", "--all", "--format={{.Names}}", f"--filter=name=^/?{scratch.project}-scratch-"),
        ("volume", "ls", "--format={{.Name}}", f"--filter=name=^{scratch.project}_scratch_"),
    )
    for words in listings:
        foreign = set(docker.docker(*words).split()) - set(docker.docker(*words, f"--filter={label}").split())
        if foreign:
            raise Refused(f"{', '.join(sorted(foreign))}: has a name of the drill's and is none of its; rename it")
    for target in scratch.targets.values():
        if target.url.startswith(f"{scratch.folder}/"):
            raise Refused(f"repository {target.name} lies in {scratch.folder}, which a drill empties; move it")


def sweep(scratch: Plan) -> None:
    """Take away what a drill has made, also one that was killed."""
    docker.sweep(scratch)
    for name in ("work", "cache"):
        if (scratch.folder / name).exists():
            shutil.rmtree(scratch.folder / name)


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Whatever is under way when the time is up ends with TimeUp."""

    def ring(*_: object) -> None:
        raise TimeUp("the time for the whole drill is up")

    signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def drill(plan: Plan, settings: Settings, wanted: str, key: str, say: Callable[[str], None]) -> dict[str, Any]:
    """Do it; the report. `key` is the operator's, empty where it is not given. Raises Busy, Refused or BackupError."""
    name = settings.source(plan, wanted)
    with locked(plan.folder, "drill"):
        started, seconds = time.time(), settings.budget_minutes * 60
        scratch = scratch_plan(plan, settings)
        refuse_live(scratch)
        sweep(scratch)
        (scratch.folder / "work").mkdir(mode=0o700, parents=True)
        ladder, notes = Ladder(time.monotonic() + seconds, say), report.known(plan)
        source = Source(scratch, name, settings, ladder, notes)
        ladder.doubt = source.doubtful
        try:
            with limited(seconds):
                climb(plan, source, Stores(source, notes), key)
        except TimeUp as error:
            ladder.done.append(Check("time", UNABLE, str(error)))
        finally:
            sweep(scratch)
        found = report.written(plan, ladder, name, started, notes, settings.kept, name == settings.source(plan))
    overdue.tell(found, report.markdown(found))
    return found


def climb(live: Plan, source: Source, stores: Stores, key: str) -> None:
    """All checks, from the repository up to an n8n that works."""
    check, plan = source.ladder.check, source.plan
    check("images", lambda: images(source))
    check("repository", source.reach)
    check("snapshots", source.choose)
    check("freshness", source.fresh)
    check("structure", source.whole)
    check("room", source.room)
    check("night", lambda: source.lay_out("nightly"))
    check("ship", lambda: source.lay_out("ship"))
    check("host", stores.host)
    check("bundle sealed", stores.sealed)
    check("bundle opens", lambda: stores.opened(key))
    for store in plan.stores:
        if store.kind == "redis":
            check(f"redis {store.name}", lambda store=store: stores.redis(store))  # type: ignore[misc]
        elif store.kind in ("volume", "n8n"):
            check(f"files {store.name}", lambda store=store: stores.volume(store))  # type: ignore[misc]
            check(f"sqlite {store.name}", lambda store=store: stores.sqlite(store))  # type: ignore[misc]
    found = plan.postgres()
    if found:
        climb_postgres(live, source, stores, Postgres(source, found))


def climb_postgres(live: Plan, source: Source, stores: Stores, postgres: Postgres) -> None:
    """The checks of PostgreSQL, and of n8n, which needs one."""
    check = source.ladder.check
    check("dumps", postgres.dumps)
    check("base", postgres.base)
    check("log", postgres.log)
    check("point in time", postgres.point_in_time)
    with ExitStack() as held:
        server = check("replay", lambda: held.enter_context(postgres.newest()))
        check("canaries", lambda: postgres.canaries(there(server)))
        check("pages", lambda: postgres.pages(there(server)))
        check("sequences", lambda: postgres.sequences(there(server)))
        for store in source.plan.stores:
            if store.kind == "n8n":
                n8n = N8n(source, stores, store, live)
                begun = check("n8n starts", lambda: held.enter_context(n8n.started(there(server))))  # noqa: B023 - called at once
                check("n8n credentials", lambda: n8n.credentials(there(server), there(begun)))  # noqa: B023 - called at once
                check("n8n workflow", lambda: n8n.workflow(there(begun)))  # noqa: B023 - called at once
        check("shutdown", held.close)


def there(thing: Thing | None) -> Thing:
    """What an earlier check has started. Raises Unable where it has not."""
    if thing is None:
        raise Unable("what it needs did not start")
    return thing


def images(source: Source) -> None:
    """The images of everything that holds data are on this machine."""
    plan = source.plan
    missing = [
        f"{service.name} ({service.image})"
        for service in plan.services
        if service.stores and docker.inspected("image", service.image) is None
    ]
    if missing:
        raise Unable(f"the image of {', '.join(missing)} is not on this machine; run site.yml")
    source.ladder.note(f"{len(plan.services)} as the shop's own containers have them")


def clean(plan: Plan, settings: Settings) -> None:
    """Take away what a killed drill has left. Raises Busy, Refused or BackupError."""
    with locked(plan.folder, "drill"):
        scratch = scratch_plan(plan, settings)
        refuse_live(scratch)
        sweep(scratch)
