"""Filters for the tokens of the posting queue's accounts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

ACCOUNT = "posting_token_"


def posting_token_names(accounts: Mapping[str, Any]) -> list[str]:
    """The secrets that Instagram hands out: one for the account of each store."""
    return sorted(_token(store) for store in accounts)


def posting_secrets(accounts: Mapping[str, Any], secrets: Mapping[str, str]) -> dict[str, str]:
    """The file of tokens as the posting queue reads it. One that is not made yet is empty."""
    return {store: secrets.get(_token(store), "") for store in accounts}


def _token(store: str) -> str:
    return f"{ACCOUNT}{store.replace('-', '_')}"


class FilterModule:
    """Registers the filters."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Name to function."""
        return {"posting_secrets": posting_secrets, "posting_token_names": posting_token_names}
