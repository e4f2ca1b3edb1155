"""`pi-commerce-backup`: the command on the Pi.

Exit codes: 0 done, 1 something went wrong (it says what), 2 refused, nothing was touched, 75 another job is running.
"""

from __future__ import annotations

import argparse
import json
import sys
import syslog
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from . import alerts, jobs, plan, rebuild, restore, settle, state
from .drill import overdue, report, run, settings
from .engine import Repository
from .errors import BackupError, Busy, Refused
from .locks import at_work
from .plan import Plan

DONE, WRONG, REFUSED, BUSY = 0, 1, 2, 75
# While they last the machine is not restarted, nor what runs on it.
MOVING = {"restore", "rebuild", "drill", "discard", "undo"}
# A restart that was begun ends whoever waits for it.
LOCK_SECONDS = 10


def parser() -> argparse.ArgumentParser:
    """What can be typed."""
    top = argparse.ArgumentParser(prog="pi-commerce-backup", description="Backup and restore of the shop.")
    top.add_argument("--plan", type=Path, default=plan.DEFAULT, help=argparse.SUPPRESS)
    verbs = top.add_subparsers(dest="verb", required=True)
    for name, text in (
        ("ship", "save what changes all the time (cron, every few minutes)"),
        ("nightly", "save everything (cron, by night)"),
    ):
        saving = verbs.add_parser(name, help=text)
        saving.add_argument(
            "--wait",
            type=float,
            default=0,
            metavar="SECONDS",
            help="for one that is at it; default: leave this one out",
        )
    verbs.add_parser("status", help="how old what could be restored is; exit code 1 where something is wrong")
    verbs.add_parser("settle", help="have the databases write down what they hold (pi-commerce-power)")
    snapshots = verbs.add_parser("snapshots", help="list the snapshots of a repository as JSON")
    snapshots.add_argument("repository")
    prune = verbs.add_parser("prune", help="thin out a repository by age (from the admin's side)")
    prune.add_argument("repository")
    prune.add_argument("--dry-run", action="store_true", help="only say what would be removed")
    pruned = verbs.add_parser("pruned", help="note that a repository has been pruned from elsewhere")
    pruned.add_argument("repository")
    forget = verbs.add_parser("forget-repository", help="accept that a repository was replaced or lost")
    forget.add_argument("repository")
    back = verbs.add_parser("restore", help="bring back a service, or all; shows its plan first")
    back.add_argument("service", nargs="?", help="name of a service, or all")
    back.add_argument("--at", default="newest", help='a moment such as "2026-11-20 14:35"; default: newest')
    back.add_argument("--from", dest="source", default="", help="repository; default: the first that answers")
    back.add_argument("--confirm", help="the words that the plan asks for; without them only the plan is shown")
    back.add_argument("--dry-run", action="store_true", help="only show the plan")
    back.add_argument("--resume", action="store_true", help="complete a restore that was cut off")
    anew = verbs.add_parser("rebuild", help="one step of rebuild.yml, which calls it")
    anew.add_argument("step", choices=["vault", "images", "sealed", "data", "check"])
    anew.add_argument("--at", default="newest", help="data: a moment; default: newest")
    anew.add_argument("--from", dest="source", default="", help="repository; default: the one with the newest data")
    anew.add_argument("--path", dest="paths", action="append", default=[], help="sealed: what to bring back")
    drill = verbs.add_parser(
        "drill",
        help="restore everything beside the shop and judge it; exit code 0 verified, 1 FAILED, 2 COULD-NOT-VERIFY",
    )
    drill.add_argument("--from", dest="source", default="", help="repository; default: far, else the last one")
    drill.add_argument("--operator-key", action="store_true", help="read it from standard input, and open the bundle")
    drill.add_argument("--sweep", action="store_true", help="only take away what a killed one has left")
    drill.add_argument("--overdue", action="store_true", help="the same, and tell where one is overdue (cron, daily)")
    drill.add_argument("--settings", type=Path, default=settings.DEFAULT, help=argparse.SUPPRESS)
    for verb, text in (("discard", "remove for good"), ("undo", "put back")):
        verbs.add_parser(verb, help=f"{text} what a restore has replaced").add_argument("name")
    return top


def say(text: str) -> None:
    """Tell whoever watches, at once."""
    print(text, flush=True)


