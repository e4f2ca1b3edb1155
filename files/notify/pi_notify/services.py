"""One message to one target, through apprise, and what came of it."""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NamedTuple

import apprise
import requests

from .errors import NotifyError
from .outbox import Message
from .words import asked_wait, scrubbed, secrets_of, text_of

# Seconds for one message to one target, whatever the other side does.
SECONDS = 30
# Answers that are about this one message: the next may well be taken.
REFUSED = {400, 413, 422}
ERROR_CHARACTERS = 300
KINDS = {"info": "info", "warning": "warning", "critical": "failure"}


class Outcome(NamedTuple):
    """What came of a try. `about_message`: not the target's fault. `wait`: seconds that the service asked for."""

    delivered: bool
    error: str = ""
    about_message: bool = False
    wait: float = 0.0


class OutOfTime(BaseException):
    """The other side took too long. Not an Exception: no library is to swallow it."""


class Service:
    """A target as apprise knows it."""

    def __init__(self, name: str, url: str, host: str) -> None:
        """`url` is an Apprise URL, `host` the name that messages begin with. Raises NotifyError."""
        self.name, self.host = name, host
        self._secrets = secrets_of(url)
        self._words: list[str] = []
        asset = apprise.AppriseAsset(async_mode=False, app_id="pi-commerce", app_desc="pi-commerce")
        with self._listening():
            made = apprise.Apprise.instantiate(url, asset=asset)
        if made is None:
            raise NotifyError(
                f"target {name}: its URL is none that apprise knows; write it as apprise's wiki has it for the service"
            )
        # One that took it and one that did not could not be told apart. Up to apprise 1.2 services cannot be counted.
        recipients = len(made) if hasattr(made, "__len__") else len(getattr(made, "targets", ()))
        if recipients > 1:
            raise NotifyError(f"target {name}: its URL names {recipients} recipients; make each a target of its own")
        if "overflow=" not in url:
            # Parts of a message would be sent again each time a later one fails.
            made.overflow_mode = apprise.OverflowMode.TRUNCATE
        self._apprise = apprise.Apprise(asset=asset)
        self._apprise.add(made)

    def send(self, message: Message) -> Outcome:
        """Deliver a message; takes at most SECONDS."""
        self._words = []
        with self._listening(), _watching() as answers:
            try:
                with _deadline(SECONDS):
                    said_yes = self._apprise.notify(
                        title=f"{self.host}: {message.title}",
                        body=text_of(message),
                        notify_type=KINDS[message.level],
                        body_format=apprise.NotifyFormat.TEXT,
                    )
            except OutOfTime:
                return Outcome(False, f"gave no answer within {SECONDS} s")
        last = answers[-1] if answers else None
        if said_yes:
            # A redirect turns what was posted into a mere visit, and that of a login page succeeds.
            if last is not None and last.history and last.request.method != last.history[0].request.method:
                return Outcome(False, "redirects elsewhere: is this network asking for a login, is the URL right?")
            return Outcome(True)
        error = scrubbed(" ".join(self._words), self._secrets)[:ERROR_CHARACTERS]
        if last is None:
            return Outcome(False, error or "cannot be reached")
        wait = asked_wait(last.headers, last.content, time.time())
        return Outcome(False, f"answered {last.status_code}: {error}", last.status_code in REFUSED, wait)

    @contextmanager
    def _listening(self) -> Iterator[None]:
        """Keep what apprise says from everybody but us: it may hold the URL."""
        logger, handler = logging.getLogger("apprise"), _Keeper(self._words)
        known = (logger.propagate, logger.level, logger.handlers)
        logger.propagate, logger.handlers = False, [handler]
        logger.setLevel(logging.DEBUG)
        try:
            yield
        finally:
            logger.propagate, logger.handlers = known[0], known[2]
            logger.setLevel(known[1])


class _Keeper(logging.Handler):
    """Keeps the words that tell why something failed."""

    def __init__(self, words: list[str]) -> None:
        super().__init__()
        self.words = words

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if record.levelno >= logging.WARNING or "Exception" in text:
            self.words.append(" ".join(text.split()))


@contextmanager
def _watching() -> Iterator[list[Any]]:
    """The answers to all HTTP requests meanwhile: apprise itself tells only yes or no."""
    answers: list[Any] = []
    original = requests.Session.send

    def send(session: Any, request: Any, **options: Any) -> Any:
        answer = original(session, request, **options)
        answers.append(answer)
        return answer

    # apprise makes its sessions itself, each for one request.
    requests.Session.send = send  # type: ignore[assignment, method-assign]
    try:
        yield answers
    finally:
        requests.Session.send = original  # type: ignore[method-assign]


@contextmanager
def _deadline(seconds: float) -> Iterator[None]:
    """End what is inside after so many seconds, also where the other side sends one byte now and then."""

    def ring(number: int, frame: FrameType | None) -> None:
        raise OutOfTime

    known = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, known)
