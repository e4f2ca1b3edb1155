"""Figures as Prometheus reads them. What is not known is NaN, which is no figure; 0 would look healthy."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple


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
