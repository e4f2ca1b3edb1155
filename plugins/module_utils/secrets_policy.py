"""What a secret must be like, and how one is made. Pure."""

from __future__ import annotations

import re
import secrets
import string

SHORTEST = 12
# Below this length one kind of character alone is too little.
SHORTEST_OF_ONE_KIND = 16
# Passwords that programs come with or that people choose first; compared after digits and signs are taken off.
WELL_KNOWN = frozenset(
    [
        "admin",
        "administrator",
        "changeme",
        "changeit",
        "default",
        "guest",
        "letmein",
        "love",
        "master",
        "monkey",
        "mysql",
        "nginx",
        "passphrase",
        "passwd",
        "password",
        "pi",
        "postgres",
        "postgresql",
        "qwerty",
        "qwertz",
        "raspberry",
        "raspberrypi",
        "redis",
        "root",
        "secret",
        "shop",
        "supersecret",
        "test",
        "toor",
        "user",
        "valkey",
        "welcome",
        "wordpress",
    ]
)
LEET = str.maketrans({"0": "o", "1": "i", "3": "e", "4": "a", "5": "s", "7": "t", "@": "a", "$": "s", "!": "i"})
KINDS = (string.ascii_lowercase, string.ascii_uppercase, string.digits)


def generate(size: int) -> str:
    """A random text of `size` bytes of entropy that every program accepts.

    URL-safe, starts with a letter, holds a digit and an upper-case letter (n8n asks for both). Raises ValueError
    below 16 bytes.
    """
    if size < 16:
        raise ValueError(f"{size} bytes are less than 128 bits")
    while True:
        text = secrets.token_urlsafe(size)
        if text[0] in string.ascii_letters and any(c.isdigit() for c in text) and any(c.isupper() for c in text):
            return text


def check(name: str, value: str) -> str | None:
    """Why `value` is not accepted as the secret `name`, or None. The value never stands in the answer."""
    if "\n" in value or "\0" in value:
        return "holds a line break or a NUL character"
    if len(value) < SHORTEST:
        return f"has {len(value)} characters, at least {SHORTEST} are needed"
    if _core(value) in WELL_KNOWN or _unleet(value) in WELL_KNOWN:
        return "is a well-known password with something added"
    if _core(value) in {_core(name), *(_core(part) for part in name.split("_") if len(part) > 2)}:
        return "is its own name"
    kinds = {next((kind for kind in KINDS if character in kind), "other") for character in value}
    if len(kinds) == 1 and len(value) < SHORTEST_OF_ONE_KIND:
        return f"has one kind of character only: mix them, or use at least {SHORTEST_OF_ONE_KIND}"
    if len(set(value)) < 6:
        return "repeats a few characters"
    return None


def _core(text: str) -> str:
    """The letters of the text, lower case, without digits and signs around and inside."""
    return re.sub(r"[^a-z]", "", text.lower())


def _unleet(text: str) -> str:
    """The same with letters for the digits and signs inside that stand for them."""
    return _core(re.sub(r"[\W\d_]+$", "", text).translate(LEET))
