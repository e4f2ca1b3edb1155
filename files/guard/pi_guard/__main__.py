"""`pi-commerce-guard`: changes of the network are put back by themselves unless a new connection proves them.

Exit codes: 0 done, 2 refused (it says why).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from . import connection
from .errors import Refused
from .guard import Guard

DONE, REFUSED = 0, 2
NOTIFY_SECONDS = 30


def parser() -> argparse.ArgumentParser:
    """What can be typed."""
    top = argparse.ArgumentParser(prog="pi-commerce-guard", description="Puts network settings back by itself.")
    verbs = top.add_subparsers(dest="verb", required=True)
    arm = verbs.add_parser("arm", help="keep copies of files and folders, and put them back unless disarmed in time")
    arm.add_argument("paths", nargs="+", metavar="PATH", help="what is about to be changed")
    arm.add_argument("--seconds", type=int, required=True, help="how long to wait for a new connection")
    disarm = verbs.add_parser("disarm", help="leave things as they are; only by an SSH connection made after arming")
    disarm.add_argument("--if-armed", action="store_true", help="done, too, where nothing is armed")
    restore = verbs.add_parser("restore", help="put everything back now")
    restore.add_argument("--why", default="", help="what is told to people")
    restore.add_argument("--booting", action="store_true", help="nothing runs yet that reads the settings (at boot)")
    verbs.add_parser("status", help="what is armed, and what was put back last, as JSON")
    return top


def tell(report: dict[str, Any]) -> None:
    """Say in the journal what was put back, and tell people where they can be told."""
    text = json.dumps(report, indent=2)
    print(f"put back: {report['why']}\n{text}", flush=True)
    notify = shutil.which("pi-commerce-notify")
    if notify:
        title = "The network's last settings were taken back"
        command = (notify, "--level", "critical", title)
        try:
            subprocess.run(command, input=text, text=True, timeout=NOTIFY_SECONDS, check=False)
        except subprocess.TimeoutExpired:
            print("pi-commerce-notify did not take the message in time", file=sys.stderr)


def status(guard: Guard) -> dict[str, Any]:
    """What the command `status` prints."""
    state = guard.armed()
    left = state["at"] + state["seconds"] - connection.now() if state else 0
    return {
        "armed": bool(state),
        "paths": state.get("paths", []),
        "seconds_left": max(0, round(left)),
        "report": guard.report(),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; the exit code."""
    given = parser().parse_args(arguments)
    if os.geteuid() != 0:
        print("pi-commerce-guard: is for root only", file=sys.stderr)
        return REFUSED
    guard = Guard()
    try:
        if given.verb == "arm":
            guard.arm(given.paths, given.seconds)
        elif given.verb == "disarm":
            if guard.armed() or not given.if_armed:
                guard.disarm()
        elif given.verb == "restore":
            report = guard.restore(given.why, booting=given.booting)
            if report:
                tell(report)
        else:
            print(json.dumps(status(guard), indent=2))
    except (Refused, OSError) as problem:
        print(f"pi-commerce-guard: {problem}", file=sys.stderr)
        return REFUSED
    return DONE


if __name__ == "__main__":
    sys.exit(main())
