"""What ends a job: a text for a person that says what is wrong, where, and what to do."""

from __future__ import annotations


class BackupError(Exception):
    """A job, or a part of one, cannot be done."""


class Busy(BackupError):
    """Another job holds the lock; nothing is wrong, this run is left out."""


class Refused(BackupError):
    """What was asked for would do harm, or makes no sense; nothing was touched."""
