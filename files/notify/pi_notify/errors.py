"""What ends the program: a text for a person that says what is wrong, where, and what to do."""

from __future__ import annotations

from pi_common import errors


class NotifyError(errors.PiError):
    """A message cannot be kept."""


class Refused(NotifyError, errors.Refused):
    """What was asked for makes no sense; nothing was kept."""


class Busy(NotifyError, errors.Busy):
    """Another process holds the lock."""
