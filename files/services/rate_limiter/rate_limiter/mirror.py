"""What this process knows itself of what it admitted: answers while Redis is away, notices what Redis has lost.

Dates are microseconds of the Redis clock. Nothing here is fuller than Redis, as long as Redis keeps what it was told.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import NamedTuple

from .policies import Window

# How fast a clock may be slewed against ours before that counts as a jump.
_SLEW = 0.002


class Told(NamedTuple):
    """What one window says to a check: units that count already, when the quota is whole again, when the cost fits."""

    fits: bool
    used: int
    reset_in: int
    wait: int


class Clock:
    """The clock of Redis as our monotonic one sees it: `low` to `high` microseconds lie between them."""

    def __init__(self) -> None:
        """Nothing is known before the first observation."""
        self.low = self.high = 0
        self._seen = 0.0

    def observe(self, clock: int, sent: float, received: float) -> int:
        """Learn that Redis showed ``clock`` between two moments of ours. Return how far it was set since, 0 = not."""
        low, high = clock - int(received * 1e6), clock - int(sent * 1e6)
        first, slack = not self._seen, int((received - self._seen) * 1e6 * _SLEW) + 1000
        self._seen = received
        jump = 0 if first else max(low - self.high - slack, 0) or min(high - self.low + slack, 0)
        if first or jump:
            self.low, self.high = low, high
            return jump
        # What is surer than before is kept; what an honest drift has moved is followed.
        self.low = min(max(low, self.low - slack), high)
        self.high = max(min(high, self.high + slack), low)
        return 0


class LogMirror:
    """Dates of admissions, oldest first.

    ``foreign`` units are in Redis and not from us: of an earlier process, or of an answer that came too late. They
    count as if they had been admitted when we saw them.
    """

    def __init__(self, window: Window) -> None:
        """Nothing admitted yet."""
        self.follow(window)
        self.dates: deque[float] = deque()
        self.foreign = 0
        self.foreign_until = 0

    def follow(self, window: Window) -> None:
        """Keep to a policy that has changed."""
        self.limit, self.span = window.limit, window.span

    def observe(self, clock: int, used: int, reset_in: int, taken: int, date: float | None = None) -> tuple[bool, bool]:
        """Follow a reply: ``used`` units counted before, ``taken`` were added.

        Returns whether that may stand, and whether Redis has lost something.
        """
        self.forget(clock)
        mine = len(self.dates)
        lost = mine > used
        if lost:
            self.foreign = 0
        else:
            self.foreign = used - mine
            if self.foreign:
                self.foreign_until = clock + max(self.span, reset_in)
        if taken and lost and mine + taken > self.limit:
            return False, True
        if taken == 1:
            self.dates.append(date or clock + reset_in - self.span)
        elif taken:
            self.dates.extend([date or clock + reset_in - self.span] * taken)
        return True, lost

    def forget(self, now: int) -> None:
        """Drop what no longer counts."""
        dates, before = self.dates, now - self.span
        while dates and dates[0] <= before:
            dates.popleft()

    def ask(self, now: int, cost: int) -> Told:
        """Judge a check without Redis."""
        self.forget(now)
        ends = sorted(date + self.span for date in self.dates)
        if now < self.foreign_until:
            ends += [self.foreign_until] * self.foreign
            ends.sort()
        used, wait = len(ends), 0
        if used + cost > self.limit and cost <= self.limit:
            wait = int(ends[used + cost - self.limit - 1]) - now
        if self.dates and self.dates[-1] % 1:
            wait = max(wait, int(self.dates[-1]) - now)
        return Told(
            cost == 0 or (wait <= 0 and cost <= self.limit), used, int(ends[-1]) - now if ends else 0, max(wait, 0)
        )

    def take(self, date: int, cost: int) -> None:
        """Add what was admitted without Redis."""
        self.dates.extend([date] * cost)

    def give_back(self, date: float, cost: int) -> None:
        """Remove a booking."""
        for _ in range(cost):
            if date in self.dates:
                self.dates.remove(date)

    def shift(self, by: int) -> None:
        """Follow a clock that was set: ages stay what they are."""
        self.dates = deque(date + by for date in self.dates)
        self.foreign_until += by

    def idle(self, now: int) -> bool:
        """Whether nothing counts any more."""
        self.forget(now)
        return not self.dates and now >= self.foreign_until

    def kept(self, window: Window, now: int) -> tuple[str | int | float, ...]:
        """What a script needs to write it back."""
        self.forget(now)
        return (
            *window.arguments(now),
            *(f"{date:.1f}" if date % 1 else int(date) for date in sorted(self.dates, reverse=True)),
        )


class GcraMirror:
    """When the bucket is full again."""

    def __init__(self, window: Window) -> None:
        """A full one."""
        self.follow(window)
        self.full: float = 0

    def follow(self, window: Window) -> None:
        """Keep to a policy that has changed."""
        self.limit, self.step = window.limit, window.step

    def observe(self, clock: int, used: int, reset_in: int, taken: int, date: float | None = None) -> tuple[bool, bool]:
        """Follow a reply."""
        before = clock + reset_in - taken * self.step
        mine = max(self.full, clock)
        if mine <= before + 2:
            self.full = clock + reset_in
            return True, False
        if taken and mine + taken * self.step > clock + self.limit * self.step:
            return False, True
        self.full = mine + taken * self.step
        return True, True

    def ask(self, now: int, cost: int) -> Told:
        """Judge a check without Redis."""
        full = int(max(self.full, now))
        wait = max(0, full + (cost - self.limit) * self.step - now)
        return Told(cost == 0 or (wait == 0 and cost <= self.limit), -(-(full - now) // self.step), full - now, wait)

    def take(self, date: int, cost: int) -> None:
        """Add what was admitted without Redis."""
        self.full = max(self.full, date) + cost * self.step

    def give_back(self, date: float, cost: int) -> None:
        """Remove a booking."""
        self.full -= cost * self.step

    def shift(self, by: int) -> None:
        """Follow a clock that was set."""
        self.full += by

    def idle(self, now: int) -> bool:
        """Whether it is full."""
        return self.full <= now

    def kept(self, window: Window, now: int) -> tuple[str | int | float, ...]:
        """What a script needs to write it back."""
        return (*window.arguments(now), self.full)


class CalendarMirror:
    """Units of one period."""

    def __init__(self, window: Window) -> None:
        """None yet."""
        self.follow(window)
        self.start = self.finish = self.units = 0

    def follow(self, window: Window) -> None:
        """Keep to a policy that has changed."""
        assert window.calendar  # noqa: S101  # its kind
        self.limit, self.calendar = window.limit, window.calendar

    def observe(self, clock: int, used: int, reset_in: int, taken: int, date: float | None = None) -> tuple[bool, bool]:
        """Follow a reply."""
        self._turn(clock)
        lost = self.units > used
        if taken and lost and self.units + taken > self.limit:
            return False, True
        self.units = max(self.units, used) + taken
        return True, lost

    def ask(self, now: int, cost: int) -> Told:
        """Judge a check without Redis."""
        self._turn(now)
        fits = cost == 0 or self.units + cost <= self.limit
        left = self.finish - now
        return Told(fits, self.units, left if self.units else 0, 0 if fits else left)

    def take(self, date: int, cost: int) -> None:
        """Add what was admitted without Redis."""
        self._turn(date)
        self.units += cost

    def give_back(self, date: float, cost: int) -> None:
        """Remove a booking."""
        self.units = max(0, self.units - cost)

    def shift(self, by: int) -> None:
        """A calendar follows the clock."""

    def idle(self, now: int) -> bool:
        """Whether nothing counts any more."""
        return not self.units or now >= self.finish

    def kept(self, window: Window, now: int) -> tuple[str | int | float, ...]:
        """What a script needs to write it back."""
        return (*window.arguments(now), self.start, self.units)

    def _turn(self, now: int) -> None:
        if now >= self.finish:
            self.start, self.finish, _ = self.calendar.bounds(now)
            self.units = 0


class BlockMirror:
    """Until when the provider itself refuses."""

    def __init__(self) -> None:
        """Not at all."""
        self.till = 0

    def observe(self, clock: int, blocked: int) -> bool:
        """Follow a reply; returns whether Redis has lost something."""
        if self.till > clock + blocked + 1000:
            return True
        self.till = clock + blocked if blocked else 0
        return False


Mirror = LogMirror | GcraMirror | CalendarMirror
MIRRORS: Mapping[str, type[LogMirror] | type[GcraMirror] | type[CalendarMirror]] = {
    "log": LogMirror,
    "gcra": GcraMirror,
    "calendar": CalendarMirror,
}
