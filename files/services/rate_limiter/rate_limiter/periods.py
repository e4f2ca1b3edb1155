"""Calendar windows: when a period of a time zone begins and ends."""

from __future__ import annotations

import zoneinfo
from dataclasses import dataclass, field
from datetime import datetime, timedelta

_SECOND = 1_000_000
# Hours that a period lasts at most: the night in which clocks are set back is in it.
PERIODS = {"hour": 2, "day": 25, "week": 7 * 24 + 1, "month": 31 * 24 + 1}


@dataclass(slots=True)
class Calendar:
    """Periods of a time zone; remembers the present one."""

    period: str
    zone: zoneinfo.ZoneInfo
    _known: tuple[int, int, int] = field(default=(0, 0, 0), compare=False)

    @property
    def longest(self) -> int:
        """Microseconds that a period lasts at most."""
        return PERIODS[self.period] * 3600 * _SECOND

    def bounds(self, clock: int) -> tuple[int, int, int]:
        """Begin and end of the period that ``clock`` is in, and the end of the next; microseconds since 1970."""
        if not self._known[0] <= clock < self._known[1]:
            begin = self._begin(datetime.fromtimestamp(clock / _SECOND, self.zone))
            end = self._next(begin)
            self._known = (_micro(begin), _micro(end), _micro(self._next(end)))
        return self._known

    def _begin(self, moment: datetime) -> datetime:
        if self.period == "hour":
            # Arithmetic on local times forgets which of two equal hours is meant.
            return moment.replace(minute=0, second=0, microsecond=0)
        day = moment.replace(hour=0, minute=0, second=0, microsecond=0, fold=0)
        if self.period == "week":
            return day - timedelta(days=day.weekday())
        return day.replace(day=1) if self.period == "month" else day

    def _next(self, begin: datetime) -> datetime:
        if self.period == "hour":
            return datetime.fromtimestamp(begin.timestamp() + 3600, self.zone)
        if self.period == "month":
            return (begin + timedelta(days=32)).replace(day=1)
        return begin + timedelta(days=7 if self.period == "week" else 1)


def _micro(moment: datetime) -> int:
    return round(moment.timestamp()) * _SECOND
