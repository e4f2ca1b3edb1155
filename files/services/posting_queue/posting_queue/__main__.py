"""``python -m posting_queue`` publishes; ``calendar``, ``approve``, ``reject`` and ``retry`` are for people.

Exit code 2: a setting is wrong.
"""

from __future__ import annotations

import argparse
import json
import os
import sys

import psycopg

from . import logs
from .config import Config
from .errors import ConfigError
from .store import Store


def main() -> int:
    """Do what the command line says; return the exit code."""
    parser = argparse.ArgumentParser(prog="posting_queue")
    commands = parser.add_subparsers(dest="command")
    commands.add_parser("work", help="publish what is due (default)")
    commands.add_parser("calendar", help="list what is planned, waits for a person, or was given up")
    for name, about in (
        ("approve", "let a post that waits for a person take its place"),
        ("reject", "cancel a post that is not published yet"),
        ("retry", "publish once more what was given up"),
    ):
        commands.add_parser(name, help=about).add_argument("id", type=int, help="number of the post")
    arguments = parser.parse_args()
    logs.configure()
    try:
        config = Config.from_environment(os.environ)
    except ConfigError as error:
        print(f"refusing to start: {error}", file=sys.stderr)
        return 2
    if arguments.command in (None, "work"):
        # Here, because it takes a second that the other commands do not need.
        from .tasks import Queue

        return Queue(config).work()
    try:
        with Store(config) as store:
            return _tell(store, arguments.command, getattr(arguments, "id", 0))
    except psycopg.Error as error:
        print(error, file=sys.stderr)
        return 1


def _tell(store: Store, command: str, post: int) -> int:
    if command == "calendar":
        for row in store.calendar():
            print(json.dumps(row, default=str, ensure_ascii=False))
        return 0
    done = {
        "approve": lambda: store.decide(post, "draft"),
        "reject": lambda: store.decide(post, "cancelled"),
        "retry": lambda: store.retry(post),
    }[command]()
    if not done:
        print(f"post {post} is none that {command} can be said of: look at calendar", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
