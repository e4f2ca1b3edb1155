"""The table at the end of a run. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

HEADER = ("service", "state", "memory", "limit", "seen")


def render(services: Iterable[Mapping[str, Any]], facts: Mapping[str, str]) -> str:
    """What runs, how much memory it takes of its limit, and what else the owner wants to know.

    Args:
        services: rows of the `stack_state` module.
        facts: label to text, printed below the table.
    """
    rows: list[Sequence[str]] = [HEADER]
    for row in services:
        rows.append(
            (
                row["service"],
                "ok" if row["ok"] else "FAILED",
                _mib(row["memory_mib"]),
                _mib(row["limit_mib"]),
                row["detail"] + (f", {row['restarts']} restarts" if row["restarts"] else ""),
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADER))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    label_width = max((len(label) for label in facts), default=0)
    return "\n".join([*lines, "", *(f"{label.ljust(label_width)}  {text}" for label, text in facts.items())])


def _mib(value: int | None) -> str:
    return "?" if value is None else f"{value} MiB"
