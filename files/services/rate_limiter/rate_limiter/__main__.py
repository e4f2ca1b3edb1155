"""Start the service: ``python -m rate_limiter``. Exit code 2: a setting is wrong."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import sys

import uvloop

from . import __version__, logs
from .config import Config
from .errors import ConfigError
from .server import Server

_log = logging.getLogger("rate_limiter")


def main() -> int:
    """Serve until SIGTERM; return the exit code."""
    logs.configure()
    try:
        server = Server(Config.from_environment(os.environ))
    except ConfigError as error:
        _log.critical("refusing to start: %s", error)
        return 2
    uvloop.run(_serve(server))
    return 0


async def _serve(server: Server) -> None:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    # What is loaded by now stays: to look through it again and again would hold checks up for milliseconds.
    gc.collect()
    gc.freeze()
    await server.start()
    _log.info("version %s, port %d, limits of %s", __version__, server.port, ", ".join(server.apis))
    await stopped.wait()
    await server.stop()


if __name__ == "__main__":
    sys.exit(main())
