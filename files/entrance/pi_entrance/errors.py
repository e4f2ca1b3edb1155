"""What ends a run: a text for a person that says what is wrong, where, and what to do."""

from __future__ import annotations


class EntranceError(Exception):
    """It did not work this time; what was in force stays."""


class Refused(EntranceError):
    """What was asked for makes no sense: trying again changes nothing."""
