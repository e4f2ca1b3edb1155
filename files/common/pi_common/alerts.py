"""Tells people, through pi-commerce-notify where that is installed; the journal has it in any case."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from .commands import CommandFailed, run

PROGRAM = "pi-commerce-notify"
SECONDS = 120
# What it takes; it says itself which machine it is that tells.
TITLE_CHARACTERS, BODY_CHARACTERS = 200, 4000


class Alert(NamedTuple):
    """Something to tell. `over` is what is said when it has ended; nothing where it is empty."""

    key: str
    level: str
    title: str
    body: str
    over: str = ""


def follow(standing: Mapping[str, str], due: Iterable[Alert]) -> dict[str, str]:
    """Tell what is new and what is over; what is told of from now on, each key with its `over`.

    What could not be handed over is tried again the next time.
    """
    wanted = {alert.key: alert for alert in due}
    told = dict(standing)
    for key, over in standing.items():
        # Its end is told before the key is free again: were it the other way round, it might never be told.
        if key not in wanted and (not over or say("info", over, "This is over.")) and clear(key):
            del told[key]
    for key, alert in wanted.items():
        if key not in told and say(alert.level, alert.title, alert.body, key):
            told[key] = alert.over
    return told


def say(level: str, title: str, body: str, key: str = "") -> bool:
    """Hand a message over, with a key once until that is cleared; whether it worked. It stands in the journal, too."""
    print(f"{level}: {title}: {body}", flush=True)
    keyed = ("--key", key) if key else ()
    return _call(*keyed, "--level", level, title[:TITLE_CHARACTERS], text=body[:BODY_CHARACTERS])


def clear(key: str) -> bool:
    """What was told under `key` is over; whether that could be handed over."""
    return _call("--key", key, "--clear")


def _call(*words: str, text: str = "") -> bool:
    if not shutil.which(PROGRAM):
        # Nobody is to be told, the journal has it.
        return True
    try:
        run(PROGRAM, *words, text=text, seconds=SECONDS)
    except CommandFailed as problem:
        print(problem, file=sys.stderr, flush=True)
        return False
    return True
