"""Has the databases write down what they hold, because the power is about to go."""

from __future__ import annotations

from . import redis
from .docker import container_of, running
from .errors import BackupError
from .locks import locked
from .plan import Plan, Store
from .postgres import Server

SECONDS = 60


def settle(plan: Plan) -> list[str]:
    """Have every database that runs do it; the problems. One that fails does not keep the others from it."""
    problems = []
    for store in plan.stores:
        try:
            if store.kind in _WAYS and running(container_of(plan, store.service)):
                _WAYS[store.kind](plan, store)
        except BackupError as error:
            problems.append(f"{store.name}: {error}")
    return problems


def _checkpoint(plan: Plan, store: Store) -> None:
    Server(plan, store).sql("CHECKPOINT", seconds=SECONDS)


def _dump(plan: Plan, store: Store) -> None:
    with locked(plan.folder, f"save-{store.volume}", SECONDS):
        redis.dump(plan, store, SECONDS)


_WAYS = {"postgres": _checkpoint, "redis": _dump}
