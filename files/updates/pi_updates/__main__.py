"""`pi-commerce-updates`: the command on the Pi.

Exit codes: 0 done, 1 something went wrong (it says what), 2 refused or only planned, nothing was touched, 75 somebody
is at work who must not be disturbed.
"""

from __future__ import annotations

import argparse
import sys
import syslog
import time
from collections.abc import Sequence
from pathlib import Path

from pi_common import alerts, locks, programs
from pi_common.commands import CommandFailed, run
from pi_common.errors import Busy, PiError, Refused
from pi_common.locks import held
from pi_common.programs import DONE, REFUSED, WRONG

from . import reboots, settings, upgrade
from .settings import Settings

BACKUP = Path("/usr/local/sbin/pi-commerce-backup")
# For a ship that is at work; longer work is not waited for.
WAIT_SECONDS = 300


def parser() -> argparse.ArgumentParser:
    """What can be typed."""
    top = argparse.ArgumentParser(prog="pi-commerce-updates", description="Restarts and upgrades of the machine.")
    top.add_argument("--settings", type=Path, default=settings.DEFAULT, help=argparse.SUPPRESS)
    verbs = top.add_subparsers(dest="verb", required=True)
    verbs.add_parser("status", help="what is due, and what keeps it")
    verbs.add_parser("look", help="note what is due, and restart where that may be (cron)")
    verbs.add_parser("booted", help="look whether all is well after a restart (cron, at boot)")
    new = verbs.add_parser("upgrade", help="engine and images; shows its plan first (upgrade.yml calls it)")
    new.add_argument("--staged", type=Path, required=True, help="folder of the Compose files as they shall be")
    new.add_argument("--confirm", help="the words that the plan asks for; without them only the plan is shown")
    verbs.add_parser("undo", help="put back what the last upgrade has brought")
    return top


def say(text: str) -> None:
    """Tell whoever watches, at once, and the journal."""
    print(text, flush=True)
    syslog.syslog(syslog.LOG_INFO, text)


def settle(known: Settings) -> None:
    """Put back an upgrade that was cut off: nobody has seen it work."""
    if not upgrade.unfinished(known):
        return
    with held(locks.AT_WORK, Busy("an upgrade, a backup, a drill or a restore is at work")):
        if upgrade.unfinished(known):
            told = ", ".join(upgrade.undo(known, say, all_of_it=False))
            alerts.say("warning", "an upgrade was cut off", f"{told}: put back as it was before.")


def save_first() -> None:
    """Have the newest data saved: an image may change what it finds. Raises Refused."""
    if not BACKUP.exists():
        say("no backup program is here: what an image does to its data could not be taken back")
        return
    say("saving the shop first")
    try:
        run(str(BACKUP), "ship", "--wait", str(WAIT_SECONDS), seconds=3600)
    except CommandFailed as error:
        raise Refused(f"the shop could not be saved first: {error}") from error


def bring_up_to_date(known: Settings, given: argparse.Namespace) -> int:
    """The verb upgrade."""
    settle(known)
    plan = upgrade.intend(known, given.staged)
    for line in plan.lines():
        say(line)
    if not plan.words:
        return DONE
    if given.confirm != plan.words:
        if given.confirm is not None:
            say(f'that is not what was confirmed ("{given.confirm}")')
        say(f'nothing was touched. To go on: --confirm "{plan.words}"')
        return REFUSED
    save_first()
    moment = time.strftime("%Y-%m-%d %H:%M:%S")
    with held(locks.AT_WORK, Busy("a backup, a drill or a restore is at work"), WAIT_SECONDS):
        upgrade.fresh(known)
        try:
            done = upgrade.carry_out(known, plan, given.staged, say)
        except PiError as error:
            text = (
                f"{error}. The old state is not back: `pi-commerce-updates undo` tries it again; if an image has "
                f'changed its data, `ansible-playbook restore.yml -e service=<name> -e at="{moment}"` brings that back'
            )
            syslog.syslog(syslog.LOG_ERR, text)
            raise PiError(text) from error
    say(f"upgraded: {', '.join(done.upgraded) or 'nothing'}")
    if done.put_back:
        say(f"put back, because it did not work: {', '.join(done.put_back)}")
        return WRONG
    return DONE


def act(known: Settings, given: argparse.Namespace) -> int:
    """Do what was asked for; the exit code."""
    now = time.time()
    if given.verb == "status":
        print("\n".join(reboots.lines(known, now)))
    elif given.verb == "look":
        settle(known)
        reboots.look(known, now)
    elif given.verb == "booted":
        settle(known)
        return WRONG if reboots.booted(known, now) else DONE
    elif given.verb == "upgrade":
        return bring_up_to_date(known, given)
    else:
        with held(locks.AT_WORK, Busy("a backup, a drill or a restore is at work"), WAIT_SECONDS):
            say(f"put back: {', '.join(upgrade.undo(known, say, all_of_it=True))}")
    return DONE


def main(words: Sequence[str] | None = None) -> int:
    """Entry point; the exit code."""
    given = parser().parse_args(words)
    syslog.openlog("pi-commerce-updates")
    return programs.ended(lambda: act(settings.load(given.settings), given))


if __name__ == "__main__":
    sys.exit(main())
