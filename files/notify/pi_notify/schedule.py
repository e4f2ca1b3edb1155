"""When which message goes where. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from .outbox import Message
from .words import WAIT_SECONDS

# After so many seconds a target is tried again at the latest.
BACKOFF_SECONDS = 900.0


def backoff(failures: int, cadence: float, jitter: float) -> float:
    """Seconds to wait after so many failures in a row (from 1): doubled each time, from cron's cadence to a bound.

    `jitter` from 0 to 1 takes away up to half of it, but never so much that it ends before cron's next run.
    """
    whole = min(BACKOFF_SECONDS, cadence * 2.0 ** min(failures - 1, 30))
    return max(cadence * 0.9, whole * (1 - jitter / 2))


def is_over(until: float, now: float) -> bool:
    """Whether a wait has ended, or seems longer than any that is given: then the clock was set back."""
    return now >= until or until - now > 2 * WAIT_SECONDS


def due(messages: Iterable[Message], states: Mapping[str, Mapping[str, Any]], now: float) -> list[tuple[Message, str]]:
    """What may be sent now, and to whom: what was tried least first, then what matters most, then the oldest."""
    pairs = [
        (message, target)
        for message in messages
        for target in message.waiting
        if is_over(states.get(target, {}).get("until", 0.0), now) and is_over(message.tries(target)["until"], now)
    ]
    return sorted(pairs, key=lambda pair: (pair[0].tries(pair[1])["attempts"], -pair[0].rank, pair[0].name))
