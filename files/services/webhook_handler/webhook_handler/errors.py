"""What is refused, and what cannot be done now."""

from __future__ import annotations


class ConfigError(Exception):
    """A setting is wrong; the message names the file or variable, the key, and what is expected."""


class Refused(Exception):
    """A request is answered with an error; nothing of it is kept."""

    def __init__(self, status: int, reason: str, error: str, retry_after: float | None = None) -> None:
        """``reason`` is one word for the metrics, ``error`` a sentence for people."""
        super().__init__(error)
        self.status = status
        self.reason = reason
        self.retry_after = retry_after


class Unavailable(Refused):
    """Not now: the provider is to try again."""

    def __init__(self, reason: str, error: str, retry_after: float = 5) -> None:
        super().__init__(503, reason, error, retry_after)


def forged(error: str) -> Refused:
    """Whoever sent this has not proven who they are."""
    return Refused(401, "signature", error)
