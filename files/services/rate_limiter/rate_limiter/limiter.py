"""The limiter itself: asks Redis, keeps in mind what it admitted, answers from that while Redis is away. No HTTP."""

from __future__ import annotations

import asyncio
import functools
import itertools
import logging
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from time import monotonic
from typing import Any

import msgspec
from msgspec.structs import replace

from .config import Config
from .link import Link, Question, Unavailable, settle
from .mirror import MIRRORS, BlockMirror, Clock, Mirror
from .policies import Policy, Window

MAX_WAIT_SECONDS = 3600
# Entries of one log, booked ones included.
_MAX_LOG = 10_000
_MAX_MIRRORS = 20_000
_MAX_DENIALS = 10_000
_PUSH_SECONDS = 0.25
_NO_SCOPES: Mapping[str, str] = {}
# What `_follow` says of nearly all: it may stand, and nothing is lost.
_STANDS = (True, False)
_log = logging.getLogger(__name__)

__all__ = ["MAX_WAIT_SECONDS", "Ask", "Asks", "Booking", "Decision", "Limiter", "Unavailable"]


class Ask:
    """One check: ``cost`` units of ``policy`` for the tenant ``key``, perhaps within scopes. Cost 0 only looks.

    ``plain``: one exact log decides. ``name``: what a denial of it is kept under.
    """

    __slots__ = ("block", "cost", "keys", "name", "plain", "policy", "windows")

    def __init__(self, policy: Policy, key: str = "", cost: int = 1, scopes: Mapping[str, str] = _NO_SCOPES) -> None:
        """Name the keys in Redis that it is about."""
        self.policy = policy
        self.cost = cost
        self.block = f"rl:{policy.api}/block:{key}"
        self.windows = policy.applying(scopes)
        self.plain = len(self.windows) == 1 and not self.windows[0].name
        self.keys = [
            f"rl:{policy.api}/{window.name}:{len(key)}:{key}:{scopes[window.per] if window.per else ''}"
            if window.name
            else f"rl:{policy.api}:{key}"
            for window in self.windows
        ]
        self.name = (cost, *self.keys)


class Asks:
    """Checks that are judged in one go, in their order; ``together``: all are let in, or none.

    They may be judged again and again. ``question`` is what Redis is told, once that was put together.
    """

    __slots__ = ("all", "plain", "question", "together")

    def __init__(self, asks: Sequence[Ask], *, together: bool = False, plain: bool = True) -> None:
        """Not ``plain``: the short script is not to be tried."""
        self.all = asks
        self.together = together and len(asks) > 1
        self.plain = plain and not self.together and all(ask.plain for ask in asks)
        self.question: Question | None = None


# It holds nothing that could lead back to it.
class Decision(msgspec.Struct, frozen=True, gc=False):
    """Answer to one check; times are microseconds.

    ``limit`` and ``remaining`` are of the window with the least left, ``reset_in`` is when every quota is whole again.
    ``retry_after``: until this cost fits; 0 if it did, None if it is above a limit and never will.
    ``left``: per window, remaining and reset_in as they were ``age`` ago. ``degraded``: without Redis. ``refused``:
    only watched, else denied.
    """

    allowed: bool
    limit: int
    remaining: int
    reset_in: int
    retry_after: int | None
    windows: tuple[Window, ...]
    left: tuple[tuple[int, int], ...]
    degraded: bool = False
    refused: bool = False
    age: int = 0


class Booking(msgspec.Struct, frozen=True):
    """``id`` gives it back; None: nothing was booked, ``starts_in`` is when it could be (None: never). Microseconds."""

    id: str | None
    starts_in: int | None


class _Denial(msgspec.Struct):
    """A denial that holds for everybody who asks the same, for ``wait`` microseconds."""

    since: float
    wait: int
    decision: Decision


# Takes the decisions of one `Asks`, in its order.
Tell = Callable[[Sequence[Decision] | Unavailable], None]


