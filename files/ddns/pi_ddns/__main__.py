"""`pi-commerce-ddns`: has names follow the line's address (cron), and sets text records for `pi-commerce-entrance`.

Exit codes: 0 done or nothing to do, 1 something went wrong (it says what), 2 refused, 75 another process is at work.
"""

from __future__ import annotations

import argparse
import ipaddress
import subprocess
import sys
import time
import urllib.parse
from collections.abc import Mapping, Sequence
from pathlib import Path

from pi_common import programs
from pi_common.metrics import Metric, publish, render
from pi_common.programs import DONE, REFUSED, WRONG

from . import address, settings, state
from .errors import DdnsError, Refused, Unseen
from .providers import Provider, provider
from .settings import Settings
from .state import State
from .web import Web

NOTIFY = "pi-commerce-notify"
KEY = "ddns"
# How long a text may need until everybody can read it.
VISIBLE_SECONDS = 180


def parser() -> argparse.ArgumentParser:
    """What can be typed."""
    top = argparse.ArgumentParser(prog="pi-commerce-ddns", description="Has names follow the line's address.")
    top.add_argument("--settings", type=Path, default=settings.DEFAULT, help=argparse.SUPPRESS)
    verbs = top.add_subparsers(dest="verb", required=True)
    update = verbs.add_parser("update", help="send the address where it has changed (cron)")
    update.add_argument("--now", action="store_true", help="although the wait after a failure is not over")
    verbs.add_parser(
        "status", help="what was sent, and what is wrong; exit code 1 where something is, 2 where we are refused"
    )
    for verb, what in (("present", "have a text record be there"), ("absent", "take it away")):
        text = verbs.add_parser(verb, help=what)
        text.add_argument("name")
        text.add_argument("value")
    verbs.choices["present"].add_argument("--wait", action="store_true", help="until everybody can read it")
    return top


class Update:
    """One look at the line, and what follows from it."""

    def __init__(self, known: Settings, now: float) -> None:
        self.known, self.now = known, now
        self.path = known.folder / "state.json"
        self.state = state.load(self.path, now)
        self.web = Web(known.authority)

    def run(self, *, at_once: bool = False) -> int:
        """Do it, keep what came of it, and tell people where that is due; the exit code."""
        if not at_once and not self.state.due(self.now):
            return DONE
        code = DONE
        try:
            self._follow()
            self.state.confirmed(self.now)
        except DdnsError as error:
            self.state.failed(self.now, error, self.known.every_minutes * 60)
            print(f"failed: {error}", file=sys.stderr)
            code = REFUSED if isinstance(error, Refused) else WRONG
        stale = self.state.stale(self.now, self.known.stale_minutes)
        # Another failure is no end of the first.
        self._tell(code == REFUSED or stale or (code != DONE and self.state.alarmed))
        state.save(self.path, self.state)
        publish(self.known.metrics, metrics(self.state))
        return code

    def _follow(self) -> None:
        """Send what has changed; and now and then what has not, in case somebody else has changed it there."""
        sent = self.state.sent
        found, problems = self._look(sent)
        told = {str(family): text for family, text in found.items()}
        age = self.now - self.state.sent_at
        fresh = bool(problems) or 0 <= age < self.known.refresh_hours * 3600
        if found and not (told == sent and list(self.known.names) == self.state.names and fresh):
            self._send(found, told)
        if problems:
            raise Unseen("; ".join(problems))

    def _look(self, sent: Mapping[str, str]) -> tuple[dict[int, str], list[str]]:
        """The line's addresses by family, and what is wrong. One that nobody knows is as it was: the other may move."""
        found, problems = {}, []
        for family, urls in self.known.sources.items():
            before = sent.get(str(family), "")
            try:
                found[family] = address.seen(self.web, urls, family, before)
            except DdnsError as error:
                problems.append(str(error))
                if before:
                    found[family] = before
        return found, problems

    def _send(self, found: dict[int, str], told: dict[str, str]) -> None:
        """Have the names lead there. Raises DdnsError."""
        sent = self.state.sent
        service = service_of(self.known, self.web)
        for name in self.known.names:
            service.address(name, found)
        if told != sent:
            before = ", ".join(sent.values()) or "unknown"
            print(f"{', '.join(self.known.names)}: {', '.join(told.values())}, before {before}")
        self.state.sent, self.state.names, self.state.sent_at = told, list(self.known.names), self.now

    def _tell(self, wrong: bool) -> None:
        """Raise the alarm once, and take it back."""
        if wrong == self.state.alarmed:
            return
        names = ", ".join(self.known.names)
        raised = ["--level", "warning", f"{names} may lead nowhere"]
        command = [NOTIFY, "--key", KEY, *(raised if wrong else ["--clear"])]
        last = f"Last confirmed: {moment(self.state.confirmed_at)}. Look with: pi-commerce-ddns status"
        body = f"{self.state.error}\n{last}\n"
        try:
            subprocess.run(command, input=body, text=True, check=True)
            self.state.alarmed = wrong
        except (OSError, subprocess.CalledProcessError) as error:
            # Tried again the next time.
            print(f"{NOTIFY}: {error}", file=sys.stderr)


