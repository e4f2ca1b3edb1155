"""What a caller may ask, from a JSON body or a query string. A mistake is told with the field it is in."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, NamedTuple
from urllib.parse import parse_qsl

import msgspec

MAX_KEY_CHARACTERS = 128
MAX_COST = 1_000_000_000
MAX_CHECKS = 100
MAX_ATTEMPT = 100
MAX_SECONDS = 30 * 24 * 3600
_DIGITS = re.compile(r"[0-9]{1,10}")
_decode = msgspec.json.Decoder().decode

Document = dict[str, Any]


class InvalidInput(Exception):
    """The input cannot be a question; the message says why."""

    def __init__(self, field: str | None, problem: str) -> None:
        """``field`` is what is wrong, None means the input as a whole."""
        super().__init__(f"{field}: {problem}" if field else problem)
        self.field = field


class Field(NamedTuple):
    """What a field is when not given (None: it has to be), when it is right, how that is said and as JSON Schema."""

    default: Any
    accepts: Callable[[Any], bool]
    expected: str
    schema: dict[str, Any]


def _text(value: Any) -> bool:
    return type(value) is str and len(value) <= MAX_KEY_CHARACTERS


def _whole(default: int, least: int, most: int) -> Field:
    # bool is an int in Python.
    return Field(
        default,
        lambda value: type(value) is int and least <= value <= most,
        f"is a whole number {least}..{most}",
        {"type": "integer", "minimum": least, "maximum": most},
    )


def _seconds(default: float | None, most: int) -> Field:
    return Field(
        default,
        lambda value: type(value) in (int, float) and 0 < value <= most,
        f"{'' if default else 'is required and '}is seconds above 0, up to {most}",
        {"type": "number", "exclusiveMinimum": 0, "maximum": most},
    )


def _scopes(value: Any) -> bool:
    return (
        type(value) is dict and len(value) <= 8 and all(_text(text) and text.isprintable() for text in value.values())
    )


_PRINTABLE = {"type": "string", "maxLength": MAX_KEY_CHARACTERS, "pattern": "^[ -~]*$"}
API = Field(
    None,
    lambda value: type(value) is str and value != "",
    "is required and is the name of an API",
    {"type": "string", "minLength": 1},
)
KEY = Field("", _text, f"is text of at most {MAX_KEY_CHARACTERS} characters", _PRINTABLE)
COST = _whole(1, 0, MAX_COST)
SCOPES = Field(
    {},
    _scopes,
    f"is an object of up to 8 texts, each of at most {MAX_KEY_CHARACTERS} characters that can be printed",
    {"type": "object", "maxProperties": 8, "additionalProperties": _PRINTABLE},
)
WHO = {"api": API, "key": KEY, "scopes": SCOPES}
CHECK = {
    **WHO,
    "cost": COST,
    "attempt": _whole(0, 0, MAX_ATTEMPT),
    "denied_status": Field(
        200,
        lambda value: type(value) is int and value in (200, 429),
        "is 200 or 429",
        {"type": "integer", "enum": [200, 429]},
    ),
}
ONE_OF_MANY = {**WHO, "cost": COST}
CHECKS = {
    "checks": Field(
        None,
        lambda value: type(value) is list and 0 < len(value) <= MAX_CHECKS,
        f"is required and is a list of 1 to {MAX_CHECKS} checks",
        {"type": "array", "minItems": 1, "maxItems": MAX_CHECKS, "items": {"$ref": "#/components/schemas/OneOfMany"}},
    ),
    "all_or_none": Field(False, lambda value: type(value) is bool, "is true or false", {"type": "boolean"}),
}
RESERVE = {**WHO, "cost": _whole(1, 1, MAX_COST), "max_wait": _seconds(60, 3600)}
REFUND = {
    **WHO,
    "id": Field(
        None,
        lambda value: _text(value) and value != "",
        "is required and is the id of a reservation",
        {"type": "string", "minLength": 1, "maxLength": MAX_KEY_CHARACTERS},
    ),
}
REPORT = {"api": API, "key": KEY, "retry_after": _seconds(None, MAX_SECONDS)}
_IN_QUERY = ("api", "key", "cost", "attempt", "denied_status")


class Check(msgspec.Struct, forbid_unknown_fields=True):
    """What CHECK describes, for the one question that is asked all the time."""

    api: str
    key: Annotated[str, msgspec.Meta(max_length=MAX_KEY_CHARACTERS)] | None = ""
    cost: Annotated[int, msgspec.Meta(ge=0, le=MAX_COST)] = 1
    scopes: Annotated[
        dict[str, Annotated[str, msgspec.Meta(max_length=MAX_KEY_CHARACTERS)]], msgspec.Meta(max_length=8)
    ] = {}
    attempt: Annotated[int, msgspec.Meta(ge=0, le=MAX_ATTEMPT)] = 0
    denied_status: Literal[200, 429] = 200


class _One(msgspec.Struct, forbid_unknown_fields=True):
    api: str
    key: Annotated[str, msgspec.Meta(max_length=MAX_KEY_CHARACTERS)] | None = ""
    scopes: Annotated[
        dict[str, Annotated[str, msgspec.Meta(max_length=MAX_KEY_CHARACTERS)]], msgspec.Meta(max_length=8)
    ] = {}
    cost: Annotated[int, msgspec.Meta(ge=0, le=MAX_COST)] = 1


class Checks(msgspec.Struct, forbid_unknown_fields=True):
    """What CHECKS describes, likewise."""

    checks: Annotated[list[_One], msgspec.Meta(min_length=1, max_length=MAX_CHECKS)]
    all_or_none: bool = False


_decode_checks = msgspec.json.Decoder(Checks).decode
_decode_check = msgspec.json.Decoder(Check).decode
NOT_FAST = (msgspec.MsgspecError, ValueError, RecursionError)


def checks_fast(body: bytes) -> Checks:
    """Read many checks that are right, as `check_fast` does."""
    many = _decode_checks(body)
    for one in many.checks:
        if not (one.api and (one.key or "").isprintable()) or not all(map(str.isprintable, one.scopes.values())):
            raise ValueError(body)
    return many


def check_fast(body: bytes) -> Check:
    """Read a check that is right; what raises NOT_FAST has to be read by `from_json`, which says what is wrong."""
    check = _decode_check(body)
    if not (check.api and (check.key or "").isprintable()) or not all(map(str.isprintable, check.scopes.values())):
        raise ValueError(body)
    return check


def from_json(body: bytes, fields: Mapping[str, Field]) -> Document:
    """Read an object with these fields. Raises InvalidInput."""
    try:
        document = _decode(body)
    # ValueError: encoding; the others: syntax, numbers beyond all bounds, brackets without end.
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise InvalidInput(None, "the body is not valid JSON") from error
    return checked(document, fields)


def checks_from_json(body: bytes) -> Checks:
    """Read many checks, each with its place where it is wrong. Raises InvalidInput."""
    asked = from_json(body, CHECKS)
    ones = [checked(one, ONE_OF_MANY, f"checks[{number}].") for number, one in enumerate(asked["checks"])]
    return Checks([_One(**one) for one in ones], asked["all_or_none"])


def from_query(query: bytes) -> Document:
    """Read a check from ``api=..&key=..&cost=..``; an empty parameter counts as not given. Raises InvalidInput."""
    try:
        pairs = parse_qsl(query.decode("ascii"), errors="strict", max_num_fields=len(_IN_QUERY))
    except ValueError as error:
        raise InvalidInput(None, f"the query is not UTF-8 or has more than {len(_IN_QUERY)} fields") from error
    document: Document = {}
    for name, value in pairs:
        if name in document:
            raise InvalidInput(name, "is given twice")
        if name == "scopes":
            raise InvalidInput(name, "is for POST only")
        # Anything but a few plain digits stays text, which is refused as a number.
        document[name] = int(value) if name not in ("api", "key") and _DIGITS.fullmatch(value) else value
    return checked(document, CHECK)


def checked(document: Any, fields: Mapping[str, Field], where: str = "") -> Document:
    """Hold a parsed object against its fields and fill in what is not given. Raises InvalidInput."""
    if type(document) is not dict:
        raise InvalidInput(
            where.rstrip(".") or None, "the body is not a JSON object" if not where else "is not a JSON object"
        )
    result = {}
    for name, field in fields.items():
        if name in document:
            value = document[name]
            # An absent tenant may be written as null.
            if value is None and name == "key":
                value = ""
            elif not field.accepts(value):
                raise InvalidInput(where + name, field.expected)
        elif field.default is None:
            raise InvalidInput(where + name, field.expected)
        else:
            value = field.default
        result[name] = value
    if len(document) > len(fields) or not document.keys() <= fields.keys():
        name = next(name for name in document if name not in fields)
        raise InvalidInput(where + name, f"is unknown; known fields are {', '.join(fields)}")
    if not result.get("key", "").isprintable():
        raise InvalidInput(where + "key", "has a character that cannot be printed")
    return result
