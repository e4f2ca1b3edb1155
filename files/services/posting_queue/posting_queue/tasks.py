"""Celery: what is done when. The tasks only say that it is time; what there is to do stands in the database."""

from __future__ import annotations

import logging
import os
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
from celery import Celery
from celery.schedules import crontab
from celery.signals import worker_ready
from psycopg.errors import InvalidSchemaName, UndefinedTable

from .config import Config
from .limiter import RateLimiterClient
from .publisher import TIMEOUT, Publisher
from .schedule import assign, slots
from .store import Store
from .tracking import Tracker

_log = logging.getLogger("posting_queue")
QUEUE = "celery.posting"
# A post that is later than this waits for the next place.
LATE_MINUTES = 120
_PLAN_DAYS = 28
# So often is looked, in the time that may pass in silence, whether it is Redis that is away.
_LOOKS = 10


class Queue:
    """The tasks of one process."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._heard = threading.Event()
        self.app = Celery("posting_queue", broker=config.broker, set_as_current=False)
        self.app.conf.update(
            task_default_queue=QUEUE,
            task_ignore_result=True,
            task_acks_late=True,
            accept_content=["json"],
            # What cannot be acknowledged, because Redis went, keeps its place: with two of them all would soon be gone.
            worker_prefetch_multiplier=50,
            worker_enable_remote_control=False,
            worker_hijack_root_logger=False,
            broker_connection_retry_on_startup=True,
            broker_connection_max_retries=None,
            broker_transport_options={
                # Under the names that the user of Redis may use.
                "unacked_key": "celery.unacked",
                "unacked_index_key": "celery.unacked_index",
                "unacked_mutex_key": "celery.unacked_mutex",
                "visibility_timeout": 3600,
                "socket_keepalive": True,
            },
            timezone=str(config.zone),
            # What was missed stands in the database: the scheduler need not remember anything.
            beat_scheduler="celery.beat:Scheduler",
            beat_schedule=self._schedule(),
        )
        self._sweep = self._task("sweep", self.sweep)
        self._publish = self._task("publish", self.publish)
        self._task("check_limits", self.check_limits)
        self._task("measure", self.measure)
        self._task("forget", self.forget)

    def _task(self, name: str, what: Any) -> Any:
        # Untyped: Celery would ask a method for its self.
        return self.app.task(name=f"posting.{name}", shared=False, typing=False)(what)

    def _schedule(self) -> dict[str, Any]:
        """Again and again what is due; the moments of the calendar to the second; and what looks after it."""
        entries: dict[str, tuple[str, Any]] = {
            "sweep": ("sweep", timedelta(seconds=self._config.sweep_seconds)),
            "check-limits": ("check_limits", crontab(minute="*/5")),
            "measure": ("measure", crontab(minute="*/15")),
            "forget": ("forget", crontab(hour="4", minute="30")),
        }
        for channel, plan in self._config.schedule.items():
            for at in plan.times:
                entries[f"{channel}-{at:%H:%M}"] = ("sweep", crontab(hour=str(at.hour), minute=str(at.minute)))
        # One that nobody has taken before the next is due is not needed any more.
        return {
            name: {"task": f"posting.{task}", "schedule": when, "options": {"expires": 55}}
            for name, (task, when) in entries.items()
        }

    @contextmanager
    def _parts(self) -> Iterator[tuple[Store, RateLimiterClient, httpx.Client]]:
        limiter = RateLimiterClient(self._config.limiter_url, token=self._config.limiter_token)
        # No proxy of the environment's, no redirects: what is sent carries the account's token.
        with Store(self._config) as store, limiter, httpx.Client(timeout=TIMEOUT, trust_env=False) as client:
            yield store, limiter, client

    def sweep(self) -> None:
        """Give drafts their places, and have published what is due."""
        self._heard.set()
        try:
            with Store(self._config) as store:
                self.plan(store, datetime.now(UTC))
                store.release()
                for post in store.due():
                    self._publish.apply_async((post,), expires=600)
        except (UndefinedTable, InvalidSchemaName):
            # A shop's first start: tables are made when all its services run.
            _log.warning("there are no tables yet, so nothing is due")
        self._config.alive.touch()

    def plan(self, store: Store, now: datetime) -> None:
        """Give each draft the next place of its channel with room."""
        with store.planning(LATE_MINUTES) as planning:
            for name in self._config.accounts:
                for channel, plan in self._config.schedule.items():
                    taken = Counter(planning.planned_of(name, channel))
                    free = {at: plan.posts - taken[at] for at in slots(plan, self._config.zone, now, _PLAN_DAYS)}
                    drafts = planning.drafts_of(name, channel)
                    planning.places.update(assign(drafts, free, planning.experiments(), self._config.zone))

    def publish(self, post: int) -> None:
        """Publish one post."""
        with self._parts() as (store, limiter, client):
            Publisher(self._config, store, limiter, client).publish(post)

    def check_limits(self) -> None:
        """See how much of the provider's limits is used."""
        with self._parts() as (store, limiter, client):
            Tracker(self._config, store, limiter, client).check_limits()

    def measure(self) -> None:
        """Look at what was published."""
        with self._parts() as (store, limiter, client):
            Tracker(self._config, store, limiter, client).measure()

    def forget(self) -> None:
        """Remove what is old."""
        with Store(self._config) as store:
            _log.info("%d old rows are removed", store.forget())

    def work(self) -> int:
        """Do what is due until SIGTERM, as worker and scheduler in one; the exit code."""
        threading.Thread(target=self._watch, daemon=True).start()
        # Not only when the scheduler first says so.
        worker_ready.connect(self._begin, weak=False)
        worker = self.app.Worker(
            beat=True,
            pool="threads",
            concurrency=2,
            quiet=True,
            loglevel="WARNING",
            # There is nobody to talk to.
            without_gossip=True,
            without_mingle=True,
            without_heartbeat=True,
        )
        worker.start()
        return int(worker.exitcode or 0)

    def _begin(self, **_: object) -> None:
        self._sweep.apply_async(expires=55)

    def _watch(self) -> None:
        """A scheduler that has died does not come back by itself: Docker starts what ends."""
        silent = 0
        while silent < _LOOKS:
            heard = self._heard.wait(self._config.silence_seconds / _LOOKS)
            self._heard.clear()
            # Without Redis nobody can be heard, and a start would not help.
            silent = 0 if heard or not self._redis_answers() else silent + 1
        _log.critical("nothing was heard of the scheduler for %.0f s", self._config.silence_seconds)
        # Not by a signal: the kernel keeps those of a container's own from its first process.
        os._exit(1)

    def _redis_answers(self) -> bool:
        try:
            with self.app.connection_for_write() as connection:
                connection.ensure_connection(max_retries=1, interval_start=0, timeout=5)
        except Exception as error:
            _log.warning("Redis: %s", error)
            return False
        return True
