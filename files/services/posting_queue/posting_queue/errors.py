"""Why something is not done, or not now."""

from __future__ import annotations


class ConfigError(Exception):
    """A setting is wrong; the message names the file or variable, the key, and what is expected."""


class Refused(Exception):
    """The provider will never take this."""


class Away(Exception):
    """No answer that could be understood: what was asked may have happened, or not."""


class Later(Exception):
    """Not now, and nobody's fault: after ``seconds``."""

    def __init__(self, reason: str, seconds: float) -> None:
        super().__init__(reason)
        self.seconds = seconds


class Throttled(Later):
    """The provider itself has refused for ``seconds``; ``api`` is the limit it meant."""

    def __init__(self, reason: str, seconds: float, api: str) -> None:
        super().__init__(reason, seconds)
        self.api = api
