"""The ladder: what was checked, how each check ended, and what that says of the copies."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from .. import docker
from ..commands import CommandFailed
from ..errors import BackupError

Result = TypeVar("Result")

PASSED, FAILED, UNABLE, LEFT = "passed", "failed", "could not run", "not asked for"
VERIFIED, BAD, UNKNOWN = "verified", "FAILED", "COULD-NOT-VERIFY"
EXIT = {VERIFIED: 0, BAD: 1, UNKNOWN: 2}
# Of this machine, not of the copies.
FULL = (errno.ENOSPC, errno.EDQUOT)
ENDED_BY_FORCE = (124, 125, 137)  # its time was up, Docker could not start it, it was killed (memory)


class Unable(BackupError):
    """A check could not be carried out; what it would have found is not known."""


class TimeUp(Unable):
    """The whole drill has taken as long as it may."""


class Left(BackupError):
    """A check was not asked for here; the text says where it is done."""


def ended(container: str, what: str) -> BackupError:
    """The error that a container which has ended stands for; what was killed from outside proves nothing."""
    state = (docker.inspected("container", container) or {"State": {"ExitCode": 137, "OOMKilled": False}})["State"]
    if state["OOMKilled"] or state["ExitCode"] in ENDED_BY_FORCE:
        return Unable(f"{what}: it was killed ({state['ExitCode']}); is there memory for it?")
    lines = docker.docker("logs", "--tail=60", container, both=True).splitlines()
    # Where in its own code a program fell tells nobody what is wrong.
    said = "\n".join([line for line in lines if not line.lstrip().startswith("at ")][-8:]).strip()
    return BackupError(f"{what}: {said[-600:]}")


@dataclass
class Check:
    """How one check ended. It fetched `size` bytes in `fetching` seconds; `figures` are what else it measured."""

    name: str
    outcome: str
    text: str
    seconds: float = 0.0
    size: int = 0
    fetching: float = 0.0
    figures: dict[str, Any] = field(default_factory=dict)


class Ladder:
    """All checks of one drill. After `deadline` (of the monotonic clock) none is begun any more."""

    def __init__(self, deadline: float, say: Callable[[str], None]) -> None:
        """`say` tells whoever watches."""
        self.deadline, self.say = deadline, say
        # Of an error: whether it may come from this machine or the line rather than from the copies.
        self.doubt: Callable[[BackupError], bool] = lambda error: False
        self.done: list[Check] = []
        self.current = Check("", UNABLE, "")

    def check(self, name: str, part: Callable[[], Result]) -> Result | None:
        """Carry out a check, which tells what it found by `note`; its result, None where it did not pass."""
        self.current = entry = Check(name, UNABLE, "")
        started = time.monotonic()
        result = None
        try:
            if started > self.deadline:
                raise TimeUp("the time for the whole drill is up")
            result = part()
            entry.outcome = PASSED
        except Left as error:
            entry.outcome, entry.text = LEFT, str(error)
        except (BackupError, OSError, ValueError, KeyError, TypeError) as error:
            entry.outcome, entry.text = self._judged(error)
        entry.seconds = time.monotonic() - started
        self.done.append(entry)
        self.say(f"{entry.outcome:<13} {name}: {entry.text}")
        return result

    def note(self, text: str, **figures: Any) -> None:
        """What the check under way has found."""
        self.current.text = text
        self.current.figures.update(figures)

    def _judged(self, error: Exception) -> tuple[str, str]:
        if isinstance(error, OSError):
            return (UNABLE if error.errno in FULL else FAILED), str(error)
        if not isinstance(error, BackupError):
            return FAILED, f"what was saved is not what this program writes: {error!r}"
        if isinstance(error, Unable):
            return UNABLE, str(error)
        full = "no space left on device" in str(error) or "disk quota exceeded" in str(error)
        if isinstance(error, CommandFailed) and (
            error.status is None or error.status in ENDED_BY_FORCE or error.name.startswith("docker ")
        ):
            return UNABLE, str(error)
        return (UNABLE if full or self.doubt(error) else FAILED), str(error)

    @property
    def verdict(self) -> str:
        """What all of it says. One that failed counts for more than one that could not run."""
        outcomes = {entry.outcome for entry in self.done}
        if FAILED in outcomes:
            return BAD
        return UNKNOWN if UNABLE in outcomes or PASSED not in outcomes else VERIFIED
