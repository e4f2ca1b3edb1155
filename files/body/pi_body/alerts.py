"""Tells people, through `pi-commerce-notify`: each thing once until it is over."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable, Mapping
from typing import NamedTuple

PROGRAM = "pi-commerce-notify"
SECONDS = 60


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
        if key not in wanted and (not over or say("info", over, "This is over.")) and _call("--key", key, "--clear"):
            del told[key]
    for key, alert in wanted.items():
        if key not in told and say(alert.level, alert.title, alert.body, key):
            told[key] = alert.over
    return told


def say(level: str, title: str, body: str, key: str = "") -> bool:
    """Hand a message over; whether that worked. It stands in the journal, too."""
    print(f"{level}: {title}: {body}", flush=True)
    return _call("--level", level, *(("--key", key) if key else ()), title, text=body)


def _call(*words: str, text: str = "") -> bool:
    try:
        subprocess.run((PROGRAM, *words), input=text, text=True, timeout=SECONDS, check=True)
    except FileNotFoundError:
        # Nobody is to be told, the journal has it.
        return True
    except (OSError, subprocess.SubprocessError) as problem:
        print(f"{PROGRAM}: {problem}", file=sys.stderr, flush=True)
        return False
    return True
