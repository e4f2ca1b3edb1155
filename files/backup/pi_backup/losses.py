"""Notices data that has vanished: the copy of an emptied volume is a perfect copy of nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from . import files
from .plan import Plan

# More than this share is named, where it is more than a few small files.
SHARE = 0.2
LEAST = {"files": 5, "bytes": files.MIB}


def found(volume: str, before: Mapping[str, int], now: Mapping[str, Any], shrinks: bool = False) -> list[str]:
    """What is missing of a volume since an earlier measure; one that `shrinks` by itself is only named when empty."""
    return [f"{volume}: {text} in the night before. {_remedy(volume)}" for text in missing(before, now, shrinks)]


def missing(before: Mapping[str, int], now: Mapping[str, Any], shrinks: bool) -> list[str]:
    """The same, to be completed with when `before` was."""
    if before.get("files", 0) and not now["files"]:
        return [f"is empty, and held {before['files']} files"]
    if shrinks:
        return []
    return [
        f"holds {now[what]} {what} instead of {before[what]}"
        for what, least in LEAST.items()
        if before.get(what, 0) - now[what] >= max(least, before.get(what, 0) * SHARE)
    ]


def _remedy(volume: str) -> str:
    return f"If nobody removed that, bring {volume} back as it was; if somebody did, the next night takes this as right"


def before(plan: Plan, volume: str) -> dict[str, int]:
    """What a volume held in the last night; empty where nobody knows."""
    known: dict[str, int] = files.read_json(plan.folder / "state/sizes.json").get(volume, {})
    return known


def remember(plan: Plan, measured: Mapping[str, Mapping[str, Any]]) -> None:
    """From now on compare with this: {volume: {files, bytes}}."""
    sizes = {name: {what: seen[what] for what in LEAST} for name, seen in measured.items()}
    files.write_json(plan.folder / "state/sizes.json", sizes)
