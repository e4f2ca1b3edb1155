"""Filters for the tokens of those who ask the rate limiter."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

CALLER = "rate_limiter_token_"


def caller_token_names(callers: Iterable[str]) -> list[str]:
    """The secrets of those who ask the rate limiter from outside; our services declare theirs in the catalog."""
    return sorted(f"{CALLER}{name}" for name in callers)


def caller_digests(names: Iterable[str], secrets: Mapping[str, str]) -> dict[str, Any]:
    """The file by which the rate limiter knows its callers again: digests, so that it holds no token.

    ``names`` are those of secrets of all kinds. A token that is not made yet is left out.
    """
    return {
        "callers": {
            name.removeprefix(CALLER): hashlib.sha256(secrets[name].encode()).hexdigest()
            for name in names
            if name.startswith(CALLER) and name in secrets
        }
    }


class FilterModule:
    """Registers the filters."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Name to function."""
        return {"caller_digests": caller_digests, "caller_token_names": caller_token_names}
