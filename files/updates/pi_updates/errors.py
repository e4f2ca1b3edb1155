"""What ends the program: a text for a person that says what is wrong, where, and what to do."""

from __future__ import annotations


class UpdateError(Exception):
    """Something could not be done."""


class Refused(UpdateError):
    """What was asked for makes no sense now; nothing was touched."""


class Busy(UpdateError):
    """Somebody is at work who must not be disturbed; nothing was touched."""


class Unhealthy(UpdateError):
    """What is new does not work."""