def job(known: Plan, name: str, work: Callable[[Plan, float], list[str]], wait: float) -> int:
    """Run a job for cron: its problems on standard error, in the journal and, where they last, to the owner."""
    started, status = time.time(), DONE
    try:
        with at_work(wait):
            problems = work(known, wait)
        status = WRONG if problems else DONE
    except Busy as error:
        state.skipped(known, name)
        status, problems = BUSY, [f"left out: {error}"]
    except BackupError as error:
        status, problems = REFUSED if isinstance(error, Refused) else WRONG, [str(error)]
        state.record(known, name, problems, started)
    alerts.tell(known)
    for problem in problems:
        print(f"{name}: {problem}", file=sys.stderr)
        syslog.syslog(syslog.LOG_ERR, f"{name}: {problem}")
    syslog.syslog(syslog.LOG_INFO, f"{name}: ended with {len(problems)} problems")
    return status


def bring_back(known: Plan, given: argparse.Namespace) -> int:
    """The verb restore."""
    if given.resume:
        say(f"completed; what was replaced is kept as {restore.resume(known, say)}")
        return DONE
    if not given.service:
        raise Refused("restore: name a service, or all")
    intent = restore.intend(known, given.service, given.at, given.source)
    for line in intent.lines():
        say(line)
    if given.dry_run or (given.confirm is None and intent.replaced):
        say(f'nothing was touched. To go on: --confirm "{intent.confirmation}"')
        return REFUSED
    name = restore.carry_out(intent, given.confirm or "", say)
    say(f"done; what was replaced is kept as {name}: `undo {name}` puts it back, `discard {name}` removes it")
    return DONE


def bring_anew(known: Plan, given: argparse.Namespace) -> int:
    """The verb rebuild."""
    if given.step == "vault":
        say(rebuild.vault(known, given.source))
    elif given.step == "images":
        say(rebuild.load_images(known, given.source))
    elif given.step == "sealed":
        for path in rebuild.unseal(known, given.source, given.paths, sys.stdin.read()):
            say(f"wrote {path}")
    elif given.step == "check":
        rebuild.check(known, say)
    else:
        rebuild.bring_back(known, given.source, given.at, say)
    return DONE


def drill(known: Plan, given: argparse.Namespace) -> int:
    """The verb drill."""
    how = settings.load(given.settings)
    if given.sweep or given.overdue:
        run.clean(known, how)
        late = overdue.look(known, how) if given.overdue else ""
        if late:
            print(f"drill: {late}", file=sys.stderr)
        return WRONG if late else DONE
    key = sys.stdin.read().strip() if given.operator_key else ""
    found = run.drill(known, how, given.source, key, say)
    say(f"{report.summary(found)}; the reports are in {report.folder(known)}")
    return int(found["exit"])


def act(known: Plan, given: argparse.Namespace) -> int:
    """Do what was asked for; the exit code."""
    if given.verb == "ship":
        return job(known, "ship", jobs.ship, given.wait)
    if given.verb == "nightly":
        return job(known, "nightly", jobs.nightly, given.wait)
    if given.verb == "status":
        lines, well = state.table(known)
        say("\n".join(lines))
        return DONE if well else WRONG
    if given.verb == "settle":
        problems = settle.settle(known)
        for problem in problems:
            print(f"settle: {problem}", file=sys.stderr)
        return WRONG if problems else DONE
    if given.verb == "snapshots":
        found = Repository(known, given.repository).snapshots()
        say(json.dumps([{**vars(snapshot), "kind": snapshot.kind} for snapshot in found], indent=1))
    elif given.verb == "prune":
        say(Repository(known, given.repository).prune(given.dry_run))
    elif given.verb == "pruned":
        Repository(known, given.repository).remember(pruned=time.time())
    elif given.verb == "forget-repository":
        Repository(known, given.repository).file.unlink(missing_ok=True)
    elif given.verb == "drill":
        return drill(known, given)
    elif given.verb == "restore":
        return bring_back(known, given)
    elif given.verb == "rebuild":
        return bring_anew(known, given)
    elif given.verb == "discard":
        restore.discard(known, given.name)
    elif given.verb == "undo":
        say(f"done; the restored state is kept as {restore.undo(known, given.name, say)}")
    return DONE


def main(words: Sequence[str] | None = None) -> int:
    """Entry point; the exit code."""
    given = parser().parse_args(words)
    syslog.openlog("pi-commerce-backup")
    try:
        with ExitStack() as held:
            if given.verb in MOVING:
                held.enter_context(at_work(LOCK_SECONDS))
            return act(plan.load(given.plan), given)
    except Busy as error:
        print(f"{error}; try again later", file=sys.stderr)
        return BUSY
    except Refused as error:
        print(f"refused: {error}", file=sys.stderr)
        return REFUSED
    except BackupError as error:
        print(f"failed: {error}", file=sys.stderr)
        return WRONG
    except OSError as error:
        # As where the disk with the data is missing: its folder takes no file.
        print(f"failed: {error.filename}: {error.strerror}: is the disk full, missing or worn out?", file=sys.stderr)
        return WRONG


if __name__ == "__main__":
    sys.exit(main())
