"""`pi-commerce-notify`: tells people. When it ends with 0 a message is safe on the disk; it goes out at once, or later.

Exit codes: 0 done, 1 something went wrong (it says what), 2 refused, 75 another process is at work.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from pi_common import programs
from pi_common.programs import DONE, WRONG

from . import journal, report, settings
from .errors import Busy, NotifyError, Refused
from .locks import locked
from .outbox import Outbox, new
from .settings import BODY_BYTES, LEVELS, TITLE_CHARACTERS, Settings

# How long --test waits for a run that is at work.
TEST_SECONDS = 60


def parser() -> argparse.ArgumentParser:
    """What can be typed."""
    top = argparse.ArgumentParser(prog=journal.NAME, description="Tells people; the text is read from standard input.")
    top.add_argument("title", nargs="?", metavar="TITLE", help="what has happened, in one line")
    top.add_argument("--level", choices=LEVELS, default=LEVELS[0], help="how much it matters")
    top.add_argument("--key", default="", help="what it is about: not sent again until cleared, or for some hours")
    top.add_argument("--settings", type=Path, default=settings.DEFAULT, help=argparse.SUPPRESS)
    verbs = top.add_mutually_exclusive_group()
    verbs.add_argument("--clear", action="store_true", help="with --key: it is over, send it again when it comes back")
    verbs.add_argument("--flush", action="store_true", help="send what waits (cron)")
    verbs.add_argument("--status", action="store_true", help="what waits and why; exit code 1 where something is wrong")
    verbs.add_argument("--check", action="store_true", help="read the targets' URLs, send nothing")
    verbs.add_argument(
        "--test", action="store_true", help="send a message to every target now, and say what came of it"
    )
    return top


def clean(text: str, *, one_line: bool) -> str:
    """The text without control characters."""
    text = re.sub(r"\s+", " ", text) if one_line else text.expandtabs(4)
    return "".join(character for character in text if character.isprintable() or character == "\n").strip()


def asked(given: argparse.Namespace) -> tuple[str, str]:
    """Title and body, in order. Raises Refused."""
    title = clean(given.title or "", one_line=True)
    if not title:
        raise Refused("the title is empty: say in one line what has happened")
    if len(title) > TITLE_CHARACTERS:
        raise Refused(
            f"the title has {len(title)} characters, {TITLE_CHARACTERS} are taken; standard input is for the rest"
        )
    raw = sys.stdin.buffer.read(BODY_BYTES + 1)
    if len(raw) > BODY_BYTES:
        raise Refused(
            f"standard input has more than {BODY_BYTES} bytes: send the end of it, and say where all of it is"
        )
    body = clean(raw.decode(errors="replace"), one_line=False)
    if not body:
        raise Refused("standard input is empty: say there what has happened, where, and what to do")
    return title, body


def send(known: Settings, given: argparse.Namespace) -> int:
    """Keep a message and have it sent by a process of its own."""
    title, body = asked(given)
    targets = [name for name, target in known.targets.items() if target.takes(given.level)]
    if not targets:
        journal.warning(f"{given.level}, no target takes it: {title}\n{body}")
        return DONE
    message = new(given.level, title, body, given.key, targets)
    try:
        kept = Outbox(known).add(message)
    except (NotifyError, OSError):
        # Nobody will be told, so that at least it stands somewhere.
        journal.error(f"{given.level}, could not be kept: {title}\n{body}")
        raise
    if kept:
        journal.info(f"{given.level}, kept: {title} ({message.id})")
        try_at_once(given.settings)
    return DONE


def try_at_once(path: Path) -> None:
    """Have a process of its own send what is due: whoever calls us waits for no network, and for nobody's pipe."""
    nothing = subprocess.DEVNULL
    command = [sys.executable, "-B", "-m", "pi_notify", "--settings", str(path), "--flush"]
    try:
        subprocess.Popen(command, stdin=nothing, stdout=nothing, stderr=nothing, start_new_session=True)
    except OSError as error:
        # The message is safe, and cron comes soon.
        journal.warning(f"cannot be sent at once: {error.strerror}")


def flush(known: Settings) -> int:
    """Send what is due, unless another process is doing so."""
    if not Outbox(known).messages():
        return DONE
    try:
        with locked(known.folder, "flush"):
            # Takes longer to import than all else: apprise knows a hundred services.
            from .delivery import Flush

            Flush(known).run()
            report.publish(known)
    except Busy:
        return DONE
    return DONE


def test(known: Settings, *, sending: bool) -> int:
    """Read every target's URL, or send a message to it now; say what came of it."""
    if not known.targets:
        print("no target is configured: set notify_targets in the inventory, then run site.yml")
        return WRONG if sending else DONE
    from .services import Service

    wrong = False
    message = new(LEVELS[0], "test", "This is a test. Nothing has happened.", "", [])
    with locked(known.folder, "flush", TEST_SECONDS):
        for name, target in known.targets.items():
            try:
                service = Service(name, target.url(), known.host)
                error = service.send(message).error if sending else ""
            except NotifyError as caught:
                error = str(caught)
            wrong = wrong or bool(error)
            print(f"{name}: {error or ('delivered' if sending else 'is understood')}")
    return WRONG if wrong else DONE


def act(known: Settings, given: argparse.Namespace) -> int:
    """Do what was asked for; the exit code."""
    if given.key and not re.fullmatch(r"[\w.:/@-]{1,100}", given.key):
        raise Refused("--key: takes up to 100 letters, digits and ._:/@-")
    if given.clear:
        if not given.key or given.title:
            raise Refused("--clear: needs --key, and no title")
        Outbox(known).clear(given.key)
        return DONE
    if given.status:
        lines, well = report.table(known)
        print("\n".join(lines))
        return DONE if well else WRONG
    if given.test or given.check:
        return test(known, sending=given.test)
    return flush(known) if given.flush else send(known, given)


def main(words: Sequence[str] | None = None) -> int:
    """Entry point; the exit code."""
    given = parser().parse_args(words)
    return programs.ended(lambda: act(settings.load(given.settings), given))


if __name__ == "__main__":
    sys.exit(main())
