"""`pi-commerce-thermal`: reads temperature, voltage and throttling, tells people, and stops services in time.

Exit codes: 0 done, 1 something is wrong (it says what), 2 refused.
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import board
from pi_common import alerts, files, programs, services
from pi_common.alerts import Alert
from pi_common.errors import PiError
from pi_common.metrics import Metric, publish, render
from pi_common.programs import DONE, WRONG

from . import fan, heat, reading, settings
from .heat import State
from .reading import Reading
from .settings import Settings

FULL = 100


def parser() -> argparse.ArgumentParser:
    """What can be typed."""
    top = argparse.ArgumentParser(prog="pi-commerce-thermal", description="Watches the board's temperature and supply.")
    top.add_argument("--settings", type=Path, default=settings.DEFAULT, help=argparse.SUPPRESS)
    verbs = top.add_subparsers(dest="verb", required=True)
    verbs.add_parser("watch", help="look again and again (the service)")
    verbs.add_parser("look", help="look once, and do what follows")
    verbs.add_parser("restore", help="start what was stopped because of the heat, whatever the temperature")
    verbs.add_parser("status", help="say how things stand, do nothing; exit code 1 where something is wrong")
    return top


class Watch:
    """Looks, and what is remembered between them."""

    def __init__(self, known: Settings) -> None:
        self.known = known
        self.path = known.folder / "state.json"
        self.kept = files.read_json(self.path)
        try:
            self.state = State(**self.kept)
        except TypeError:
            self.state = State()

    def look(self, now: float) -> None:
        """Look once, do what follows, tell whom it concerns, and keep it."""
        known, state = self.known, self.state
        state.wake(reading.boot_id())
        found = reading.read(known.root)
        heat.take_in(known, state, found, now)
        silent = self._fan(found)
        self._services(found, now)
        due = [*heat.due(known, state, found), *silent]
        # A power cut may come while people are told. Where the disk is full they are told all the same.
        with contextlib.suppress(OSError):
            self._keep()
        state.told = alerts.follow(state.told, due)
        self._keep()
        publish(known.metrics, render(metrics(known, state, found)))

    def restore(self) -> bool:
        """Start what was stopped; whether all of it runs."""
        self._start(list(reversed(self.state.shed)))
        for problem in self.state.stuck.values():
            print(problem, file=sys.stderr)
        self._keep()
        return not self.state.shed

    def _fan(self, found: Reading) -> list[Alert]:
        """Have the fan turn as fast as it has to, each time anew: it may have lost its own power meanwhile."""
        if not self.known.bus:
            return []
        self.state.percent = heat.percent(self.known, self.state.percent, found.celsius)
        try:
            fan.turn(self.known.bus, self.known.address, self.state.percent)
        except OSError as problem:
            return [
                Alert(
                    "thermal-fan",
                    "warning",
                    "The fan cannot be reached",
                    f"{self.known.bus}: {problem.strerror}. Is I2C on (after the next start), the board in its case?",
                )
            ]
        return []

    def _services(self, found: Reading, now: float) -> None:
        """Stop the next service, or start what was stopped."""
        known, state = self.known, self.state
        if state.shed and heat.critical(known, found.celsius):
            # Somebody may have started it again, a converge for one.
            with contextlib.suppress(PiError):
                again = services.running(known.project)
                state.shed = [name for name in state.shed if name not in again]
        self._start(heat.to_start(known, state, found.celsius))
        service = heat.to_stop(known, state, found.celsius, now)
        if service:
            state.shed_at = now
            if self._try(services.stop, service):
                state.shed.append(service)
        elif not state.shed and state.level < len(settings.LEVELS):
            # What could not be stopped need not be any more.
            state.shed_at, state.stuck = 0, {}

    def _start(self, wanted: list[str]) -> None:
        for service in wanted:
            if self._try(services.start, service):
                self.state.shed.remove(service)

    def _try(self, what: Callable[[str, str], None], service: str) -> bool:
        """Stop or start a service; whether that worked."""
        try:
            what(self.known.project, service)
        except PiError as problem:
            self.state.stuck[service] = str(problem)
            return False
        self.state.stuck.pop(service, None)
        return True

    def _keep(self) -> None:
        """Write the state where it has changed: most looks change nothing, and the card wears out."""
        now = asdict(self.state)
        if now != self.kept:
            files.write_json(self.path, now)
            self.kept = files.read_json(self.path)


def metrics(known: Settings, state: State, found: Reading) -> list[Metric]:
    """How things stand, as Prometheus reads it."""
    bits = [
        ({"bit": name, "since": since}, told[name])
        for since, told in (("now", found.now), ("start", found.past))
        for name in told
    ]
    return [
        Metric("pi_thermal_celsius", "Temperature of the processor, NaN: not known.", [({}, found.celsius)]),
        Metric("pi_thermal_bit", "What the firmware has noticed, NaN: not known.", bits),
        Metric("pi_thermal_level", "0 cool, 1 warm, 2 high, 3 critical.", [({}, state.level)]),
        Metric(
            "pi_thermal_shed",
            "1: stopped because of the heat.",
            [({"service": name}, name in state.shed) for name in known.shed],
        ),
        *([Metric("pi_thermal_fan_percent", "Speed of the fan.", [({}, state.percent)])] if known.bus else []),
        Metric("pi_thermal_looked_timestamp_seconds", "When it was looked at last.", [({}, time.time())]),
    ]


def status(known: Settings) -> int:
    """Say how things stand; the exit code."""
    found = reading.read(known.root)
    state = Watch(known).state
    print(f"temperature: {'unknown' if found.celsius is None else f'{found.celsius:.1f} degrees Celsius'}")
    for name, bit in board.BITS.items():
        now, past = ({None: "unknown", True: "yes", False: "no"}[told[name]] for told in (found.now, found.past))
        print(f"{bit.words}: {now}, since it was started: {past}")
    for service in state.shed:
        print(f"{service}: was stopped, comes back below {known.celsius['restore']:g} degrees Celsius")
    well = found.celsius is not None and not state.level and not state.shed and not any(found.now.values())
    return DONE if well else WRONG


def watch(known: Settings) -> int:
    """Look until somebody says that it is enough; whoever is not watched any more gets all the air there is."""
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(DONE))
    looks = Watch(known)
    try:
        while True:
            try:
                looks.look(time.clock_gettime(time.CLOCK_BOOTTIME))
            except OSError as problem:
                # A full disk is no reason to be blind for the heat.
                print(f"{problem.filename}: {problem.strerror}", file=sys.stderr, flush=True)
            time.sleep(known.every_seconds)
    finally:
        if known.bus:
            fan.turn(known.bus, known.address, FULL)


def act(known: Settings, verb: str) -> int:
    """Do what was asked for; the exit code."""
    if verb == "status":
        return status(known)
    if verb == "watch":
        return watch(known)
    if verb == "restore":
        return DONE if Watch(known).restore() else WRONG
    Watch(known).look(time.clock_gettime(time.CLOCK_BOOTTIME))
    return DONE


def main(words: Sequence[str] | None = None) -> int:
    """Entry point; the exit code."""
    given = parser().parse_args(words)
    return programs.ended(lambda: act(settings.load(given.settings), given.verb))


if __name__ == "__main__":
    sys.exit(main())
