"""What the journal gets: `journalctl -t pi-commerce-notify`."""

from __future__ import annotations

import syslog

NAME = "pi-commerce-notify"


def _say(priority: int, text: str) -> None:
    syslog.openlog(NAME)
    syslog.syslog(priority, text.replace("\n", " | "))


def info(text: str) -> None:
    """Something that is as it should be."""
    _say(syslog.LOG_INFO, text)


def warning(text: str) -> None:
    """Something that somebody should know."""
    _say(syslog.LOG_WARNING, text)


def error(text: str) -> None:
    """Something that is broken."""
    _say(syslog.LOG_ERR, text)
