"""One connection to Redis that many callers share: what they ask within one turn of the loop leaves in one write."""

from __future__ import annotations

import asyncio
import functools
import hashlib
import logging
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from time import monotonic
from typing import Any, cast

import hiredis
import msgspec

from .config import Config

# So many timeouts in a row, and Redis is left alone until it answers a probe.
_FAILURES = 3
_PROBE_SECONDS = 1.0
_FIRST_PROBE_SECONDS = 0.05
# A timer may run before what has long arrived was read: so much later it is looked at again.
_GRACE_SECONDS = 0.005
# So much (four checks) leaves before the turn ends: Redis works on it while we read what else is asked.
_CHUNK_BYTES = 512
_log = logging.getLogger(__name__)

Word = str | bytes | int | float


class Unavailable(Exception):
    """Redis did not answer in time, or refused. Whether the command was carried out is not known."""


class Script:
    """A Lua script of ours."""

    def __init__(self, *parts: str) -> None:
        """Put ``scripts/<part>.lua`` together."""
        folder = Path(__file__).with_name("scripts")
        self.use("".join((folder / f"{part}.lua").read_text(encoding="utf-8") for part in parts))

    def use(self, text: str) -> None:
        """Be this text, known to Redis by its digest."""
        self.text = text
        self.sha = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()

    def question(self, count: int, arguments: Sequence[Word]) -> Question:
        """Put together the command that runs it; the first ``count`` arguments are keys."""
        return self, _packed("EVALSHA", self.sha, count, *arguments)


Hand = Callable[[Any], None]
# A script, and the whole command that runs it: the same question is put together once.
Question = tuple[Script, bytes]


class _Waiting(msgspec.Struct):
    """A command that was sent: who takes the reply, since when, and what brings it again should its script be lost."""

    hand: Hand | None
    sent: float
    again: Question | None


