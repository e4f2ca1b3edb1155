"""Telegram: the token that was given with setWebhook."""

from __future__ import annotations

from typing import Any

from ..errors import forged
from .base import Event, Options, Request, any_equal, inside, key, moment, topic, word

HEADERS = ("x-telegram-bot-api-secret-token",)
OPTIONS: dict[str, Any] = {}


async def verify(request: Request, endpoint: Options) -> None:
    """It is a password and no signature: what holds the body together is TLS."""
    given = request.header("x-telegram-bot-api-secret-token").encode()
    if not any_equal((secret.encode() for secret in endpoint.secrets), [given]):
        raise forged("x-telegram-bot-api-secret-token is not ours")


def read(request: Request, document: dict[str, Any]) -> Event:
    """An update has its number and one more field, which is its kind."""
    kinds = [name for name in document if name != "update_id"]
    about = document[kinds[0]] if len(kinds) == 1 else None
    chat = inside(about, "chat", "id") or inside(about, "message", "chat", "id") or inside(about, "from", "id")
    return Event(
        id=word(document.get("update_id"), "update_id"),
        topic=topic(kinds[0] if len(kinds) == 1 else None, "the one field beside update_id"),
        order=key(chat),
        occurred_at=moment(inside(about, "date")),
    )
