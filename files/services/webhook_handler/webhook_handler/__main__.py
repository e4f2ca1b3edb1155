"""``python -m webhook_handler`` serves; ``replay <id>|dead`` and ``dead`` are for people.

Exit code 2: a setting is wrong.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import sys

import uvicorn

from . import __version__, logs
from .app import App
from .config import Config
from .database import Database
from .errors import ConfigError, Unavailable
from .service import Service
from .wake import Wake

_log = logging.getLogger("webhook_handler")


def main() -> int:
    """Do what the command line says; return the exit code."""
    parser = argparse.ArgumentParser(prog="webhook_handler")
    commands = parser.add_subparsers(dest="command")
    commands.add_parser("serve", help="take webhooks in and hand them on (default)")
    commands.add_parser("dead", help="list what was given up, and why")
    commands.add_parser("replay", help="hand an event over once more").add_argument(
        "id", help="number of the event, or dead for all that was given up"
    )
    arguments = parser.parse_args()
    logs.configure()
    try:
        config = Config.from_environment(os.environ)
    except ConfigError as error:
        _log.critical("refusing to start: %s", error)
        return 2
    if arguments.command in (None, "serve"):
        return _serve(config)
    try:
        return asyncio.run(_tell(config, arguments.command, getattr(arguments, "id", "")))
    except Unavailable as error:
        print(error, file=sys.stderr)
        return 1


def _serve(config: Config) -> int:
    _log.info("version %s, port %d, webhooks of %s", __version__, config.port, ", ".join(config.settings.endpoints))
    uvicorn.run(
        App(config, Service(config)),
        host=config.host,
        port=config.port,
        loop="uvloop",
        http="httptools",
        ws="none",
        lifespan="on",
        log_config=None,
        log_level="warning",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=60,
        timeout_graceful_shutdown=10,
    )
    return 0


async def _tell(config: Config, command: str, wanted: str) -> int:
    """List or replay, straight in the database; the service that runs is woken."""
    database = Database(config.postgres)
    try:
        if command == "dead":
            for entry in await database.dead(200):
                print(json.dumps(entry, default=str))
            return 0
        if wanted != "dead" and not (wanted.isascii() and wanted.isdigit() and len(wanted) <= 18):
            print(f"'{wanted}' is no event: give its number, or dead", file=sys.stderr)
            return 2
        number = None if wanted == "dead" else int(wanted)
        event = await database.event(number) if number is not None else None
        routed = config.settings.consumers_of(event["endpoint"], event["topic"]) if event else []
        done = await database.replay(number, routed)
    finally:
        await database.close()
    if not done:
        print(f"nothing to replay: {_why(number, event)}", file=sys.stderr)
        return 1
    for inbox_id, consumer in done:
        print(f"event {inbox_id} goes to {consumer} again")
    wake = Wake(config)
    try:
        await wake.tell()
    # What waits is found without Redis too.
    except Exception as error:
        _log.warning("Redis: %s", error)
    finally:
        await wake.close()
    return 0


def _why(number: int | None, event: dict[str, object] | None) -> str:
    if number is None:
        return "nothing was given up"
    if event is None:
        return f"there is no event {number}"
    return "no consumer is declared for it" if event["payload"] else "it is so old that its content was removed"


if __name__ == "__main__":
    sys.exit(main())
