"""What ends the program: a text for a person that says what is wrong, where, and what to do."""

from __future__ import annotations


class NotifyError(Exception):
    """A message cannot be kept."""


class Refused(NotifyError):
    """What was asked for makes no sense; nothing was kept."""


class Busy(NotifyError):
    """Another process holds the lock."""
