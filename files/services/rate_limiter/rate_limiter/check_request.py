"""What a caller may ask, from a JSON body or a query string."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

MAX_KEY_CHARACTERS = 128
MAX_COST = 1_000_000_000
_DIGITS = re.compile(r"[0-9]{1,10}")
_FIELDS = ("api", "key", "cost")


class InvalidInput(Exception):
    """The input cannot be a check; the message says why."""

    def __init__(self, field: str | None, problem: str) -> None:
        """``field`` is what is wrong, None means the input as a whole."""
        super().__init__(f"{field}: {problem}" if field else problem)
        self.field = field


@dataclass(frozen=True, slots=True)
class CheckRequest:
    """One check: ``cost`` units of ``api`` for the tenant ``key`` ("" = the only one)."""

    api: str
    key: str = ""
    cost: int = 1

    @classmethod
    def from_json(cls, body: bytes) -> CheckRequest:
        """Read ``{"api": str, "key": str or null, "cost": int}``. Raises InvalidInput."""
        try:
            document = json.loads(body)
        # ValueError: syntax, encoding, or a number of thousands of digits.
        except (ValueError, RecursionError) as error:
            raise InvalidInput(None, "the body is not valid JSON") from error
        if not isinstance(document, dict):
            raise InvalidInput(None, "the body is not a JSON object")
        if document.get("key", "") is None:
            del document["key"]
        return cls._checked(document)

    @classmethod
    def from_query(cls, query: bytes) -> CheckRequest:
        """Read ``api=..&key=..&cost=..``; an empty parameter counts as not given. Raises InvalidInput."""
        try:
            pairs = parse_qsl(query.decode("ascii"), errors="strict", max_num_fields=len(_FIELDS))
        except ValueError as error:
            raise InvalidInput(None, f"the query is not UTF-8 or has more than {len(_FIELDS)} fields") from error
        document: dict[str, Any] = {}
        for name, value in pairs:
            if name in document:
                raise InvalidInput(name, "is given twice")
            # Anything but a few plain digits stays text, which is refused as a cost.
            document[name] = int(value) if name == "cost" and _DIGITS.fullmatch(value) else value
        return cls._checked(document)

    @classmethod
    def _checked(cls, document: Mapping[str, Any]) -> CheckRequest:
        for name in document:
            if name not in _FIELDS:
                raise InvalidInput(str(name), f"is unknown; known fields are {', '.join(_FIELDS)}")
        request = cls(**{"api": "", **document})
        if not isinstance(request.api, str) or not request.api:
            raise InvalidInput("api", "is required and is the name of an API")
        if not isinstance(request.key, str) or len(request.key) > MAX_KEY_CHARACTERS:
            raise InvalidInput("key", f"is text of at most {MAX_KEY_CHARACTERS} characters")
        if not request.key.isprintable():
            raise InvalidInput("key", "has a character that cannot be printed")
        # bool is an int in Python.
        if type(request.cost) is not int or not 0 <= request.cost <= MAX_COST:
            raise InvalidInput("cost", f"is a whole number 0..{MAX_COST}")
        return request
