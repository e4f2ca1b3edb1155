"""PostgreSQL: the calendar (shop.posts) and what is being published (shop.publications)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from .config import CHANNELS, Config
from .instagram import Call, Post
from .schedule import Draft

# A second run of what follows waits for the first: none gives away a place twice.
_LOCK = "SELECT pg_advisory_xact_lock(hashtext('posting_queue'))"

# Nothing goes out unseen of which its author was not sure, or has not said how sure he is.
_TO_APPROVAL = """
UPDATE shop.posts SET status = 'approval'
WHERE status IN ('draft', 'scheduled') AND channel = ANY (%(channels)s) AND media_url IS NOT NULL
    AND approved_at IS NULL AND coalesce(confidence, 0) < %(confidence)s
"""

# The Pi was off: a post for breakfast is not published at night, it waits for the next place.
_MISSED = """
UPDATE shop.posts SET status = 'draft', scheduled_at = NULL
WHERE status = 'scheduled' AND channel = ANY (%(channels)s) AND scheduled_at < now() - make_interval(mins => %(late)s)
"""

_DRAFTS = """
SELECT posts.id, channel, stores.name AS store, experiment_id AS experiment
FROM shop.posts JOIN shop.stores ON stores.id = store_id
WHERE status = 'draft' AND channel = ANY (%(channels)s) AND stores.name = ANY (%(stores)s) AND media_url IS NOT NULL
ORDER BY posts.id LIMIT 500
"""

_PLANNED = """
SELECT channel, stores.name AS store, experiment_id AS experiment, scheduled_at, status
FROM shop.posts JOIN shop.stores ON stores.id = store_id
WHERE scheduled_at IS NOT NULL AND status <> 'cancelled' AND (scheduled_at > now() OR experiment_id IS NOT NULL)
"""

# That it is due and that it is to be published are there together or not at all. What had been given up goes on where
# it was.
_RELEASE = """
WITH due AS (
    UPDATE shop.posts SET status = 'publishing' FROM shop.stores
    WHERE stores.id = store_id AND stores.name = ANY (%(stores)s) AND channel = ANY (%(channels)s)
        AND status = 'scheduled' AND scheduled_at <= now()
        AND NOT EXISTS (SELECT FROM shop.publications WHERE post_id = posts.id AND state = 'done')
    RETURNING posts.id, store_id
)
INSERT INTO shop.publications (store_id, post_id) SELECT store_id, id FROM due
ON CONFLICT (post_id) DO UPDATE
    SET state = 'pending', created_at = now(), next_at = now(), failures = 0, settled_at = NULL
"""

_DUE = "SELECT post_id FROM shop.publications WHERE state = 'pending' AND next_at <= now() ORDER BY next_at LIMIT 50"

# Whoever takes one has it for so many seconds; when he dies, it is due again.
_CLAIM = """
UPDATE shop.publications SET attempts = attempts + 1, next_at = now() + make_interval(secs => %(seconds)s)
FROM shop.posts JOIN shop.stores ON stores.id = posts.store_id
WHERE post_id = %(post)s AND state = 'pending' AND next_at <= now() AND posts.id = post_id
RETURNING post_id, attempts, failures, container, prepared_at, channel, caption, coalesce(media_url, '') AS media_url,
    stores.name AS store, extract(epoch FROM now() - publications.created_at)::float8 AS age
"""

_UNMEASURED = """
SELECT posts.id, channel, external_id, stores.name AS store, hours
FROM shop.posts JOIN shop.stores ON stores.id = store_id CROSS JOIN unnest(%(hours)s::int[]) AS hours
WHERE status = 'published' AND external_id IS NOT NULL AND stores.name = ANY (%(stores)s)
    AND NOT performance ? hours::text AND (channel <> 'instagram_story' OR hours < 24)
    -- Later it would be another measure, and what a story was told is gone.
    AND now() - published_at BETWEEN make_interval(hours => hours) AND make_interval(hours => hours * 2 + 1)
