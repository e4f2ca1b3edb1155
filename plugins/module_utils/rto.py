"""How long it takes to have the shop back, phase by phase, before anybody has tried. Pure; needs Python 3.9 alone.

T = detect + flash + first_boot + provision + images + fetch + replay + verify + cut_over

- What moves data (flash, images, fetch) takes size / min(of the rates on its way): the slowest decides. The rate of the
  engine is what restic was measured to restore; where nobody has measured, see `engine_without_aes`.
- The replay takes a time for each segment of PostgreSQL's log.
- All else takes the time that the board needs (`Board.seconds`), or that earlier runs took (`observed`).

Every figure is a band: what can be hoped for, what is likely, what has to be feared. Sizes are MB (10^6 bytes), rates
MB/s, lines Mbit/s. docs/decisions/0015-rto.md says where the numbers come from.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

# In this order; the names are those of reports and of the history.
PHASES = ("detect", "flash", "first_boot", "provision", "images", "fetch", "replay", "verify", "cut_over")
# These take as long as they take, whatever the data and the line.
STEADY = ("detect", "first_boot", "provision", "verify", "cut_over")
LINES = {"LAN": 1000.0, "100 Mbit/s": 100.0, "50 Mbit/s": 50.0, "16 Mbit/s": 16.0}
SIZES_GB = (1.0, 10.0, 50.0)
# A system image; the packed images of the lean edition.
SYSTEM_MB, IMAGES_MB = 2800.0, 1500.0
# Segments of the log between two nightly bases: one every five minutes.
SEGMENTS = 288
# How many of the last runs tell what a phase takes.
RUNS = 5


class Band(NamedTuple):
    """From low to high, with what is likely between them: seconds, or MB/s."""

    low: float
    likely: float
    high: float


class Board(NamedTuple):
    """A machine. `label` says where its figures are from; rates in MB/s, `segment` seconds each, `seconds` by phase.

    What stands in `seconds` is not computed.
    """

    name: str
    label: str
    network: Band
    disk: Band
    engine: Band
    unpack: Band
    segment: Band
    seconds: Mapping[str, Band]


class Objective(NamedTuple):
    """What is to be back, which phases that takes, and within how many seconds: the owner's limit and our own."""

    name: str
    phases: tuple[str, ...]
    limit: float
    ours: float


OBJECTIVES = (
    Objective("data", ("fetch", "replay", "verify"), 30 * 60, 15 * 60),
    Objective("full restore", ("images", "fetch", "replay", "verify", "cut_over"), 2 * 3600, 3600),
    Objective("new Pi", PHASES, 4 * 3600, 90 * 60),
)


def around(value: float) -> Band:
    """What was measured once, on another day."""
    return Band(0.75 * value, value, 1.25 * value)


def slowest(*rates: Band) -> Band:
    """The rate of a way that leads through all of them."""
    return Band(*(min(values) for values in zip(*rates)))  # noqa: B905 - Python 3.9 has no strict


def takes(size_mb: float, rate: Band) -> Band:
    """Seconds for so much data. Raises ValueError for a rate that leads nowhere."""
    if rate.low <= 0:
        raise ValueError(f"a rate must be above 0 MB/s: {rate}")
    return Band(size_mb / rate.high, size_mb / rate.likely, size_mb / rate.low)


def total(bands: Iterable[Band]) -> Band:
    """One after the other."""
    return Band(*(sum(values) for values in zip(*bands)))  # noqa: B905 - Python 3.9 has no strict


def engine_without_aes(cores: int, per_core: float) -> Band:
    """What restic restores on a board without a unit for AES: its cores encrypt, and hash and unpack beside it.

    At best 0.7 of encrypting alone; what is seen is 40 to 100 MB/s on four cores that encrypt 36 MB/s each.
    """
    return Band(*(cores * per_core * share for share in (0.28, 0.5, 0.7)))


_PI4_SECONDS = {
    "detect": Band(60, 300, 900),
    "first_boot": Band(60, 90, 180),
    "provision": Band(25 * 60, 32 * 60, 40 * 60),
    "verify": Band(30, 120, 300),
    "cut_over": Band(10, 60, 600),
}
_PI4 = Board(
    name="pi4-ssd",
    label="modelled: Pi 4, SSD at USB 3",
    network=Band(100, 117, 117),
    disk=Band(100, 150, 300),
    engine=engine_without_aes(4, 36),
    unpack=Band(20, 35, 50),
    segment=Band(0.1, 0.2, 0.5),
    seconds=_PI4_SECONDS,
)
BOARDS = {
    board.name: board
    for board in (
        _PI4,
        _PI4._replace(name="pi4-microsd", label="modelled: Pi 4, microSD card", disk=Band(10, 20, 40)),
        _PI4._replace(
            name="pi4-spare",
            label="modelled: Pi 4, its SSD set up before",
            # What is left of provisioning is a run that finds little to do.
            seconds={**_PI4_SECONDS, "flash": Band(0, 0, 0), "provision": Band(120, 240, 480)},
        ),
    )
}


