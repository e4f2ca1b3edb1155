"""Figures as Prometheus reads them. What is not known is NaN, which is no figure; 0 would look healthy."""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from . import files


class Metric(NamedTuple):
    """A gauge: what it says, and a value for each set of labels."""

    name: str
    text: str
    samples: Iterable[tuple[Mapping[str, str], float | bool | None]]


def render(metrics: Iterable[Metric]) -> str:
    """The text file."""
    lines = []
    for metric in metrics:
        lines += [f"# HELP {metric.name} {metric.text}", f"# TYPE {metric.name} gauge"]
        for labels, value in metric.samples:
            named = ",".join(f'{key}="{text}"' for key, text in labels.items())
            shown = "NaN" if value is None else f"{float(value):g}" if abs(value) < 1e6 else f"{float(value):.0f}"
            lines.append(f"{metric.name}{f'{{{named}}}' if named else ''} {shown}")
    return "\n".join(lines) + "\n"


def publish(path: Path, text: str) -> None:
    """Write them. Where that cannot be, because their disk is missing or full, a program has its own work all the same.

    They are written again soon, so no disk has to wear for them to last.
    """
    try:
        files.write(path, text, 0o644, lasting=False)
    except OSError as problem:
        _complain(f"{path}: {problem.strerror}: the figures for Prometheus are not written")


@functools.cache
def _complain(text: str) -> None:
    """Say it once, however often a program looks."""
    print(text, file=sys.stderr, flush=True)
