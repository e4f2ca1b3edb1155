"""Messages on their way, one file each, and what is known about their targets. Bounded in number and size.

A message is delivered at least once to each of its targets: it waits for a target until that one has said yes and this
is on the disk. Killed between the two, it is sent once more; its id, which stands in the text, tells.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from pi_common import files

from . import journal
from .errors import NotifyError
from .locks import locked
from .settings import LEVELS, Settings

LOCK_SECONDS = 30
# Keys that are remembered at once; when there are more, the oldest are forgotten.
KEYS = 1000
# What a note says that counts messages nobody will get.
NOTES = {
    "full": "{count} messages were left out: the outbox was full. `journalctl -t pi-commerce-notify` has their titles.",
    "old": "{count} messages were given up, too old. `journalctl -t pi-commerce-notify` has their titles.",
    "damaged": "{count} messages were unreadable on the disk and are lost: is it worn out?",
}


@dataclass(frozen=True)
class Message:
    """One message. `waiting` has the targets that are still to get it, each with its tries: attempts, until, error.

    `created` and `until` are seconds since 1970. `count` is above 0 in notes about lost messages.
    """

    id: str
    created: float
    level: str
    title: str
    body: str
    waiting: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    key: str = ""
    count: int = 0

    @property
    def name(self) -> str:
        """Its file; sorted by name the oldest stands first."""
        return f"{self.id}.json" if self.count else f"{int(self.created * 1e6):017d}-{self.id}.json"

    @property
    def rank(self) -> int:
        """How much it matters, from 0."""
        return LEVELS.index(self.level)

    def tries(self, target: str) -> Mapping[str, Any]:
        """What is known of its tries to reach a target."""
        return {"attempts": 0, "until": 0.0, "error": "", **self.waiting[target]}


def new(level: str, title: str, body: str, key: str, targets: Iterable[str]) -> Message:
    """A message of this moment."""
    return Message(uuid.uuid4().hex[:8], time.time(), level, title, body, {name: {} for name in targets}, key)


class Outbox:
    """The folder. Every change is made under its lock, so that any number of processes may use it."""

    def __init__(self, settings: Settings) -> None:
        """Nothing is touched yet."""
        self.settings = settings
        self.folder = settings.folder / "outbox"
        self.file = settings.folder / "state.json"

    @contextmanager
    def locked(self) -> Iterator[dict[str, Any]]:
        """Hold the lock, with the state to change; it is written back. Raises Busy."""
        with locked(self.settings.folder, "outbox", LOCK_SECONDS):
            before = self.state()
            state = json.loads(json.dumps(before))
            yield state
            if state != before:
                files.write_json(self.file, state)

    def state(self) -> dict[str, Any]:
        """Keys that were raised, what is known of each target, and counters."""
        empty: dict[str, Any] = {"keys": {}, "targets": {}, "counts": {}}
        try:
            found = json.loads(self.file.read_text(encoding="utf-8"))
            return {part: dict(found[part]) for part in empty}
        except FileNotFoundError:
            return empty
        except (ValueError, TypeError, KeyError) as error:
            # A message that goes out once too often is better than none any more.
            journal.error(f"{self.file}: is damaged ({error!r}) and begun anew")
            return empty

    def messages(self) -> list[Message]:
        """All that wait, the oldest first; one that cannot be read is not among them."""
        return [found for found in map(self._read, self._paths()) if found is not None]

    def bytes(self) -> int:
        """Size of all that wait."""
        return sum(path.stat().st_size for path in self._paths())

    def _paths(self) -> list[Path]:
        return sorted(self.folder.glob("[!.]*.json"))

    @staticmethod
    def _read(path: Path) -> Message | None:
        """The message of a file; None where it is gone or damaged."""
        try:
            found = Message(**json.loads(path.read_text(encoding="utf-8")))
            whole = found.level in LEVELS and found.name == path.name and isinstance(found.waiting, dict)
        except (OSError, ValueError, TypeError):
            return None
        return found if whole else None

    def add(self, message: Message) -> bool:
        """Keep a message; False where its key was raised already. Raises NotifyError where there is no room.

        Room is made by dropping the oldest of the lowest level, which may be this one itself.
        """
        with self.locked() as state:
            # By the clock under the lock: of two that came together, the one made first may get here last.
            now = time.time()
            keys = {name: at for name, at in state["keys"].items() if self._recent(at, now)}
            if message.key in keys:
                return False
            state["keys"] = dict(sorted(keys.items(), key=lambda entry: entry[1])[-KEYS:])
            self._sweep(state)
            kept = self._make_room(state, message)
            if kept:
                # The message first: cut off in between it is sent once too often, the other way round never.
                files.write(self.folder / message.name, _text(message))
                if message.key:
                    state["keys"][message.key] = now
        if not kept:
            raise NotifyError(
                f"{self.folder}: is full of messages that matter more, this one is left out; "
                "`pi-commerce-notify --status` says why they wait"
            )
        return True

    def _sweep(self, state: dict[str, Any]) -> None:
        """Remove what a killed writer has left, and what nobody can read."""
        for left in self.folder.glob(f"{files.TEMPORARY}*"):
            left.unlink()
        for path in self._paths():
            if self._read(path) is None:
                journal.error(f"{path}: is damaged and removed")
                path.unlink()
                self._note(state, "damaged")

    def _make_room(self, state: dict[str, Any], message: Message) -> bool:
        """Drop what has to go for this message; False where that is the message itself."""
        there = [(found, len(_text(found).encode())) for found in self.messages() if not found.count]
        waiting = [*there, (message, len(_text(message).encode()))]
        while self._too_much(waiting):
            victim = min(waiting, key=lambda entry: (entry[0].rank, entry[0].name))
            waiting.remove(victim)
            self._drop(state, victim[0], "full")
            if victim[0] is message:
                return False
        return True

    def _recent(self, at: float, now: float) -> bool:
        """Whether a key raised at that moment keeps quiet. In the future it does not: the clock was wrong then."""
        return 0 <= now - at < self.settings.repeat_hours * 3600

    def clear(self, key: str) -> None:
        """Have a key sent at once when it is raised again."""
        with self.locked() as state:
            state["keys"].pop(key, None)

    def delivered(self, message: Message, target: str) -> None:
        """Note that a target has said yes."""
        with self.locked() as state:
            state["targets"][target] = {"failures": 0, "until": 0.0, "success": time.time(), "error": ""}
            _count(state, f"delivered {target}")
            found = self._read(self.folder / message.name)
            # A note that has counted on meanwhile waits on, and tells its new count.
            if found and found.body == message.body:
                self._put(replace(found, waiting=_without(found.waiting, target)))

    def failed(self, message: Message, target: str, error: str, until: float, about_message: bool) -> None:
        """Note that a try has failed, and until when to leave the target alone, or the message for that target.

        A message that is too old is given up. That is judged here, after a try: a clock that has leapt ahead, as it
        does when a machine without one of its own learns the time, makes no message vanish untried.
        """
        with self.locked() as state:
            _count(state, f"failed {target}")
            if not about_message:
                known = state["targets"].get(target, {})
                failures = known.get("failures", 0) + 1
                state["targets"][target] = {**known, "failures": failures, "until": until, "error": error}
            found = self._read(self.folder / message.name)
            if not found or target not in found.waiting:
                return
            if time.time() - found.created > self.settings.keep_days * 86400:
                journal.warning(f"given up for {target}, too old: {found.title} ({found.id})")
                self._put(replace(found, waiting=_without(found.waiting, target)))
                if not found.count:
                    self._note(state, "old")
                return
            attempts = found.tries(target)["attempts"] + 1
            news = {"attempts": attempts, "until": until if about_message else 0.0, "error": error}
            self._put(replace(found, waiting={**found.waiting, target: news}))

    def waits(self, message: Message, target: str) -> bool:
        """Whether a message is still on its way to a target."""
        found = self._read(self.folder / message.name)
        return found is not None and target in found.waiting

    def forget_targets(self) -> None:
        """Let no message wait for a target that is configured no more."""
        known = self.settings.targets
        with self.locked() as state:
            for message in self.messages():
                if gone := set(message.waiting).difference(known):
                    self._put(replace(message, waiting=_without(message.waiting, *gone)))
            state["targets"] = {name: entry for name, entry in state["targets"].items() if name in known}

    def _too_much(self, candidates: list[tuple[Message, int]]) -> bool:
        size = sum(size for _, size in candidates)
        return len(candidates) > self.settings.messages or size > self.settings.kib * 1024

    def _put(self, message: Message) -> None:
        """Write a message, or remove it when nobody waits for it."""
        if message.waiting:
            files.write(self.folder / message.name, _text(message))
        else:
            (self.folder / message.name).unlink(missing_ok=True)
            files.sync(self.folder)

    def _drop(self, state: dict[str, Any], message: Message, why: str) -> None:
        journal.warning(f"left out, the outbox is {why}: {message.title}")
        (self.folder / message.name).unlink(missing_ok=True)
        # Nobody was told, so the next time it is raised is the first.
        state["keys"].pop(message.key, None)
        self._note(state, why)

    def _note(self, state: dict[str, Any], why: str) -> None:
        """Count a lost message, in a note that is itself a message."""
        _count(state, f"dropped {why}")
        known = self._read(self.folder / f"note-{why}.json")
        count = known.count + 1 if known else 1
        targets: dict[str, dict[str, Any]] = {name: {} for name in self.settings.targets}
        title, body = "messages were lost", NOTES[why].format(count=count)
        created = known.created if known else time.time()
        self._put(Message(f"note-{why}", created, "warning", title, body, targets, count=count))


def _text(message: Message) -> str:
    return json.dumps(asdict(message), indent=1, sort_keys=True) + "\n"


def _without(waiting: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: tries for name, tries in waiting.items() if name not in names}


def _count(state: dict[str, Any], what: str) -> None:
    state["counts"][what] = state["counts"].get(what, 0) + 1