class Limiter:
    """Checks against one Redis. Starts to connect by `start`, and again after each failure."""

    def __init__(self, config: Config) -> None:
        """Prepare; nothing is connected yet."""
        self.link = Link(config, self._connected)
        self._scripts = {
            name: self.link.script("windows", name) for name in ("check", "reserve", "refund", "report", "restore")
        }
        self._plain = self.link.script("check_logs")
        # With others beside it, a process does not know what they admit.
        self._alone = config.instances == 1
        self._clock = Clock()
        self._last_clock = 0
        self._mirrors: dict[str, tuple[Window, Mirror]] = {}
        self._blocks: dict[str, BlockMirror] = {}
        # Since then every admission is in a mirror.
        self._complete_since = monotonic()
        self._unwritten: set[str] = set()
        self._denials: dict[tuple[Any, ...], _Denial] = {}
        self._writer: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop

    def start(self) -> None:
        """Begin; needs a running loop."""
        self._loop = asyncio.get_running_loop()
        self.link.start()
        self._writer = self._loop.create_task(self._write_back())

    async def close(self) -> None:
        """Write back what Redis does not know, and end."""
        if self._writer:
            self._writer.cancel()
        await asyncio.gather(*self._push(), return_exceptions=True)
        await self.link.close()

    async def ping(self) -> None:
        """Return once Redis answered. Raises Unavailable."""
        await self.link.call("PING")

    def changed(self, policies: Mapping[str, Policy]) -> None:
        """Other policies are in force: what was denied may be allowed, longer windows hold what nobody remembers."""
        self._denials.clear()
        now = monotonic()
        known = {(policy.api, window.name): window for policy in policies.values() for window in policy.windows}
        spans = [window.span for window, _ in self._mirrors.values()]
        if any(window.span > min(spans, default=0) for window in known.values()):
            self._complete_since = now

    async def check(
        self, policy: Policy, key: str = "", cost: int = 1, scopes: Mapping[str, str] = _NO_SCOPES
    ) -> Decision:
        """Take ``cost`` (>= 0) units of ``policy``, or nothing. Raises Unavailable."""
        [decision] = await self.check_all([Ask(policy, key, cost, scopes)])
        return decision

    async def check_all(self, asks: Sequence[Ask], *, together: bool = False, plain: bool = True) -> Sequence[Decision]:
        """Judge several checks in one go, in their order. Raises Unavailable."""
        future: asyncio.Future[Sequence[Decision]] = asyncio.get_running_loop().create_future()
        self.check_soon(Asks(asks, together=together, plain=plain), functools.partial(settle, future))
        return await future

    def check_soon(self, asks: Asks, tell: Tell) -> None:
        """The same without a future: ``tell`` is called once, perhaps at once."""
        if not self._denials or asks.together:
            self._ask_redis(asks, tell)
            return
        now = monotonic()
        known = [self._denied(ask, now) for ask in asks.all]
        denied = [decision for decision in known if decision]
        if len(denied) == len(known):
            tell(denied)
        elif not denied:
            self._ask_redis(asks, tell)
        else:
            self._ask_others(asks, known, tell)

    def _ask_others(self, asks: Asks, known: Sequence[Decision | None], tell: Tell) -> None:
        """What is denied takes nothing, so the others are judged as if it had not been asked."""

        def merge(decisions: Sequence[Decision] | Unavailable) -> None:
            if isinstance(decisions, Unavailable):
                tell(decisions)
            else:
                judged = iter(decisions)
                tell([denied or next(judged) for denied in known])

        self._ask_redis(Asks([ask for ask, denied in zip(asks.all, known, strict=True) if denied is None]), merge)

    def _ask_redis(self, asks: Asks, tell: Tell) -> None:
        """Have Redis judge them; without it, what is remembered."""
        sent = monotonic()

        def hand(reply: Any) -> None:
            if isinstance(reply, Unavailable):
                tell(self._without_redis(asks, reply))
                return
            self._learn(reply[0], sent)
            decisions = self._read_all(asks, reply)
            if len(decisions) == len(asks.all):
                tell(decisions)
                return

            def add(others: Sequence[Decision] | Unavailable) -> None:
                tell(others if isinstance(others, Unavailable) else [*decisions, *others])

            # The short script ends before a log that needs more care.
            self._ask_redis(Asks(asks.all[len(decisions) :], plain=False), add)

        self.link.ask(asks.question or self._question(asks), hand)

    def _question(self, asks: Asks) -> Question:
        """What Redis is asked; kept where it does not depend on the moment."""
        keys: list[str] = []
        arguments: list[str | int] = [] if asks.plain else [int(asks.together)]
        for ask in asks.all:
            keys += (ask.block, *ask.keys)
            if asks.plain:
                arguments += (ask.windows[0].limit, ask.windows[0].span, ask.cost)
                continue
            arguments += (ask.cost, len(ask.keys))
            for window in ask.windows:
                arguments += window.arguments(self._now())
        script = self._plain if asks.plain else self._scripts["check"]
        question = script.question(len(keys), [*keys, *arguments])
        if not any(window.calendar for ask in asks.all for window in ask.windows):
            asks.question = question
        return question

    def _read_all(self, asks: Asks, reply: Sequence[int]) -> list[Decision]:
        """The decisions of one reply; the short script may have judged the first ones only."""
        decisions, place = [], 1
        for ask in asks.all:
            if place >= len(reply):
                break
            decisions.append(self._read(ask, reply, place))
            place += 2 + 3 * len(ask.keys)
        if asks.together and not all(decision.allowed or decision.refused for decision in decisions):
            decisions = [replace(decision, allowed=False) for decision in decisions]
        return decisions

    async def reserve(self, policy: Policy, key: str, cost: int, scopes: Mapping[str, str], longest: int) -> Booking:
        """Book the first moment within ``longest`` microseconds at which ``cost`` units fit. Raises Unavailable."""
        ask = Ask(policy, key, cost, scopes)
        booking = secrets.token_urlsafe(12)
        arguments: list[str | int] = [longest, cost, _MAX_LOG, len(ask.keys)]
        for window in ask.windows:
            arguments += window.arguments(self._now())
        keys = [ask.block, self._booking(ask, key, booking), *ask.keys]
        sent = monotonic()
        reply = await self.link.run(self._scripts["reserve"], len(keys), [*keys, *arguments])
        clock, booked, wait = reply[:3]
        self._learn(clock, sent)
        stands = True
        for index, (name, window) in enumerate(zip(ask.keys, ask.windows, strict=True)):
            used, reset_in, date = reply[3 + 3 * index : 6 + 3 * index]
            taken = cost if booked else 0
            if self._alone:
                stands &= self._follow(name, window, clock, used, reset_in, taken, float(date) or None)[0]
        if not booked or not stands:
            return Booking(None, None if wait < 0 else max(wait, 1))
        return Booking(booking, wait)

    async def refund(self, policy: Policy, key: str, scopes: Mapping[str, str], booking: str) -> int:
        """Give a booking back. Return its units, 0 if there is none, or no longer. Raises Unavailable."""
        ask = Ask(policy, key, 1, scopes)
        arguments: list[str | int] = []
        for window in ask.windows:
            arguments += window.arguments(self._now())
        keys = [self._booking(ask, key, booking), *ask.keys]
        _, units, date = await self.link.run(self._scripts["refund"], len(keys), [*keys, *arguments])
        for name in ask.keys if units else ():
            if known := self._mirrors.get(name):
                known[1].give_back(float(date), units)
        self._denials.clear()
        return int(units)

    async def report(self, policy: Policy, key: str, wait: int) -> int:
        """Let nobody in for ``wait`` microseconds: the provider said so. Return how long it is now; needs no Redis."""
        name = f"rl:{policy.api}/block:{key}"
        mirror = self._blocks.setdefault(name, BlockMirror())
        mirror.till = max(mirror.till, self._now() + wait)
        try:
            clock, blocked = await self.link.run(self._scripts["report"], 1, [name, wait])
        except Unavailable:
            self._unwritten.add(name)
            return mirror.till - self._now()
        mirror.till = max(mirror.till, clock + blocked)
        return int(blocked)

    def _booking(self, ask: Ask, key: str, booking: str) -> str:
        """Key of a booking: who names another tenant or scope does not find it."""
        return f"rl:{ask.policy.api}/booked:{len(key)}:{key}:{':'.join(name[-64:] for name in ask.keys[1:])}:{booking}"

    # Replies of Redis.

    def _learn(self, clock: int, sent: float) -> None:
        """Follow the clock of Redis. When it was set, ages stay what they are."""
        # Replies of one batch tell nothing new.
        if 0 <= clock - self._last_clock < 1000:
            return
        self._last_clock = clock
        if jump := self._clock.observe(clock, sent, monotonic()):
            _log.warning("the clock of redis was set by %.3f s", jump / 1e6)
            for _, mirror in self._mirrors.values():
                mirror.shift(jump)
            for block in self._blocks.values():
                block.till += jump

    def _read(self, ask: Ask, reply: Sequence[int], place: int) -> Decision:
        clock, taken, blocked = reply[0], reply[place] == 1, reply[place + 1]
        units, stands = ask.cost if taken else 0, True
        if self._alone and (blocked or ask.block in self._blocks):
            block = self._blocks.setdefault(ask.block, BlockMirror())
            if block.observe(clock, blocked):
                self._write_soon(ask.block)
                blocked, stands = block.till - clock, ask.cost == 0
        followed: tuple[bool, bool] | None = None
        if taken and stands and ask.plain and not blocked:
            # Most of all answers: let in, by the one window there is.
            [window], used, reset_in = ask.windows, reply[place + 2], reply[place + 3]
            followed = self._follow(ask.keys[0], window, clock, used, reset_in, units) if self._alone else _STANDS
            if followed == _STANDS:
                free = max(0, window.limit - used - units)
                return Decision(True, window.limit, free, reset_in, 0, ask.windows, ((free, reset_in),))
        told = []
        for name, window in zip(ask.keys, ask.windows, strict=True):
            place += 3
            used, reset_in, wait = reply[place - 1 : place + 2]
            if self._alone:
                stood, lost = followed or self._follow(name, window, clock, used, reset_in, units)
                stands = stands and stood
                if lost:
                    # Redis has forgotten what is admitted already, which may leave no room for this one.
                    known = self._mirrors[name][1].ask(clock, 0 if stood else ask.cost)
                    used, reset_in, wait = known.used - (units if stood else 0), known.reset_in, known.wait
            told.append((used + units, reset_in, wait))
        decision = self._decide(ask, taken and stands, blocked, told)
        if not decision.allowed and not decision.refused:
            self._remember(ask, decision)
        return decision

    def _decide(
        self, ask: Ask, allowed: bool, blocked: int, told: Iterable[tuple[int, int, int]], *, degraded: bool = False
    ) -> Decision:
        limit, remaining, resets, retry, never, left = 0, -1, 0, blocked, False, []
        for window, (used, reset_in, wait) in zip(ask.windows, told, strict=True):
            free = max(0, window.limit - used)
            left.append((free, reset_in))
            if remaining < 0 or free < remaining:
                limit, remaining = window.limit, free
            resets = max(resets, reset_in)
            never = never or ask.cost > window.limit
            retry = max(retry, wait)
        retry_after = 0 if allowed else None if never else max(retry, 1)
        if blocked:
            remaining = 0
        refused = ask.policy.shadow and not allowed
        return Decision(
            allowed or refused,
            limit,
            remaining,
            max(resets, blocked),
            retry_after,
            ask.windows,
            tuple(left),
            degraded,
            refused,
        )

    def _follow(
        self, name: str, window: Window, clock: int, used: int, reset_in: int, units: int, date: float | None = None
    ) -> tuple[bool, bool]:
        """Keep in mind what Redis said of one window. Return whether an admission may stand, whether some are lost."""
        known = self._mirrors.get(name)
        if known is None or known[0] is not window:
            known = self._keep(name, window)
        stands, lost = known[1].observe(clock, used, reset_in, units, date)
        if lost:
            self._write_soon(name)
        return stands, lost

    # Denials that hold for a while.

    def _remember(self, ask: Ask, decision: Decision) -> None:
        # With something left, a smaller cost may change what there is to say.
        if decision.remaining == 0 and decision.retry_after:
            if len(self._denials) >= _MAX_DENIALS:
                self._denials.clear()
            self._denials[ask.name] = _Denial(monotonic(), decision.retry_after, decision)

    def _denied(self, ask: Ask, now: float) -> Decision | None:
        denial = self._denials.get(ask.name)
        if denial is None:
            return None
        age = int((now - denial.since) * 1e6)
        wait = denial.wait - age
        if wait <= 0:
            del self._denials[ask.name]
            return None
        told = denial.decision
        return Decision(False, told.limit, 0, told.reset_in - age, wait, told.windows, told.left, False, False, age)

    # Without Redis.

    def _now(self) -> int:
        """Microseconds that the clock of Redis shows, at least."""
        return int(monotonic() * 1e6) + self._clock.low

    def _without_redis(self, asks: Asks, error: Unavailable) -> list[Decision] | Unavailable:
        """Answer as the policies say; not at all where one is closed, or nothing is known."""
        decisions: list[Decision] = []
        taken: list[tuple[Mirror, int, int]] = []
        try:
            for ask in asks.all:
                decisions.append(self._answer_alone(ask, taken, error))
        except Unavailable as problem:
            self._give_back(taken)
            return problem
        if asks.together and not all(decision.allowed for decision in decisions):
            self._give_back(taken)
            decisions = [replace(decision, allowed=False) for decision in decisions]
        return decisions

    def _answer_alone(self, ask: Ask, taken: list[tuple[Mirror, int, int]], error: Unavailable) -> Decision:
        if ask.policy.on_failure == "open":
            return self._decide(ask, True, 0, [(0, 0, 0)] * len(ask.keys), degraded=True)
        if ask.policy.on_failure == "closed" or not self._alone or not self._clock.low:
            raise error
        now, date = self._now(), int(monotonic() * 1e6) + self._clock.high
        mirrors = [self._known(name, window, error) for name, window in zip(ask.keys, ask.windows, strict=True)]
        block = self._blocks.get(ask.block)
        blocked = max(0, block.till - now) if block else 0
        answers = [mirror.ask(now, ask.cost) for mirror in mirrors]
        allowed = all(told.fits for told in answers) and (not blocked or ask.cost == 0)
        if allowed and ask.cost:
            for name, mirror in zip(ask.keys, mirrors, strict=True):
                mirror.take(date, ask.cost)
                taken.append((mirror, date, ask.cost))
                self._unwritten.add(name)
            answers = [mirror.ask(now, 0) for mirror in mirrors]
        told = [(answer.used, answer.reset_in, answer.wait) for answer in answers]
        return self._decide(ask, allowed, blocked, told, degraded=True)

    def _give_back(self, taken: Iterable[tuple[Mirror, int, int]]) -> None:
        for mirror, date, cost in taken:
            mirror.give_back(date, cost)

    def _known(self, name: str, window: Window, error: Unavailable) -> Mirror:
        """The mirror of a key. Raises Unavailable where somebody before us may have admitted what we do not know."""
        known = self._mirrors.get(name)
        if known and known[0] is window:
            return known[1]
        if known is None and monotonic() - self._complete_since < window.span / 1e6 + MAX_WAIT_SECONDS:
            raise error
        return self._keep(name, window)[1]

    def _keep(self, name: str, window: Window) -> tuple[Window, Mirror]:
        known = self._mirrors.get(name)
        if known and isinstance(known[1], MIRRORS[window.kind]):
            known[1].follow(window)
            mirror = known[1]
        else:
            if len(self._mirrors) >= _MAX_MIRRORS:
                self._make_room()
            mirror = MIRRORS[window.kind](window)
        self._mirrors[name] = (window, mirror)
        return self._mirrors[name]

    def _make_room(self) -> None:
        now = self._now()
        self._mirrors = {name: known for name, known in self._mirrors.items() if not known[1].idle(now)}
        self._blocks = {name: block for name, block in self._blocks.items() if block.till > now}
        if len(self._mirrors) > _MAX_MIRRORS * 0.9:
            for name in list(itertools.islice(self._mirrors, _MAX_MIRRORS // 10)):
                del self._mirrors[name]
            self._complete_since = monotonic()

    # Writing back.

    def _connected(self) -> None:
        self._push()

    def _write_soon(self, name: str) -> None:
        self._unwritten.add(name)
        self._push()

    def _push(self) -> list[asyncio.Future[Any]]:
        """Send what Redis does not know; what fails is tried again."""
        sent = []
        for name in list(self._unwritten) if self.link.up else ():
            self._unwritten.discard(name)
            if block := self._blocks.get(name):
                kept: tuple[str | int | float, ...] = ("block", block.till)
            elif known := self._mirrors.get(name):
                kept = known[1].kept(known[0], self._now())
            else:
                continue
            future = self.link.run(self._scripts["restore"], 1, [name, *kept])
            future.add_done_callback(functools.partial(self._written, name))
            sent.append(future)
        return sent

    def _written(self, name: str, done: asyncio.Future[Any]) -> None:
        if done.cancelled() or done.exception():
            self._unwritten.add(name)

    async def _write_back(self) -> None:
        while True:
            await asyncio.sleep(_PUSH_SECONDS)
            self._push()
