"""Takes what waits to its targets."""

from __future__ import annotations

import random
import time

from . import journal
from .errors import NotifyError
from .outbox import Message, Outbox
from .schedule import backoff, due
from .services import Outcome, Service
from .settings import Settings

# Within one run, which is to end also where much waits and each message takes long.
FLUSH_SECONDS = 240


class Flush:
    """One run. Whoever makes one holds the lock `flush`, so that no message goes out by two processes."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.outbox = Outbox(settings)
        self.services: dict[str, Service] = {}

    def run(self) -> None:
        """Send what is due, also what comes in meanwhile. Each message is tried once for each target."""
        self.outbox.forget_targets()
        end = time.monotonic() + FLUSH_SECONDS
        tried: set[tuple[str, str]] = set()
        while True:
            pairs = due(self.outbox.messages(), self.outbox.state()["targets"], time.time())
            pairs = [(message, target) for message, target in pairs if (message.id, target) not in tried]
            if not pairs:
                return
            away: set[str] = set()
            for message, target in pairs:
                if time.monotonic() > end:
                    return
                if target not in away:
                    tried.add((message.id, target))
                    away |= set() if self._deliver(message, target) else {target}

    def _deliver(self, message: Message, target: str) -> bool:
        """Try once; whether another message may be tried with the same target."""
        if not self.outbox.waits(message, target):
            return True
        outcome = self._outcome(message, target)
        if outcome.delivered:
            self.outbox.delivered(message, target)
            journal.info(f"delivered to {target}: {message.title} ({message.id})")
            return True
        known = self.outbox.state()["targets"].get(target, {}).get("failures", 0)
        failures = message.tries(target)["attempts"] + 1 if outcome.about_message else known + 1
        jitter = random.random()  # noqa: S311 - spreads load, keeps no secret
        wait = max(outcome.wait, backoff(failures, self.settings.cadence_minutes * 60.0, jitter))
        self.outbox.failed(message, target, outcome.error, time.time() + wait, outcome.about_message)
        journal.warning(f"{target}: {outcome.error}; next try in {wait:.0f} s: {message.title} ({message.id})")
        return outcome.about_message

    def _outcome(self, message: Message, target: str) -> Outcome:
        try:
            if target not in self.services:
                entry = self.settings.targets[target]
                self.services[target] = Service(target, entry.url(), self.settings.host)
            return self.services[target].send(message)
        except NotifyError as error:
            return Outcome(False, str(error))
