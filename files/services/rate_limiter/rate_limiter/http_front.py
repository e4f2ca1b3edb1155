"""The HTTP front: one asyncio protocol over httptools.

One request at a time per connection, answered in order; whoever is slow or sends too much is cut off. It knows nothing
of limits: what to answer comes from `handle`.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections import deque
from collections.abc import Callable, Coroutine
from http import HTTPStatus
from time import monotonic
from typing import Any, cast

import httptools
import msgspec

MAX_BODY_BYTES = 16 * 1024
MAX_HEAD_BYTES = 16 * 1024
MAX_CONNECTIONS = 4096
# Seconds for a whole request, for taking an answer, and between two requests.
REQUEST_SECONDS = 5.0
IDLE_SECONDS = 75.0
# Requests that a connection may send ahead of their answers.
_AHEAD = 16
_log = logging.getLogger(__name__)

_REASONS = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}


class Request(msgspec.Struct):
    """One request; the body is whole."""

    method: str
    path: str
    query: bytes
    authorization: bytes
    body: bytes
    keep_alive: bool


class Response(msgspec.Struct):
    """One answer. ``head`` holds further header lines, each ended by CRLF."""

    status: int
    body: bytes
    head: bytes = b""
    content_type: bytes = b"application/json"


class Later:
    """An answer that comes by a call of `give`: what many wait for at once needs no task each."""

    __slots__ = ("response", "tell")

    def __init__(self) -> None:
        """Not there yet."""
        self.response: Response | None = None
        self.tell: Callable[[Response], None] | None = None

    def give(self, response: Response) -> None:
        """Here it is."""
        if self.tell:
            self.tell(response)
        else:
            self.response = response


Answer = Response | Later | Coroutine[Any, Any, Response]


def error(status: int, text: str, head: bytes = b"", **details: object) -> Response:
    """An answer ``{"error": text, **details}``."""
    return Response(status, msgspec.json.encode({"error": text, **details}), head)


class Connection(asyncio.Protocol):
    """One client. ``since`` is when it began what it is doing: sending a request, or nothing."""

    def __init__(self, front: Front) -> None:
        """Belong to a front."""
        self.front = front
        self.transport: asyncio.Transport
        self.since = monotonic()
        self.receiving = False
        self.answering: asyncio.Task[None] | Later | None = None
        self.stuck = False
        self.closing = False
        self._refused = False
        self._parser = httptools.HttpRequestParser(self)
        self._queue: deque[Request | Response] = deque()
        self._begin()

    def _begin(self) -> None:
        self._url = b""
        self._authorization = b""
        self._body: list[bytes] = []
        self._size = self._head = 0

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the client in, unless there are too many."""
        self.transport = cast(asyncio.Transport, transport)
        self.front.connections.add(self)
        if len(self.front.connections) > MAX_CONNECTIONS:
            self._refuse(error(503, f"more than {MAX_CONNECTIONS} connections", b"retry-after: 1\r\n"))

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the client; what was taken for it stays taken."""
        self.front.connections.discard(self)
        self.closing = True
        self._queue.clear()

    def data_received(self, data: bytes) -> None:
        """Parse."""
        if self.closing:
            return
        if not self.receiving:
            self.since = monotonic()
            self.receiving = True
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._refuse(error(400, "upgrades are not spoken here"))
        except httptools.HttpParserError as problem:
            # One of our own callbacks may have ended it.
            if not self.closing:
                self._refuse(error(400, f"not HTTP: {problem}"))
        if self._head >= 0:
            # The body is counted as it comes, this bounds what comes before it.
            self._head += len(data)
        if self._head > MAX_HEAD_BYTES + MAX_BODY_BYTES and not self.closing:
            self._refuse(error(431, f"the head is larger than {MAX_HEAD_BYTES} bytes"))

    def eof_received(self) -> bool:
        """Answer what was asked before, then close."""
        if self.answering is None and not self._queue:
            return False
        self.closing = True
        return True

    def pause_writing(self) -> None:
        """The client does not take its answers."""
        self.stuck = True
        self.since = monotonic()
        self.transport.pause_reading()

    def resume_writing(self) -> None:
        """It does again."""
        self.stuck = False
        self.transport.resume_reading()
        self._next()

    # What the parser calls.

    def on_message_begin(self) -> None:
        """A request begins."""
        self._begin()

    def on_url(self, url: bytes) -> None:
        """It may come in parts."""
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Of all headers the service reads one."""
        if len(name) == 13 and name.lower() == b"authorization":
            self._authorization = value
        elif len(name) == 6 and name.lower() == b"expect" and value.lower() == b"100-continue":
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_headers_complete(self) -> None:
        """From now on it is the body that counts."""
        self._head = -1

    def on_body(self, body: bytes) -> None:
        """Collect it, up to the limit."""
        self._size += len(body)
        if self._size > MAX_BODY_BYTES:
            self._refuse(error(413, f"the body is larger than {MAX_BODY_BYTES} bytes"))
        else:
            self._body.append(body)

    def on_message_complete(self) -> None:
        """A whole request."""
        if self.closing:
            return
        self.receiving = False
        keep_alive = self._parser.should_keep_alive()
        method = self._parser.get_method().decode("ascii")
        path, _, query = self._url.partition(b"?")
        request = Request(method, path.decode("latin-1"), query, self._authorization, b"".join(self._body), keep_alive)
        # What comes now counts for the next head; the rest is set anew where that begins.
        self._body, self._head = [], 0
        if self.answering is None and not self.stuck and not self._queue:
            self._handle(request)
            return
        self._queue.append(request)
        if len(self._queue) > _AHEAD:
            self._refuse(error(400, f"more than {_AHEAD} requests were sent ahead"))

    # Answering.

    def _next(self) -> None:
        while self._queue and self.answering is None and not self.stuck:
            waiting = self._queue.popleft()
            if isinstance(waiting, Response):
                self._write(waiting, False)
                return
            self._handle(waiting)

    def _handle(self, request: Request) -> None:
        answer = self.front.handle(request)
        if isinstance(answer, Later):
            if answer.response is None:
                answer.tell = functools.partial(self._answered, request.keep_alive)
                self.answering = answer
                return
            answer = answer.response
        if isinstance(answer, Response):
            self._write(answer, request.keep_alive)
        else:
            self.answering = self.front.loop.create_task(self._wait(answer, request.keep_alive))

    async def _wait(self, answer: Coroutine[Any, Any, Response], keep_alive: bool) -> None:
        try:
            response = await answer
        except Exception:
            _log.exception("a request failed")
            response = error(500, "this is a mistake of the rate limiter, its log says more")
        self._answered(keep_alive, response)

    def _answered(self, keep_alive: bool, response: Response) -> None:
        self.answering = None
        self._write(response, keep_alive)
        if self._queue:
            self._next()

    def _write(self, response: Response, keep_alive: bool) -> None:
        keep_alive = keep_alive and not self.closing and not self.front.stopping
        self.transport.write(
            b"%bcontent-type: %b\r\ncontent-length: %d\r\n%b%b\r\n%b"
            % (
                _REASONS[response.status],
                response.content_type,
                len(response.body),
                response.head,
                b"" if keep_alive else b"connection: close\r\n",
                response.body,
            )
        )
        self.since = monotonic()
        if not keep_alive and not (self.closing and self._queue):
            self._queue.clear()
            if self._refused:
                # Closed at once, what still comes in would have the other side lose the answer. It is read and dropped.
                self.transport.write_eof()
            else:
                self.closing = True
                self.transport.close()

    def _refuse(self, response: Response) -> None:
        """Answer after all that came before, and read no more."""
        self.closing = self._refused = True
        self.receiving = False
        self._queue.append(response)
        self._next()