def measured(bench: Mapping[str, Any], history: Iterable[Mapping[str, Any]] = ()) -> Board:
    """The board that `make bench WHAT=pi` has measured; what it has not measured is as on a Pi 4."""
    name = str(bench["board"])
    known = {
        "network": bench["network"].get("fastest"),
        "disk": bench["disk"].get("write_mb_s"),
        "engine": bench["restic"].get("restore_mb_s"),
        "unpack": bench["crypto"].get("unzip_mb_s"),
    }
    rates = {field: around(float(value)) for field, value in known.items() if value}
    seconds = {**_PI4.seconds, **observed(history, name)}
    return Board(**{**_PI4._asdict(), **rates, "name": name, "label": str(bench["label"]), "seconds": seconds})


def observed(history: Iterable[Mapping[str, Any]], board: str) -> dict[str, Band]:
    """What the steady phases took in the last runs on a board: the median, and as far around as they went."""
    runs = [entry["phases"] for entry in history if entry["board"] == board]
    found = {}
    for phase in STEADY:
        seconds = [float(phases[phase]["actual"]) for phases in runs if phase in phases][-RUNS:]
        if seconds:
            middle = statistics.median(seconds)
            found[phase] = Band(min(0.75 * middle, *seconds), middle, max(1.25 * middle, *seconds))
    return found


def predict(board: Board, size_gb: float, mbit: float, segments: int = SEGMENTS) -> dict[str, Band]:
    """Seconds of each phase for so much data over a line. Raises ValueError for a size or a line that cannot be."""
    if size_gb < 0 or mbit <= 0 or segments < 0:
        raise ValueError(f"{size_gb} GB over {mbit} Mbit/s with {segments} segments: must be positive")
    line = Band(*(mbit / 8 * share for share in (0.8, 0.94, 0.97)))
    network = slowest(board.network, line)
    moved = {
        "flash": takes(SYSTEM_MB, board.disk),
        "images": takes(IMAGES_MB, slowest(network, board.disk, board.unpack)),
        "fetch": takes(size_gb * 1000, slowest(network, board.disk, board.engine)),
        "replay": Band(*(segments * seconds for seconds in board.segment)),
    }
    found = {**moved, **board.seconds}
    return {phase: found[phase] for phase in PHASES}


def verdict(seconds: Band, limit: float) -> str:
    """`met`, `perhaps` where only what has to be feared misses it, or `missed`."""
    if seconds.high <= limit:
        return "met"
    return "perhaps" if seconds.likely <= limit else "missed"


def compared(what: str, board: str, predicted: Mapping[str, Band], actual: Mapping[str, float]) -> dict[str, Any]:
    """An entry of the history: for each phase that took place what was predicted and what it took, in seconds.

    `error` is actual / likely - 1, of a phase and of all together. Raises ValueError for a phase that there is not.
    """
    unknown = sorted(set(actual) - set(PHASES))
    if unknown or not actual:
        raise ValueError(f"{', '.join(unknown) or 'nothing'}: is no phase; there are {', '.join(PHASES)}")
    phases = {
        phase: {
            **predicted[phase]._asdict(),
            "actual": float(actual[phase]),
            "error": _error(predicted[phase], actual[phase]),
        }
        for phase in PHASES
        if phase in actual
    }
    whole = total(predicted[phase] for phase in phases)
    return {"what": what, "board": board, "phases": phases, "error": _error(whole, sum(actual.values()))}


def of_rebuild(report: Mapping[str, Any]) -> dict[str, Any]:
    """What the report of a rebuild says in the terms of this model: `gb` of data, and `seconds` by phase."""
    phases, steps = dict(report["phases"]), report["steps"]
    # A run that went on found the data in place: it was brought back by an earlier one.
    data = sum(steps.values()) if report["resumed"] else phases.get("data", 0)
    replay = sum(seconds for step, seconds in steps.items() if step.startswith("replaying"))
    seconds = {"images": phases.pop("images", 0), "verify": phases.pop("proof", 0)}
    phases.pop("data", 0)
    seconds.update(provision=sum(phases.values()), fetch=data - replay, replay=replay)
    size = sum(store["bytes"] for store in report["stores"].values())
    return {"gb": round(size / 1e9, 3), "seconds": {phase: seconds[phase] for phase in PHASES if phase in seconds}}


def of_drill(report: Mapping[str, Any]) -> dict[str, Any]:
    """The same of the report of a drill, which fetches and replays more than once, and judges."""
    fetch = sum(check["fetching"] for check in report["checks"])
    replay = sum(check["seconds"] - check["fetching"] for check in report["checks"] if check["name"] == "replay")
    seconds = {"fetch": fetch, "replay": replay, "verify": report["seconds"] - fetch - replay}
    size = sum(check["size"] for check in report["checks"])
    return {"gb": round(size / 1e9, 3), "seconds": {phase: round(took, 1) for phase, took in seconds.items()}}


def _error(band: Band, actual: float) -> float | None:
    return round(actual / band.likely - 1, 3) if band.likely else None
