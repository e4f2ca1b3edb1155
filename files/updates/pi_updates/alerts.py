"""Tells the owner, through pi-commerce-notify where that is installed; the journal has it in any case."""

from __future__ import annotations

import syslog
from pathlib import Path

from .commands import CommandFailed, run

PROGRAM = Path("/usr/local/sbin/pi-commerce-notify")
# What it takes; it says itself which machine it is that tells.
TITLE_CHARACTERS, BODY_CHARACTERS = 200, 4000


def tell(key: str, level: str, title: str, text: str) -> None:
    """Say something once, until it is cleared."""
    syslog.syslog(syslog.LOG_ERR if level != "info" else syslog.LOG_INFO, f"{title}: {text}")
    _call("--key", key, "--level", level, title[:TITLE_CHARACTERS], text=text[:BODY_CHARACTERS])


def clear(key: str) -> None:
    """What was told under `key` is over."""
    _call("--key", key, "--clear")


def _call(*words: str, text: str = "") -> None:
    if not PROGRAM.exists():
        return
    try:
        run(str(PROGRAM), *words, text=text, seconds=120)
    except CommandFailed as error:
        syslog.syslog(syslog.LOG_ERR, f"cannot be told: {error}")
