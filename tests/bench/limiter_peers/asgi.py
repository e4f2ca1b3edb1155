"""The same limiter behind uvicorn: what a front of our own is worth. ``uvicorn asgi:app``."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import Any

from rate_limiter.config import Config
from rate_limiter.http_front import Later, Request, Response
from rate_limiter.server import Server

Send = Callable[[dict[str, Any]], Awaitable[None]]
Receive = Callable[[], Awaitable[dict[str, Any]]]

server = Server(Config.from_environment(os.environ))


async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    """One request, or the server's start and stop."""
    if scope["type"] == "lifespan":
        await receive()
        server.limiter.start()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await server.limiter.close()
        await send({"type": "lifespan.shutdown.complete"})
        return
    message = await receive()
    body = message.get("body", b"")
    while message.get("more_body"):
        message = await receive()
        body += message.get("body", b"")
    response = await answered(Request(scope["method"], scope["path"], scope["query_string"], b"", body, True))
    headers = [
        (b"content-type", response.content_type),
        (b"content-length", b"%d" % len(response.body)),
        *(tuple(line.split(b": ", 1)) for line in response.head.split(b"\r\n") if line),
    ]
    await send({"type": "http.response.start", "status": response.status, "headers": headers})
    await send({"type": "http.response.body", "body": response.body})


async def answered(request: Request) -> Response:
    """What `handle` answers, awaited."""
    answer = server.api.handle(request)
    if isinstance(answer, Later):
        if answer.response:
            return answer.response
        future: asyncio.Future[Response] = asyncio.get_running_loop().create_future()
        answer.tell = future.set_result
        return await future
    return answer if isinstance(answer, Response) else await answer
