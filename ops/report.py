"""What the audit says: findings, the table for a terminal and the exit code. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

# From best to worst. `unknown` is what could not be looked at: no reason to worry, and none to be calm.
OK, WARNING, UNKNOWN, FAILING, DRIFT = "ok", "warning", "unknown", "failing", "drift"
LEVELS = (OK, WARNING, UNKNOWN, FAILING, DRIFT)
FINE, WRONG, BLIND = 0, 1, 2


class Finding(NamedTuple):
    """One thing that is not as it should be: `level` is one of LEVELS, `remedy` a line people can follow."""

    level: str
    text: str
    remedy: str = ""


class Row(NamedTuple):
    """What one check came to: a summary for when all is well, and what is not."""

    check: str
    summary: str
    findings: Sequence[Finding] = ()

    @property
    def verdict(self) -> str:
        """The worst level among the findings."""
        return max((finding.level for finding in self.findings), key=LEVELS.index, default=OK)


def exit_code(rows: Iterable[Row]) -> int:
    """0: everything was looked at and is fine; 1: something is wrong; 2: nothing is, as far as could be seen."""
    verdicts = {row.verdict for row in rows}
    if verdicts & {DRIFT, FAILING}:
        return WRONG
    return BLIND if UNKNOWN in verdicts or not verdicts else FINE


def worst(codes: Iterable[int]) -> int:
    """The exit code for several machines: what is wrong anywhere counts most."""
    return max(codes, key=(FINE, BLIND, WRONG).index, default=BLIND)


def table(rows: Sequence[Row], drift_remedy: str) -> str:
    """The rows for a terminal: a line each, one more for each further finding, remedies below what they mend.

    `drift_remedy` stands below findings of drift that have no remedy of their own, once per check.
    """
    width = max(len(row.check) for row in [Row("check", ""), *rows])
    lines = [f"{'check'.ljust(width)}  verdict  what"]
    for row in rows:
        texts: list[str] = []
        for finding in row.findings:
            texts += [finding.text, *([f"-> {finding.remedy}"] if finding.remedy else [])]
        if any(finding.level == DRIFT and not finding.remedy for finding in row.findings):
            texts.append(f"-> {drift_remedy}")
        heads = [(row.check, row.verdict)] + [("", "")] * len(texts)
        shown = zip(heads, texts or [row.summary], strict=False)
        lines += [f"{check.ljust(width)}  {verdict:<7}  {text}".rstrip() for (check, verdict), text in shown]
    return "\n".join(lines)


def totals(rows: Sequence[Row]) -> str:
    """How many checks came to which verdict."""
    counts: Mapping[str, int] = {level: sum(row.verdict == level for row in rows) for level in LEVELS}
    return ", ".join(f"{count} {level}" for level, count in counts.items() if count)
