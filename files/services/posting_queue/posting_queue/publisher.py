"""Publishes one post. Wherever it is cut off, the next attempt goes on from what the database and the provider know."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable

import httpx

from .config import Account, Config
from .errors import Away, Later, Refused, Throttled
from .instagram import Call, Instagram
from .limiter import RateLimiterClient, RateLimiterError
from .store import Job, Store

_log = logging.getLogger("posting_queue")
TIMEOUT = httpx.Timeout(20, connect=5)
_LONGEST_WAIT = 900.0
# A picture is fetched by the provider within seconds; after these it is looked at again by the next attempt.
_LOOKS, _LOOK_SECONDS = 5, 2.0
# So many containers of one post may come to nothing before the post is at fault.
_LOST_CONTAINERS = 4


def backoff(failures: int) -> float:
    """Seconds until the next attempt: 5, 10, 20 ... 900, less up to half by chance."""
    return float(min(_LONGEST_WAIT, 5 * 2 ** min(failures, 10)) * random.uniform(0.5, 1))  # noqa: S311  # hides nothing


class Gate:
    """Asks our rate limiter before each call of an account's provider, and tells it when the provider refuses."""

    def __init__(self, limiter: RateLimiterClient, store: Store, account: Account) -> None:
        self._limiter, self._store, self._account = limiter, store, account
        # Percent of what the application may; nothing is known before a call was answered.
        self.usage: int | None = None
        self.regain_seconds = 0.0

    def ask(self, api: str) -> None:
        """Return when a call may be made. Raises Later, also where the limiter does not answer."""
        try:
            answer = self._limiter.check(api, self._account.number)
        except RateLimiterError as error:
            raise Later(f"the rate limiter: {error}", 30) from error
        if not answer["allowed"]:
            wait = answer["retry_after"]
            raise Later(f"the limit of {api} is reached", 3600 if wait is None else wait + random.uniform(0.1, 2))  # noqa: S311

    def told(self, call: Call) -> None:
        """Note a call."""
        if call.status is not None:
            self.usage, self.regain_seconds = call.usage, call.regain_seconds
        self._store.called(self._account.store, call)

    def refused(self, api: str, seconds: float) -> None:
        """The provider itself says no: nobody asks it until then."""
        try:
            self._limiter.report(api, self._account.number, max(1.0, seconds))
        except RateLimiterError as error:
            _log.warning("the rate limiter was not told: %s", error)


class Publisher:
    """Publishes posts of all accounts."""

    def __init__(
        self,
        config: Config,
        store: Store,
        limiter: RateLimiterClient,
        client: httpx.Client,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._config, self._store, self._limiter, self._client, self._sleep = config, store, limiter, client, sleep

    def publish(self, post_id: int) -> None:
        """Bring one post a step nearer to being published, most often all the way."""
        job = self._store.claim(post_id)
        if job is None:
            return
        account = self._config.accounts.get(job.store)
        if account is None:
            self._store.put_off(job, _LONGEST_WAIT, f"the store {job.store} has no account", failed=False)
            return
        gate = Gate(self._limiter, self._store, account)
        try:
            media = self._through(job, Instagram(self._config.graph_url, account, self._client, gate))
        except Refused as error:
            _log.error("post %d is given up: %s", job.post_id, error)
            self._store.give_up(job, str(error))
        except Throttled as error:
            gate.refused(error.api, error.seconds)
            self._later(job, error.seconds, error, failed=False)
        except Later as error:
            self._later(job, error.seconds, error, failed=False)
        except Away as error:
            self._later(job, max(backoff(job.failures), self._config.unsure_seconds), error, failed=True)
        else:
            self._store.done(job, media)
            _log.info("post %d is published as %s", job.post_id, media or "a number that is not known")

    def _later(self, job: Job, seconds: float, error: Exception, *, failed: bool) -> None:
        if job.age + seconds > self._config.give_up_hours * 3600:
            self._store.give_up(job, f"not within {self._config.give_up_hours} hours: {error}")
            return
        _log.warning("post %d in %.0f s: %s", job.post_id, seconds, error)
        self._store.put_off(job, seconds, str(error), failed=failed)

    def _through(self, job: Job, instagram: Instagram) -> str | None:
        """Publish; the number of what can be seen, None where it is not known. Raises what is in the way."""
        container = job.container
        if container is None:
            container = instagram.prepare(job.post)
            # Only what is written down is published: a second container of the same post never is.
            if not self._store.keep_container(job, container):
                raise Later("another attempt has taken over", 60)
        match self._state(instagram, container):
            case "PUBLISHED":
                return self._find(job, instagram)
            case "IN_PROGRESS":
                raise Later("the provider still fetches the picture", 15)
            case "ERROR" | "EXPIRED" as state:
                self._store.forget_container(job, container)
                if job.failures >= _LOST_CONTAINERS:
                    raise Refused(f"the provider makes nothing of it: {state}")
                raise Away(f"a container came to nothing: {state}")
        try:
            return instagram.publish(container)
        except Refused:
            # An attempt before this one may have come through without our hearing of it.
            if self._state(instagram, container) == "PUBLISHED":
                return self._find(job, instagram)
            raise

    def _state(self, instagram: Instagram, container: str) -> str:
        for _ in range(_LOOKS - 1):
            state = instagram.state(container)
            if state != "IN_PROGRESS":
                return state
            self._sleep(_LOOK_SECONDS)
        return instagram.state(container)

    def _find(self, job: Job, instagram: Instagram) -> str | None:
        """The number of what was published without our hearing of it."""
        recent = instagram.recent(job.post.channel)
        known = self._store.known([number for number, _, _ in recent])
        candidates = [
            number
            for number, caption, at in recent
            if number not in known
            and (job.post.channel == "instagram_story" or caption == job.post.caption)
            # Both clocks are kept by the network.
            and (job.prepared_at is None or at.timestamp() >= job.prepared_at.timestamp() - 120)
        ]
        return candidates[0] if len(candidates) == 1 else None