def service_of(known: Settings, web: Web) -> Provider:
    """The provider. Raises DdnsError."""
    return provider(known.provider, web, known.api, known.token())


def moment(when: float) -> str:
    """A time for people."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(when)) if when else "never"


def metrics(now: State) -> str:
    """How things stand, as Prometheus reads it."""
    rows = (
        ("confirmed_timestamp_seconds", now.confirmed_at, "When the names were last known to lead here, 0: never."),
        ("sent_timestamp_seconds", now.sent_at, "When the address was last sent, 0: never."),
        ("failures", now.failures, "Failures in a row."),
    )
    return render(Metric(f"pi_ddns_{name}", text, [({}, value)]) for name, value, text in rows)


def status(known: Settings) -> int:
    """Say how things stand; the exit code."""
    now = time.time()
    kept = state.load(known.folder / "state.json", now)
    for family, text in sorted(kept.sent.items()):
        print(f"IPv{family}: {ipaddress.ip_address(text)}, sent {moment(kept.sent_at)} for {', '.join(kept.names)}")
    print(f"confirmed: {moment(kept.confirmed_at)}")
    if kept.error:
        print(f"failed {kept.failures} times in a row: {kept.error}")
    if kept.refused:
        print("when that is corrected: pi-commerce-ddns update --now")
        return REFUSED
    return WRONG if kept.error or kept.stale(now, known.stale_minutes) else DONE


def act(given: argparse.Namespace) -> int:
    """Do what was asked for; the exit code."""
    known = settings.load(given.settings)
    if given.verb == "status":
        return status(known)
    if given.verb == "update":
        with state.locked(known.folder):
            return Update(known, time.time()).run(at_once=given.now)
    web = Web(known.authority)
    service_of(known, web).text(given.name, given.value, given.verb == "present")
    if given.verb == "present" and given.wait:
        visible(web, known.resolver, given.name, given.value)
    return DONE


def visible(web: Web, resolver: str, name: str, value: str) -> None:
    """Wait until a resolver of the world reads the text. Raises DdnsError."""
    deadline = time.monotonic() + VISIBLE_SECONDS
    query = urllib.parse.urlencode({"name": name, "type": "TXT"})
    while True:
        problem = "does the provider answer for it?"
        try:
            found = web.ask(f"{resolver}?{query}", {"Accept": "application/dns-json"}).json().get("Answer", [])
            if any(str(entry.get("data", "")).strip('"') == value for entry in found):
                return
        except DdnsError as error:
            # One question without an answer is no day without a certificate.
            problem = str(error)
        if time.monotonic() > deadline:
            raise DdnsError(f"{name}: its text cannot be read after {VISIBLE_SECONDS} s; {problem}")
        time.sleep(VISIBLE_SECONDS / 60)


def main(words: Sequence[str] | None = None) -> int:
    """Entry point; the exit code."""
    given = parser().parse_args(words)
    return programs.ended(lambda: act(given))


if __name__ == "__main__":
    sys.exit(main())
