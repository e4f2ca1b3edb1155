"""Which snapshots give the state of a moment. Pure."""

from __future__ import annotations

import calendar
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass

from .engine import FUTURE_SECONDS, Snapshot
from .errors import Refused


@dataclass(frozen=True)
class Recovery:
    """A base and the log that brings it forward. `until` None: to the end of the log; `reached` is where that is."""

    base: Snapshot
    log: Snapshot | None
    until: float | None
    reached: float


def moment_of(text: str, now: float) -> float | None:
    """Seconds since 1970 of what a person typed, in this machine's time zone unless it names one; None for newest.

    Raises Refused for what is no time, and for the future.
    """
    if text in ("", "newest"):
        return None
    parts = re.fullmatch(r"(\d{4}-\d\d-\d\d)[ T](\d\d:\d\d)(:\d\d)?(Z|[+-]\d\d:?\d\d)?", text.strip())
    try:
        if parts is None:
            raise ValueError(text)
        clock = time.strptime(f"{parts[1]} {parts[2]}{parts[3] or ':00'}", "%Y-%m-%d %H:%M:%S")
    except ValueError as error:
        raise Refused(f'{text!r} is no time; write it like "2026-11-20 14:35", or "newest"') from error
    if parts[4] is None:
        moment = time.mktime(clock)
    else:
        digits = "0000" if parts[4] == "Z" else parts[4][1:].replace(":", "")
        offset = int(digits[:2]) * 3600 + int(digits[2:]) * 60
        moment = calendar.timegm(clock) + (offset if parts[4][0] == "-" else -offset)
    if moment > now:
        raise Refused(f"{text} is in the future; it is {shown(now)} on this machine")
    return float(moment)


def shown(moment: float) -> str:
    """A moment as a person of this machine reads it."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(moment))


def usable(snapshots: Sequence[Snapshot], host: str, now: float) -> list[Snapshot]:
    """Those of this machine that are not from the future. Raises Refused, saying what is there instead."""
    own = [snapshot for snapshot in snapshots if snapshot.host == host and snapshot.time <= now + FUTURE_SECONDS]
    if own:
        return own
    others = sorted({snapshot.host for snapshot in snapshots} - {host})
    ahead = sum(snapshot.host == host for snapshot in snapshots)
    there = [f"snapshots of {', '.join(others)}"] if others else []
    there += [f"{ahead} that claim to be from the future (is this machine's clock right?)"] if ahead else []
    raise Refused(f"holds no snapshot of {host}; there are {' and '.join(there) or 'none at all'}")


def recovery(snapshots: Sequence[Snapshot], store: str, at: float | None) -> Recovery:
    """The base and the log for PostgreSQL at a moment (None: the newest). Raises Refused where it is too old.

    Where the log ends before that moment, `reached` says where.
    """
    bases = [snapshot for snapshot in snapshots if snapshot.path("base") and snapshot.holds(store)]
    if not bases:
        raise Refused(f"there is no base of {store} yet: the first nightly has not ended")
    before = [base for base in bases if at is None or _consistent(base) <= at]
    if not before:
        raise Refused(f"{store} can be had from {shown(_consistent(bases[0]))} on, not at {shown(at or 0)}")
    found = [_along(snapshots, store, base, at) for base in before]
    exact = [recovery for recovery in found if at is not None and recovery.until == at]
    # Where several lead to the same moment, the newest base: the least to replay, and what a drill has to look at.
    return exact[-1] if exact else max(reversed(found), key=lambda recovery: recovery.reached)


def _along(snapshots: Sequence[Snapshot], store: str, base: Snapshot, at: float | None) -> Recovery:
    """How far the log of one base leads; the first of it is saved with the base."""
    logs = [
        snapshot
        for snapshot in snapshots
        if snapshot.holds(store) and snapshot.path("wal") and (snapshot == base or snapshot.log_of == base.tag("base"))
    ]
    if at is not None:
        beyond = [log for log in logs if _point(log) >= at]
        if beyond:
            return Recovery(base, beyond[0], at, at)
    if not logs:
        return Recovery(base, None, None, _point(base))
    last = max(reversed(logs), key=_point)
    return Recovery(base, last, None, _point(last))


def _point(snapshot: Snapshot) -> float:
    return float(snapshot.tag("point") or 0)


def _consistent(base: Snapshot) -> float:
    """From which moment on a base can be recovered to: when its copy had ended. Older nights had that as `point`."""
    return float(base.tag("consistent") or _point(base))


def holding(snapshots: Sequence[Snapshot], store: str, at: float | None) -> Snapshot:
    """The snapshot that has the latest of a store and is not later than a moment (None: than now). Raises Refused."""
    own = [snapshot for snapshot in snapshots if snapshot.holds(store)]
    before = [snapshot for snapshot in own if at is None or snapshot.time <= at]
    if before:
        return max(reversed(before), key=lambda snapshot: snapshot.moment(store))
    first = f"can be had from {shown(own[0].time)} on" if own else "is in no snapshot yet"
    raise Refused(f"{store} {first}, not at {shown(at)}" if at is not None else f"{store} {first}")
