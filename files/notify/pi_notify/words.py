"""Texts: what is sent, what a service has answered, and what of that may be repeated. Pure."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping, Sequence
from email.utils import parsedate_to_datetime
from functools import partial
from urllib.parse import quote, quote_plus, unquote

from .outbox import Message

# What a service may ask us to wait at most; some send nonsense.
WAIT_SECONDS = 3600.0
# Shorter parts of a URL are no secrets, and would leave no word readable.
SHORTEST_SECRET = 4


def text_of(message: Message) -> str:
    """The text that is sent: it may arrive late, or twice, and lets that be seen."""
    raised = time.strftime("%Y-%m-%d %H:%M:%S %Z", time.localtime(message.created))
    return f"{message.level}, {raised}, {message.id}\n\n{message.body}"


def asked_wait(headers: Mapping[str, str], content: bytes, now: float) -> float:
    """Seconds that an HTTP answer asks us to wait: by Retry-After (seconds or a date), or in Telegram's own way."""
    given = headers.get("Retry-After", "").strip()
    wait = 0.0
    try:
        if re.fullmatch(r"\d{1,9}", given):
            wait = float(given)
        elif given:
            wait = parsedate_to_datetime(given).timestamp() - now
        else:
            wait = float(json.loads(content)["parameters"]["retry_after"])
    except (ValueError, TypeError, KeyError, IndexError, OverflowError, RecursionError):
        return 0.0
    # Compared this way round a NaN is 0, too.
    return min(wait, WAIT_SECONDS) if wait > 0 else 0.0


def secrets_of(url: str) -> list[str]:
    """Every part of an Apprise URL that may be a secret, as it is, decoded and encoded; the longest first."""
    parts = {part for part in re.split(r"[/:@?&=#,]+", url.partition("://")[2]) if len(part) >= SHORTEST_SECRET}
    parts |= {unquote(part) for part in parts}
    parts |= {encode(part) for part in parts for encode in (partial(quote, safe=""), quote_plus)}
    return sorted({url, *parts}, key=len, reverse=True)


def scrubbed(text: str, secrets: Sequence[str]) -> str:
    """The text without them."""
    for secret in secrets:
        text = text.replace(secret, "***")
    return text
