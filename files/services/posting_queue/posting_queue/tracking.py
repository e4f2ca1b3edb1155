"""What came of it: how posts do, which variant did better, and how much of the provider's limits is used."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import httpx

from .config import Account, Config
from .errors import Away, Later, Refused, Throttled
from .instagram import CALLS, POSTS, Instagram
from .limiter import RateLimiterClient
from .publisher import Gate
from .store import Store

_log = logging.getLogger("posting_queue")
# Hours after which a post is looked at: soon, before a story is gone, after a week.
HOURS = (1, 23, 168)
DECISIVE = 23
# Percent of what the application may: from here on only what has to be, and nothing.
SLOW, STOP = 75, 90
# Two-sided, 5 %.
SIGNIFICANT = 1.96
USAGE, QUOTA = "instagram_usage_percent", "instagram_posts_used"


def winner(seen: Sequence[Mapping[str, int]]) -> tuple[int | None, float]:
    """Which of several variants did best, None where that may be chance, and the z of best against second.

    Who was reached and did anything at all, as a share of who was reached.
    """
    counts = [
        (min(sum(number for name, number in one.items() if name != "reach"), one.get("reach", 0)), one.get("reach", 0))
        for one in seen
    ]
    order = sorted(range(len(counts)), key=lambda place: -_share(*counts[place]))
    (did, reached), (did_too, reached_too) = counts[order[0]], counts[order[1]]
    if not reached or not reached_too:
        return None, 0.0
    together = (did + did_too) / (reached + reached_too)
    deviation = math.sqrt(together * (1 - together) * (1 / reached + 1 / reached_too))
    z = (_share(did, reached) - _share(did_too, reached_too)) / deviation if deviation else 0.0
    return (order[0] if z >= SIGNIFICANT else None), z


def _share(did: int, reached: int) -> float:
    return did / reached if reached else 0.0


class Tracker:
    """Looks at all accounts."""

    def __init__(self, config: Config, store: Store, limiter: RateLimiterClient, client: httpx.Client) -> None:
        self._config, self._store, self._limiter, self._client = config, store, limiter, client

    def check_limits(self) -> None:
        """See how much of its limits each account has used, and keep away from the rest."""
        for account in self._config.accounts.values():
            with self._at(account) as (instagram, gate):
                used, total = instagram.quota()
                self._store.metric(account.store, QUOTA, used)
                if used >= total:
                    gate.refused(POSTS, 600)
            if gate.usage is not None:
                self._store.metric(account.store, USAGE, gate.usage)
                if gate.usage >= STOP:
                    gate.refused(CALLS, max(gate.regain_seconds, 600))

    def measure(self) -> None:
        """Look at what was published, and decide the experiments that are over."""
        for row in self._store.unmeasured(HOURS):
            account = self._config.accounts[row["store"]]
            if self._store.latest(account.store, USAGE, 15) >= SLOW:
                continue
            with self._at(account) as (instagram, _):
                try:
                    seen: Mapping[str, object] = instagram.insights(row["external_id"], row["channel"])
                except Refused as error:
                    # Somebody has deleted it, or too few have seen it to say anything.
                    seen = {"error": str(error)[:200]}
                self._store.measured(row["id"], row["hours"], seen)
        for row in self._store.undecided(DECISIVE):
            place, z = winner([{name: n for name, n in one.items() if isinstance(n, int)} for one in row["seen"]])
            self._store.decided(row["experiment"], None if place is None else row["posts"][place], z)

    @contextmanager
    def _at(self, account: Account) -> Iterator[tuple[Instagram, Gate]]:
        """One account; what is in the way of it is in nobody else's."""
        gate = Gate(self._limiter, self._store, account)
        try:
            yield Instagram(self._config.graph_url, account, self._client, gate), gate
        except Throttled as error:
            gate.refused(error.api, error.seconds)
        except (Later, Away, Refused) as error:
            _log.warning("account of %s: %s", account.store, error)