class Front:
    """Listens, and ends connections that take too long."""

    def __init__(self, handle: Callable[[Request], Answer]) -> None:
        """Answer by ``handle``."""
        self.handle = handle
        self.connections: set[Connection] = set()
        self.stopping = False
        self.loop: asyncio.AbstractEventLoop
        self._server: asyncio.Server
        self._sweeper: asyncio.Task[None]

    async def start(self, host: str, port: int) -> int:
        """Begin to listen; returns the port."""
        self.loop = asyncio.get_running_loop()
        self._server = await self.loop.create_server(lambda: Connection(self), host, port, backlog=MAX_CONNECTIONS)
        self._sweeper = self.loop.create_task(self._sweep())
        return int(self._server.sockets[0].getsockname()[1])

    async def stop(self, seconds: float) -> None:
        """Take no more, let those finish that have begun."""
        self.stopping = True
        self._server.close()
        for connection in list(self.connections):
            if connection.answering is None and not connection.receiving:
                connection.transport.close()
        end = monotonic() + seconds
        while self.connections and monotonic() < end:
            await asyncio.sleep(0.01)
        for connection in list(self.connections):
            connection.transport.abort()
        self._sweeper.cancel()

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(0.5)
            now = monotonic()
            for connection in list(self.connections):
                waited = now - connection.since
                if connection.receiving or connection.stuck or connection.closing:
                    if waited > REQUEST_SECONDS and connection.answering is None:
                        connection.transport.abort()
                elif waited > IDLE_SECONDS and connection.answering is None:
                    connection.transport.close()
