"""What ends a run: a text for a person that says what is wrong, where, and what to do."""

from __future__ import annotations

from pi_common import errors


class DdnsError(errors.PiError):
    """It did not work this time. `wait` is how long (s) the other side asks to be left alone, 0 where it does not."""

    def __init__(self, text: str, wait: float = 0) -> None:
        super().__init__(text)
        self.wait = wait


class Unseen(DdnsError):
    """The line's address is not known: nobody was bothered, so nobody has to be spared."""


class Refused(DdnsError, errors.Refused):
    """The provider does not take what we say: trying again changes nothing, a person has to."""


class Busy(DdnsError, errors.Busy):
    """Another process is at work."""
