"""Where a problem is: a file and a key in it, and the list that problems are collected in."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any


@dataclass(frozen=True)
class Place:
    """A key of a file. ``place / "image"`` and ``place[0]`` step into it, ``refuse`` records a problem."""

    problems: list[str]
    file: str
    key: str = ""

    def __truediv__(self, key: str) -> Place:
        """The place of a key of the mapping here."""
        return Place(self.problems, self.file, f"{self.key}.{key}" if self.key else key)

    def __getitem__(self, index: int) -> Place:
        """The place of an item of the list here."""
        return Place(self.problems, self.file, f"{self.key}[{index}]")

    def refuse(self, message: str) -> None:
        """Record ``message`` as a problem of this place."""
        self.problems.append(f"{self.file}: {self.key}: {message}" if self.key else f"{self.file}: {message}")

    def refuse_unknown(self, keys: Iterable[Any], allowed: Iterable[str]) -> None:
        """Record every one of ``keys`` that is not ``allowed``."""
        names = sorted(allowed)
        for key in keys:
            if key not in names:
                (self / str(key)).refuse(f"unknown key{hint(str(key), names)}")


def hint(word: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown ``word``: its nearest match, or else everything that is known."""
    names = sorted(known)
    nearest = get_close_matches(word, names, n=1)
    if nearest:
        return f"; did you mean '{nearest[0]}'?"
    return f"; known: {', '.join(names) or 'none'}"


def shown(value: object) -> str:
    """A value as a message names it."""
    if value is None:
        return "empty"
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list" if value else "an empty list"
    return repr(value)
