"""How long it would take to have the shop back, and how well that was foretold.

    python ops/recovery_time.py table [FOLDER]
    python ops/recovery_time.py record FOLDER WHAT --gb GB [--mbit MBIT] [--board BOARD] < seconds.json

FOLDER is where bench.json lies (`make bench WHAT=pi`), beside the vault file. `table` prints the prediction for it and
for boards nobody has measured, with the owner's objectives. `record` takes what a drill or a rebuild has taken, a JSON
object of seconds by phase (rto.PHASES; those that did not take place are left out), holds it against the prediction,
prints both and keeps them in FOLDER/recovery_times.jsonl, from which later predictions learn.
Exit code: 0, or 2 where what was given makes no sense.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "plugins/module_utils"))

import rto

BENCH, HISTORY = "bench.json", "recovery_times.jsonl"
UNMEASURED = "pi4-ssd"


def history(folder: Path) -> list[dict[str, Any]]:
    """What was recorded, the oldest first."""
    path = folder / HISTORY
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def board(folder: Path, name: str | None = None) -> rto.Board:
    """The board of this name, or the one that was measured here, or else a Pi 4. Raises ValueError for another name."""
    if name in rto.BOARDS:
        return rto.BOARDS[name]
    path = folder / BENCH
    if path.exists():
        found = rto.measured(json.loads(path.read_text()), history(folder))
        if name in (None, found.name):
            return found
    if name is None:
        return rto.BOARDS[UNMEASURED]
    raise ValueError(f"{name}: is no board; there are {', '.join(rto.BOARDS)}, and what `make bench WHAT=pi` measured")


def record(
    folder: Path, what: str, actual: Mapping[str, float], size_gb: float, mbit: float, name: str | None = None
) -> dict[str, Any]:
    """Keep what a run has taken (seconds by phase) with what was predicted for it; both. Raises ValueError."""
    machine = board(folder, name)
    entry = rto.compared(what, machine.name, rto.predict(machine, size_gb, mbit), actual)
    entry.update(at=time.time(), label=machine.label, size_gb=size_gb, mbit=mbit)
    line = json.dumps(entry) + "\n"
    handle = os.open(folder / HISTORY, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        # In one piece, also when two runs end at once.
        os.write(handle, line.encode())
        os.fsync(handle)
    finally:
        os.close(handle)
    return entry


def minutes(seconds: float) -> str:
    """Seconds, minutes or hours, whichever reads best."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 100 * 60 else f"{seconds / 3600:.1f} h"


def band(found: rto.Band) -> str:
    """A band for a table."""
    return f"{minutes(found.likely)} ({minutes(found.low)} to {minutes(found.high)})"


def table(machine: rto.Board) -> list[str]:
    """One machine: its phases for the middle size over the LAN, and every objective for each size and line."""
    rows = [machine.label, f"  {'phase':<12} 10 GB over LAN"]
    rows += [f"  {phase:<12} {band(seconds)}" for phase, seconds in rto.predict(machine, 10, rto.LINES["LAN"]).items()]
    for objective in rto.OBJECTIVES:
        limits = f"owner's limit {minutes(objective.limit)}, our own {minutes(objective.ours)}"
        rows.append(f"  {objective.name}: {limits}")
        for size in rto.SIZES_GB:
            for name, mbit in rto.LINES.items():
                predicted = rto.predict(machine, size, mbit)
                whole = rto.total(predicted[phase] for phase in objective.phases)
                verdicts = f"{rto.verdict(whole, objective.limit):<8} {rto.verdict(whole, objective.ours)}"
                rows.append(f"    {size:>3.0f} GB {name:<11} {band(whole):<30} {verdicts}")
    return rows


def report(entry: Mapping[str, Any]) -> list[str]:
    """A recorded run, prediction beside reality."""
    rows = [
        f"{entry['what']} on {entry['board']} ({entry['label']}), {entry['size_gb']:g} GB, {entry['mbit']:g} Mbit/s"
    ]
    for phase, found in entry["phases"].items():
        seconds = rto.Band(found["low"], found["likely"], found["high"])
        rows.append(f"  {phase:<12} took {minutes(found['actual']):<8} predicted {band(seconds)}")
    error = entry["error"]
    rows.append(
        "  all of them: " + ("nothing was predicted" if error is None else f"{error:+.0%} of what was predicted")
    )
    return rows


def main(words: list[str]) -> int:
    """Entry point; the exit code."""
    top = argparse.ArgumentParser(description="How long it takes to have the shop back.")
    verbs = top.add_subparsers(dest="verb", required=True)
    shown = verbs.add_parser("table", help="print the predictions")
    shown.add_argument("folder", type=Path, nargs="?", default=Path())
    kept = verbs.add_parser("record", help="keep what a run has taken")
    kept.add_argument("folder", type=Path)
    kept.add_argument("what", help="drill, rebuild or another word")
    kept.add_argument("--gb", type=float, required=True, help="restored data")
    kept.add_argument("--mbit", type=float, default=rto.LINES["LAN"], help="the line to the repository")
    kept.add_argument("--board", help=f"default: the measured one, else {UNMEASURED}")
    given = top.parse_args(words)
    try:
        if given.verb == "table":
            boards = [board(given.folder)] if (given.folder / BENCH).exists() else []
            for machine in (*boards, *rto.BOARDS.values()):
                print(*table(machine), "", sep="\n")
        else:
            actual = json.load(sys.stdin)
            print(*report(record(given.folder, given.what, actual, given.gb, given.mbit, given.board)), sep="\n")
    except (ValueError, TypeError, KeyError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
