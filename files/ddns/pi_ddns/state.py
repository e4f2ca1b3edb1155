"""What was sent and confirmed, what failed, and when to try again. Pure, but for reading and writing the file."""

from __future__ import annotations

import json
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from pi_common import files
from pi_common.locks import held

from .errors import Busy, DdnsError, Refused, Unseen

# The longest wait (s) after failures.
LONGEST = 3600


@dataclass
class State:
    """Times are seconds since the epoch, 0 for never. `sent` has the addresses by family, of all names.

    `pause` (s) is how long the provider was left alone last.
    """

    sent: dict[str, str] = field(default_factory=dict)
    names: list[str] = field(default_factory=list)
    sent_at: float = 0
    confirmed_at: float = 0
    begun_at: float = 0
    failures: int = 0
    pause: float = 0
    until: float = 0
    error: str = ""
    refused: bool = False
    alarmed: bool = False

    def due(self, now: float) -> bool:
        """Whether the wait after failures is over. One that ends after the longest is of a clock that was wrong."""
        return now >= self.until or self.until > now + LONGEST

    def failed(self, now: float, error: DdnsError, every: float) -> None:
        """Wait twice as long as the time before, from `every` (s) on; at least what the other side asks for.

        An address that is not known is looked for every time: the line may be back, and elsewhere.
        """
        self.failures += 1
        self.error, self.refused = str(error), isinstance(error, Refused)
        if isinstance(error, Unseen):
            self.until = now + every
            return
        self.pause = min(2 * self.pause or every, LONGEST)
        self.until = now + max(self.pause, min(error.wait, LONGEST))

    def confirmed(self, now: float) -> None:
        """All is as it should be."""
        self.failures, self.pause, self.until, self.confirmed_at = 0, 0, 0, now
        self.error, self.refused = "", False

    def stale(self, now: float, minutes: int) -> bool:
        """Whether nobody has confirmed for so long that the names lead to the right place."""
        since = max(self.confirmed_at, self.begun_at)
        # A time in the future is of a clock that was wrong.
        return since > now or now - since > minutes * 60


def load(path: Path, now: float) -> State:
    """What was kept; a new state where there is nothing that can be read, for it can all be asked again."""
    try:
        return State(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return State(begun_at=now)


def save(path: Path, state: State) -> None:
    """Keep it: whole, or as it was."""
    files.write_json(path, asdict(state))


def locked(folder: Path) -> AbstractContextManager[None]:
    """One process at a time. Raises Busy."""
    return held(folder / ".lock", Busy(f"{folder}: another process is at work"))