class _Wire(asyncio.Protocol):
    """One connection; what it says after its link has given it up is not heard."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self.reader = hiredis.Reader()
        self.transport: asyncio.WriteTransport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the way out."""
        self.transport = cast(asyncio.WriteTransport, transport)

    def data_received(self, data: bytes) -> None:
        """Hand on whole replies."""
        self.reader.feed(data)
        while self.link.wire is self and (reply := self.reader.gets()) is not False:
            self.link.answered(reply)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the link."""
        if self.link.wire is self:
            self.link.drop(str(exc or "the connection was closed"))


class Link:
    """Sends commands, hands back replies. Connects by itself, again and again; meanwhile every call fails at once."""

    def __init__(self, config: Config, on_connect: Callable[[], None]) -> None:
        """Prepare the connection that ``config`` describes; ``on_connect`` is called whenever it stands."""
        self._config = config
        self._on_connect = on_connect
        self._scripts: list[Script] = []
        self._loop: asyncio.AbstractEventLoop
        self._waiting: deque[_Waiting] = deque()
        self._outgoing = bytearray()
        self._timer: asyncio.TimerHandle | None = None
        self._failures = 0
        self._connector: asyncio.Task[None] | None = None
        self._closed = False
        self.wire: _Wire | None = None
        self.up = False
        self.errors = 0

    def script(self, *parts: str) -> Script:
        """A script that is loaded at every connection."""
        script = Script(*parts)
        self._scripts.append(script)
        return script

    def start(self) -> None:
        """Begin to connect; needs a running loop."""
        self._loop = asyncio.get_running_loop()
        self._reconnect()

    async def close(self) -> None:
        """End the connection for good."""
        self._closed = True
        if self._connector:
            self._connector.cancel()
        self.drop("closed")

    def call(self, *words: Word) -> asyncio.Future[Any]:
        """Send one command; its future is the reply, or Unavailable."""
        future = self._loop.create_future()
        self._submit(_packed(*words), None, functools.partial(settle, future))
        return future

    def run(self, script: Script, count: int, arguments: Sequence[Word]) -> asyncio.Future[Any]:
        """Run a script whose first ``count`` arguments are keys."""
        future = self._loop.create_future()
        self.ask(script.question(count, arguments), functools.partial(settle, future))
        return future

    def ask(self, question: Question, hand: Hand) -> None:
        """The same without a future: ``hand`` is called once with the reply or an Unavailable, perhaps at once."""
        self._submit(question[1], question, hand)

    def _submit(self, packed: bytes, again: Question | None, hand: Hand) -> None:
        if self.up:
            self._send(packed, again, hand)
        else:
            self.errors += 1
            hand(Unavailable("not connected"))

    def _send(self, packed: bytes, again: Question | None, hand: Hand | None) -> None:
        # The loop's own clock stands still while it works.
        now = monotonic()
        self._waiting.append(_Waiting(hand, now, again))
        if not self._outgoing:
            self._loop.call_soon(self._flush)
        self._outgoing += packed
        if self._timer is None:
            self._timer = self._loop.call_later(self._config.redis_timeout, self._overdue, False)
        if len(self._outgoing) >= _CHUNK_BYTES:
            self._flush()

    def _flush(self) -> None:
        if self.wire and self._outgoing:
            self.wire.transport.write(bytes(self._outgoing))
        self._outgoing.clear()

    def answered(self, reply: Any) -> None:
        """Hand a reply to who has waited longest."""
        waiting = self._waiting.popleft()
        self._failures = 0
        if type(reply) is not hiredis.ReplyError:
            if waiting.hand:
                waiting.hand(reply)
        elif waiting.again and str(reply).startswith("NOSCRIPT"):
            # Loaded again, and repeated: the first try did nothing, so nothing counts twice.
            script, packed = waiting.again
            self._send(_packed("SCRIPT", "LOAD", script.text), None, None)
            self._send(packed, None, waiting.hand)
        else:
            self._fail(waiting, str(reply))

    def _fail(self, waiting: _Waiting, why: str) -> None:
        hand, waiting.hand = waiting.hand, None
        if hand:
            self.errors += 1
            hand(Unavailable(why))

    def _overdue(self, certain: bool) -> None:
        """Fail those that have waited too long; their replies are still expected, in their place."""
        self._timer = None
        before = monotonic() - self._config.redis_timeout
        late = [waiting for waiting in self._waiting if waiting.hand and waiting.sent <= before]
        if late and not certain:
            self._timer = self._loop.call_later(_GRACE_SECONDS, self._overdue, True)
            return
        for waiting in late:
            self._fail(waiting, f"no answer within {self._config.redis_timeout} s")
        if late:
            self._failures += 1
            if self._failures >= _FAILURES:
                self.drop(f"no answer {_FAILURES} times within {self._config.redis_timeout} s")
                return
        first = next((waiting.sent for waiting in self._waiting if waiting.hand), None)
        if first is not None and self._timer is None:
            self._timer = self._loop.call_later(max(0.001, first - before), self._overdue, False)

    def drop(self, why: str) -> None:
        """Give the connection up: fail who waits, and connect again."""
        wire, self.wire = self.wire, None
        if wire:
            wire.transport.abort()
        if self.up and not self._closed:
            _log.error("redis is unavailable: %s", why)
        self.up = False
        self._failures = 0
        if self._timer:
            self._timer.cancel()
            self._timer = None
        self._outgoing.clear()
        waiting, self._waiting = self._waiting, deque()
        for one in waiting:
            self._fail(one, why)
        self._reconnect()

    def _reconnect(self) -> None:
        if not self._closed and (self._connector is None or self._connector.done()):
            self._connector = self._loop.create_task(self._connect())

    async def _connect(self) -> None:
        """Try until the connection stands and Redis answers on it."""
        pause, told = _FIRST_PROBE_SECONDS, ""
        while not self._closed:
            try:
                async with asyncio.timeout(_PROBE_SECONDS):
                    _, self.wire = await self._loop.create_connection(
                        lambda: _Wire(self), self._config.redis_host, self._config.redis_port
                    )
                    await self._greet()
            except (OSError, TimeoutError, Unavailable) as error:
                # One line for each reason, not one for each try.
                if (why := str(error) or "no answer") != told:
                    _log.error("redis cannot be reached: %s", why)
                told = why
                self.drop(why)
                await asyncio.sleep(pause)
                pause = min(2 * pause, _PROBE_SECONDS)
            else:
                self.up = True
                _log.info("redis answers")
                self._on_connect()
                return

    async def _greet(self) -> None:
        commands = [("AUTH", self._config.redis_user, self._config.redis_password), ("PING",)]
        commands += [("SCRIPT", "LOAD", script.text) for script in self._scripts]
        replies = []
        for command in commands:
            future = self._loop.create_future()
            self._send(_packed(*command), None, functools.partial(settle, future))
            replies.append(future)
        failed = [one for one in await asyncio.gather(*replies, return_exceptions=True) if isinstance(one, Exception)]
        if failed:
            raise failed[0]


def settle(future: asyncio.Future[Any], reply: Any) -> None:
    """Hand a reply, or an Unavailable, to who waits for it."""
    if future.done():
        return
    if isinstance(reply, Unavailable):
        future.set_exception(reply)
    else:
        future.set_result(reply)


def _packed(*words: Word) -> bytes:
    # What hiredis says of itself allows tuples of one word only.
    return bytes(hiredis.pack_command(words))  # type: ignore[arg-type]
