"""The calendar: which places a channel has, and which post takes which. No clock, no database."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo


@dataclass(frozen=True, slots=True)
class Plan:
    """At each of ``times``, on the clock of the shop, a channel takes up to ``posts``."""

    times: tuple[time, ...]
    posts: int


@dataclass(frozen=True, slots=True)
class Draft:
    """A post that waits for a place; those of one ``experiment`` are variants of each other."""

    id: int
    experiment: int | None = None


def slots(plan: Plan, zone: ZoneInfo, after: datetime, days: int) -> list[datetime]:
    """The moments at which ``plan`` has places, later than ``after``, for so many days."""
    first: date = after.astimezone(zone).date()
    moments = {
        datetime.combine(first + timedelta(number), at, zone).astimezone(UTC)
        for number in range(days)
        for at in plan.times
    }
    return sorted(moment for moment in moments if moment > after)


def assign(
    drafts: Iterable[Draft],
    free: Mapping[datetime, int],
    planned: Mapping[int, Sequence[datetime]],
    zone: ZoneInfo,
) -> dict[int, datetime]:
    """The place of each draft that gets one: the next with room.

    ``free`` are the rooms left, ``planned`` the places that variants of an experiment already have.
    """
    room = dict(sorted(free.items()))
    siblings = {experiment: list(moments) for experiment, moments in planned.items()}
    result: dict[int, datetime] = {}
    for draft in drafts:
        others = siblings.setdefault(draft.experiment, []) if draft.experiment is not None else []
        place = next((at for at, left in room.items() if left > 0 and _comparable(at, others, zone)), None)
        if place is not None:
            room[place] -= 1
            others.append(place)
            result[draft.id] = place
    return result


def _comparable(at: datetime, others: Iterable[datetime], zone: ZoneInfo) -> bool:
    """Variants get the same hour on different days, so that the hour is not what makes the difference."""
    here = at.astimezone(zone)
    there = [other.astimezone(zone) for other in others]
    return all(other.time() == here.time() and other.date() != here.date() for other in there)
