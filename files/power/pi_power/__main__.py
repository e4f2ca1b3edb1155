"""`pi-commerce-power`: watches the UPS (cron), saves the shop and ends the machine when its battery is low (NUT).

Exit codes: 0 done, 1 something is wrong (it says what), 2 refused.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from pi_body import alerts, files
from pi_body.errors import BodyError, Refused
from pi_body.metrics import render

from . import down, settings, ups
from .settings import Settings

DONE, WRONG, REFUSED = 0, 1, 2


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
    kept = files.read_state(path)
    told = ups.ask(known.ups)
    blind = 0 if told else min(int(kept.get("blind", 0)) + 1, ups.BLIND_LOOKS)
    now = {"blind": blind, "told": alerts.follow(kept.get("told", {}), ups.due(told, blind))}
    if now != kept:
        files.write_state(path, now)
    files.write(known.metrics, render(ups.metrics(told)))
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
    try:
        if os.geteuid():
            raise Refused("is for root only: use sudo")
        return act(settings.load(given.settings), given.verb)
    except Refused as error:
        print(f"refused: {error}", file=sys.stderr)
        return REFUSED
    except (BodyError, subprocess.CalledProcessError) as error:
        print(f"failed: {error}", file=sys.stderr)
        return WRONG
    except OSError as error:
        print(f"failed: {error.filename}: {error.strerror}: is the disk full or worn out?", file=sys.stderr)
        return WRONG


if __name__ == "__main__":
    sys.exit(main())