ORDER BY posts.id LIMIT 50
"""

_MEASURED = """
WITH kept AS (
    UPDATE shop.posts SET performance = performance || jsonb_build_object(%(hours)s::text, %(seen)s::jsonb)
    WHERE id = %(post)s RETURNING store_id, channel, variant
)
INSERT INTO shop.metrics (store_id, name, labels, value)
SELECT store_id, 'post_' || key, jsonb_build_object('post', %(post)s::bigint, 'channel', channel, 'variant', variant,
    'hours', %(hours)s::int), value::float8
FROM kept CROSS JOIN jsonb_each_text(%(seen)s::jsonb) WHERE jsonb_typeof(%(seen)s::jsonb -> key) = 'number'
"""

# Decided when each variant was published and looked at.
_READY = """
SELECT experiment_id AS experiment, array_agg(id ORDER BY variant) AS posts,
    array_agg(performance -> %(hours)s::text ORDER BY variant) AS seen
FROM shop.posts
WHERE status <> 'cancelled' AND experiment_id IN (SELECT id FROM shop.experiments WHERE decided_at IS NULL)
GROUP BY experiment_id
HAVING count(*) > 1 AND bool_and(performance ? %(hours)s::text)
"""

_OLD = (
    "DELETE FROM shop.api_calls WHERE at < now() - interval '30 days'",
    "DELETE FROM shop.metrics WHERE at < now() - interval '400 days'",
)


@dataclass(frozen=True, slots=True)
class Job:
    """One post that is being published, by whom has it now. ``attempts`` tells him from who had it before."""

    post_id: int
    attempts: int
    failures: int
    container: str | None
    prepared_at: datetime | None
    store: str
    age: float
    post: Post


class Store:
    """One connection, made when it is needed; not for several threads at once."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._connection: psycopg.Connection[dict[str, Any]] | None = None
        self._channels, self._stores = list(config.schedule), list(config.accounts)

    def __enter__(self) -> Store:
        """Be closed at the end."""
        return self

    def __exit__(self, *error: object) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()

    @contextmanager
    def _transaction(self) -> Iterator[psycopg.Cursor[dict[str, Any]]]:
        if self._connection is None:
            self._connection = psycopg.connect(
                **self._config.postgres,
                connect_timeout=5,
                # The disk has it before anybody acts on it, and the queue works for all stores.
                options="-c synchronous_commit=on -c shop.store=* -c statement_timeout=20000",
                application_name="posting_queue",
                autocommit=True,
                row_factory=dict_row,
            )
        with self._connection.transaction(), self._connection.cursor() as cursor:
            yield cursor

    def _do(self, statement: str, **values: Any) -> int:
        with self._transaction() as cursor:
            return cursor.execute(statement, values).rowcount

    def _rows(self, statement: str, **values: Any) -> list[dict[str, Any]]:
        with self._transaction() as cursor:
            return cursor.execute(statement, values).fetchall()

    # The calendar.

    @contextmanager
    def planning(self, late_minutes: int) -> Iterator[Planning]:
        """Look at drafts and give them places, alone. What was missed or needs a person is put aside first."""
        given = {"channels": self._channels, "stores": self._stores}
        with self._transaction() as cursor:
            cursor.execute(_LOCK)
            cursor.execute(_TO_APPROVAL, {**given, "confidence": self._config.confidence})
            cursor.execute(_MISSED, {**given, "late": late_minutes})
            drafts = cursor.execute(_DRAFTS, given).fetchall()
            planning = Planning(drafts, cursor.execute(_PLANNED).fetchall(), {})
            yield planning
            cursor.executemany(
                "UPDATE shop.posts SET status = 'scheduled', scheduled_at = %s WHERE id = %s",
                [(at, post) for post, at in planning.places.items()],
            )

    def release(self) -> int:
        """Have published what is due; how many that are."""
        return self._do(_RELEASE, channels=self._channels, stores=self._stores)

    def calendar(self) -> list[dict[str, Any]]:
        """What is planned, waits for a person, or was given up, in this sequence."""
        return self._rows(
            "SELECT posts.id, stores.name AS store, channel, status, scheduled_at, variant, confidence, last_error,"
            " left(caption, 60) AS caption FROM shop.posts JOIN shop.stores ON stores.id = posts.store_id"
            " LEFT JOIN shop.publications ON post_id = posts.id"
            " WHERE status IN ('scheduled', 'publishing', 'approval', 'failed') AND channel = ANY (%(channels)s)"
            " ORDER BY array_position(ARRAY['scheduled', 'publishing', 'approval', 'failed'], status),"
            " scheduled_at, posts.id",
            channels=list(CHANNELS),
        )

    def decide(self, post: int, status: str) -> bool:
        """A person has looked at a post that waits for it: ``draft`` lets it go on, ``cancelled`` ends it."""
        done = self._do(
            "UPDATE shop.posts SET status = %(status)s, scheduled_at = NULL,"
            " approved_at = CASE WHEN %(status)s = 'draft' THEN now() END"
            " WHERE id = %(post)s AND status IN ('approval', 'draft', 'scheduled')",
            post=post,
            status=status,
        )
        return done == 1

    def retry(self, post: int) -> bool:
        """Publish once more what was given up, now."""
        done = self._do(
            "UPDATE shop.posts SET status = 'scheduled', scheduled_at = now(), approved_at = now()"
            " WHERE id = %(post)s AND status = 'failed'",
            post=post,
        )
        return done == 1

    # What is being published.

    def due(self) -> list[int]:
        """The posts that are to be published now."""
        return [row["post_id"] for row in self._rows(_DUE)]

    def claim(self, post: int) -> Job | None:
        """Have a post for a while; None: somebody else has it, or it is done."""
        rows = self._rows(_CLAIM, post=post, seconds=self._config.lease_seconds)
        if not rows:
            return None
        [row] = rows
        given = Post(row.pop("channel"), row.pop("caption"), row.pop("media_url"))
        return Job(**row, post=given)

    def keep_container(self, job: Job, container: str) -> bool:
        """Note what is published for a post, before it is; False: somebody else has done so meanwhile."""
        done = self._do(
            "UPDATE shop.publications SET container = %(container)s, prepared_at = now()"
            " WHERE post_id = %(post)s AND attempts = %(attempts)s AND state = 'pending' AND container IS NULL",
            post=job.post_id,
            attempts=job.attempts,
            container=container,
        )
        return done == 1

    def forget_container(self, job: Job, container: str) -> None:
        """Let go of a container that the provider has given up unpublished."""
        self._do(
            "UPDATE shop.publications SET container = NULL WHERE post_id = %(post)s AND container = %(container)s",
            post=job.post_id,
            container=container,
        )

    def done(self, job: Job, media: str | None) -> None:
        """It is published; ``media`` is its number, where that is known."""
        self._do(
            "WITH settled AS (UPDATE shop.publications SET state = 'done', settled_at = now(), last_error = NULL"
            " WHERE post_id = %(post)s AND state <> 'done' RETURNING post_id)"
            " UPDATE shop.posts SET status = 'published', published_at = now(), external_id = %(media)s"
            " FROM settled WHERE id = post_id",
            post=job.post_id,
            media=media,
        )

    def put_off(self, job: Job, seconds: float, reason: str, *, failed: bool) -> None:
        """Try again after so many seconds."""
        self._do(
            "UPDATE shop.publications SET next_at = now() + make_interval(secs => %(seconds)s),"
            " last_error = %(reason)s, failures = failures + %(failed)s"
            " WHERE post_id = %(post)s AND attempts = %(attempts)s AND state = 'pending'",
            post=job.post_id,
            attempts=job.attempts,
            seconds=seconds,
            reason=_clean(reason),
            failed=int(failed),
        )

    def give_up(self, job: Job, reason: str) -> None:
        """It was not published, and is not tried again until a person says so."""
        self._do(
            "WITH settled AS (UPDATE shop.publications SET state = 'dead', settled_at = now(), last_error = %(reason)s"
            " WHERE post_id = %(post)s AND attempts = %(attempts)s AND state = 'pending' RETURNING post_id)"
            " UPDATE shop.posts SET status = 'failed' FROM settled WHERE id = post_id",
            post=job.post_id,
            attempts=job.attempts,
            reason=_clean(reason),
        )

    def known(self, numbers: Sequence[str]) -> set[str]:
        """Those of ``numbers`` that belong to a post already."""
        rows = self._rows(
            "SELECT external_id FROM shop.posts WHERE external_id = ANY (%(numbers)s)", numbers=list(numbers)
        )
        return {row["external_id"] for row in rows}

    # What came of it.

    def unmeasured(self, hours: Sequence[int]) -> list[dict[str, Any]]:
        """Posts that have been out for one of so many hours and were not looked at then."""
        return self._rows(_UNMEASURED, hours=list(hours), stores=self._stores)

    def measured(self, post: int, hours: int, seen: Mapping[str, Any]) -> None:
        """Note how a post does so many hours after it was published."""
        self._do(_MEASURED, post=post, hours=hours, seen=Jsonb(dict(seen)))

    def undecided(self, hours: int) -> list[dict[str, Any]]:
        """Experiments of which all variants were measured after so many hours."""
        return self._rows(_READY, hours=hours)

    def decided(self, experiment: int, winner: int | None, z: float) -> None:
        """Note what came of an experiment."""
        self._do(
            "UPDATE shop.experiments SET winner_id = %(winner)s, z = %(z)s, decided_at = now()"
            " WHERE id = %(experiment)s",
            experiment=experiment,
            winner=winner,
            z=z,
        )

    def called(self, store: str, call: Call) -> None:
        """Note a call of the provider."""
        self._do(
            "INSERT INTO shop.api_calls (store_id, api, operation, status, milliseconds)"
            " SELECT id, 'instagram', %(operation)s, %(status)s, %(milliseconds)s FROM shop.stores"
            " WHERE name = %(store)s",
            store=store,
            operation=call.operation,
            status=call.status,
            milliseconds=call.milliseconds,
        )

    def metric(self, store: str, name: str, value: float) -> None:
        """Note a number."""
        self._do(
            "INSERT INTO shop.metrics (store_id, name, value) SELECT id, %(name)s, %(value)s FROM shop.stores"
            " WHERE name = %(store)s",
            store=store,
            name=name,
            value=value,
        )

    def latest(self, store: str, name: str, minutes: int) -> float:
        """A number that was noted within so many minutes, 0 where none was."""
        rows = self._rows(
            "SELECT value FROM shop.metrics JOIN shop.stores ON stores.id = store_id WHERE stores.name = %(store)s"
            " AND metrics.name = %(name)s AND at > now() - make_interval(mins => %(minutes)s) ORDER BY at DESC LIMIT 1",
            store=store,
            name=name,
            minutes=minutes,
        )
        return float(rows[0]["value"]) if rows else 0

    def forget(self) -> int:
        """Remove what is older than it has to be kept; how many rows."""
        return sum(self._do(statement) for statement in _OLD)


@dataclass(frozen=True, slots=True)
class Planning:
    """What a plan is made from; who makes it puts ``places`` (post: moment) into it."""

    drafts: Sequence[Mapping[str, Any]]
    planned: Sequence[Mapping[str, Any]]
    places: dict[int, datetime]

    def drafts_of(self, store: str, channel: str) -> list[Draft]:
        """The drafts of one calendar, the oldest first."""
        return [
            Draft(row["id"], row["experiment"])
            for row in self.drafts
            if (row["store"], row["channel"]) == (store, channel)
        ]

    def planned_of(self, store: str, channel: str) -> list[datetime]:
        """The places of one calendar that are taken."""
        return [row["scheduled_at"] for row in self.planned if (row["store"], row["channel"]) == (store, channel)]

    def experiments(self) -> dict[int, list[datetime]]:
        """Where the variants of each experiment are, or were."""
        found: dict[int, list[datetime]] = {}
        for row in self.planned:
            if row["experiment"] is not None:
                found.setdefault(row["experiment"], []).append(row["scheduled_at"])
        return found


def _clean(text: str) -> str:
    """What PostgreSQL can keep of what somebody else has said."""
    return text.replace("\0", "")[:500]
