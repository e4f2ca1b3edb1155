"""What a secret must be like, and how one is made. Pure."""

from __future__ import annotations

import itertools
import math
import re
import secrets
import string

SHORTEST = 12
# Below this length one kind of character alone is too little.
SHORTEST_OF_ONE_KIND = 16
# Below this many bits (see `_bits`) a value can be guessed by trying.
LEAST_BITS = 50
# Passwords that programs come with or that people choose first, alone or one after the other.
WELL_KNOWN = frozenset(
    [
        "admin",
        "administrator",
        "asdf",
        "asdfgh",
        "changeme",
        "changeit",
        "default",
        "guest",
        "letmein",
        "love",
        "master",
        "monkey",
        "mysql",
        "n8n",
        "nginx",
        "passphrase",
        "passwd",
        "password",
        "pi",
        "postgres",
        "postgresql",
        "qwerty",
        "qwertyuiop",
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
        "zxcvbn",
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
    if _only_words(value, WELL_KNOWN):
        return "is a well-known password with something added"
    if _only_words(value, WELL_KNOWN | {part for part in name.lower().split("_") if len(part) > 1}):
        return "is its own name"
    kinds = {next((kind for kind in KINDS if character in kind), "other") for character in value}
    if len(kinds) == 1 and len(value) < SHORTEST_OF_ONE_KIND:
        return f"has one kind of character only: mix them, or use at least {SHORTEST_OF_ONE_KIND}"
    if len(set(value)) < 6:
        return "repeats a few characters"
    if _bits(value) < LEAST_BITS:
        return "repeats itself or counts on, so that it can be guessed"
    return None


def _only_words(value: str, words: frozenset[str]) -> bool:
    """Whether no letter is left of the value once the words are taken out of it, also with digits for letters."""
    lower = value.lower()
    inner = re.sub(r"[\W\d_]+$", "", lower).translate(LEET)
    pattern = re.compile("|".join(re.escape(word) for word in sorted(words, key=len, reverse=True)))
    return any(pattern.search(text) and not re.search("[a-z]", pattern.sub("", text)) for text in (lower, inner))


def _bits(value: str) -> float:
    """Estimated entropy: characters that neither repeat nor count on, times what each may be.

    Only the shortest block that the value repeats is counted, and in it no character that equals the one before
    it or stands next to it in the alphabet.
    """
    block = value[: (value + value).index(value, 1)]
    counted = 1 + sum(abs(ord(one) - ord(two)) > 1 for one, two in itertools.pairwise(block))
    sizes = [len(kind) for kind in KINDS if set(kind) & set(value)]
    others = len(string.punctuation) + 1 if set(value) - set("".join(KINDS)) else 0
    return counted * math.log2(sum(sizes) + others)
