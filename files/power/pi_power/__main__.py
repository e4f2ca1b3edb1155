"""`pi-commerce-power`: watches the UPS (cron), saves the shop and ends the machine when its battery is low (NUT).

Exit codes: 0 done, 1 something is wrong (it says what), 2 refused.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from pi_common import alerts, files, programs
from pi_common.metrics import publish, render
from pi_common.programs import DONE, WRONG

from . import down, settings, ups
from .settings import Settings


def parser() -> argparse.ArgumentParser:
    """What can be typed."""
    top = argparse.ArgumentParser(prog="pi-commerce-power", description="Watches the UPS, and ends the machine well.")
    top.add_argument("--settings", type=Path, default=settings.DEFAULT, help=argparse.SUPPRESS)
    verbs = top.add_subparsers(dest="verb", required=True)
    verbs.add_parser("look", help="look once, and tell what people have to know (cron)")
    verbs.add_parser("status", help="say how things stand; exit code 1 where it is on battery or does not answer")
    verbs.add_parser("down", help="stop the shop in order, save its databases, end the machine (NUT, battery low)")
    verbs.add_parser("up", help="start what `down` has stopped (at boot)")
    return top


def look(known: Settings) -> int:
    """Look once; the exit code."""
    path = known.folder / "state.json"
    kept = files.read_json(path)
    told = ups.ask(known.ups)
    blind = 0 if told else min(int(kept.get("blind", 0)) + 1, ups.BLIND_LOOKS)
    now = {"blind": blind, "told": alerts.follow(kept.get("told", {}), ups.due(told, blind))}
    if now != kept:
        files.write_json(path, now)
    publish(known.metrics, render(ups.metrics(told)))
    return DONE


def status(known: Settings) -> int:
    """Say how things stand; the exit code."""
    told = ups.ask(known.ups)
    if not told:
        print("unknown: the UPS does not answer; systemctl status nut-server says why")
        return WRONG
    for name in ("ups.status", "battery.charge", "battery.runtime"):
        print(f"{name}: {told.get(name, 'unknown')}")
    return DONE if "OL" in told["ups.status"].split() else WRONG


def act(known: Settings, verb: str) -> int:
    """Do what was asked for; the exit code."""
    if verb == "look":
        return look(known)
    if verb == "status":
        return status(known)
    if verb == "down":
        down.down(known)
        return DONE
    for service in down.up(known):
        print(f"{service}: started")
    return DONE


def main(words: Sequence[str] | None = None) -> int:
    """Entry point; the exit code."""
    given = parser().parse_args(words)
    return programs.ended(lambda: act(settings.load(given.settings), given.verb))


if __name__ == "__main__":
    sys.exit(main())
