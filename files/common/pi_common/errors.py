"""What ends a program: a text for a person that says what is wrong, where, and what to do."""

from __future__ import annotations


class PiError(Exception):
    """Something could not be done."""


class Refused(PiError):
    """What was asked for makes no sense now, or the settings do not; nothing was touched."""


class Busy(PiError):
    """Somebody is at work who must not be disturbed; nothing was touched."""
