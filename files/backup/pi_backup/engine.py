"""restic: one repository, and what its exit codes mean."""

from __future__ import annotations

import calendar
import json
import os
import re
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote

from . import files
from .commands import CommandFailed, run
from .errors import BackupError
from .locks import locked
from .plan import Plan, Target

REST_PASSWORD = "RESTIC_REST_PASSWORD"  # noqa: S105 - the name of a variable
NO_REPOSITORY, LOCKED, WRONG_PASSWORD = 10, 11, 12
# The first one that compresses.
FORMAT = 2
# What a disk says, a rest-server whose disk that is, and one that grants only so much.
FULL = ("no space left on device", "disk quota exceeded", "507 ", "413 ")
BEGUN = "repository already contains keys"
ANSWER_SECONDS = 60
# A clock may be wrong by so much; a snapshot further in the future is none of ours.
FUTURE_SECONDS = 600


@dataclass(frozen=True)
class Snapshot:
    """One snapshot; `time` is seconds since 1970."""

    id: str
    time: float
    host: str
    paths: tuple[str, ...]
    tags: tuple[str, ...]

    @property
    def kind(self) -> str:
        """nightly, ship or another word."""
        return self.tags[0] if self.tags else ""

    def tag(self, key: str) -> str:
        """The value of the tag `key=value`, empty where there is none."""
        return next((tag[len(key) + 1 :] for tag in self.tags if tag.startswith(f"{key}=")), "")

    @property
    def log_of(self) -> str:
        """The base that the log in it goes on from: a night's log ends what its own base begins anew."""
        return self.tag("base") if self.kind == "ship" else self.tag("ends")

    def holds(self, store: str) -> bool:
        """Whether a store is in it."""
        return f"store={store}" in self.tags

    def moment(self, store: str) -> float:
        """As of when it has a store that is no PostgreSQL; older ones do not say, and have when they were made."""
        return float(self.tag(f"moment.{store}") or self.time)

    def path(self, name: str) -> str:
        """The saved path whose last part is `name`, empty where there is none."""
        return next((path for path in self.paths if path.rsplit("/", 1)[-1] == name), "")


def seconds_of(text: str) -> float:
    """Seconds since 1970 of restic's times (2026-11-20T14:35:00.123456789+01:00). Raises ValueError."""
    parts = re.fullmatch(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d+)?(Z|[+-]\d\d:\d\d)", text)
    if parts is None:
        raise ValueError(f"{text!r} is no time")
    base = calendar.timegm(time.strptime(parts[1], "%Y-%m-%dT%H:%M:%S"))
    zone = 0 if parts[3] == "Z" else (int(parts[3][1:3]) * 3600 + int(parts[3][4:]) * 60)
    return base + float(parts[2] or 0) - (-zone if parts[3][0] == "-" else zone)


def escaped(path: str) -> str:
    """A path as a pattern that matches only itself."""
    return re.sub(r"([\\*?\[])", r"\\\1", path)


class Repository:
    """One of the places copies go to."""

    def __init__(self, plan: Plan, name: str) -> None:
        """`name` is a key of the plan's repositories. Raises BackupError for another."""
        if name not in plan.targets:
            raise BackupError(f"there is no repository {name!r}; there are: {', '.join(plan.targets)}")
        self.plan = plan
        self.name = name
        self.target: Target = plan.targets[name]
        self.answered = False
        self.file = plan.folder / "state" / f"{name}.json"

    @property
    def state(self) -> dict[str, Any]:
        """What this machine remembers of the repository."""
        return files.read_json(self.file)

    def remember(self, **news: Any) -> None:
        """Add to what is remembered."""
        with locked(self.plan.folder, "state", 60):
            files.write_json(self.file, {**self.state, **news})

    def restic(self, *words: str, seconds: float = 86400, target: IO[bytes] | None = None) -> str:
        """Output of a restic command, empty where it went to the file `target`.

        Raises BackupError that names the repository, the cause and the remedy.
        """
        try:
            return self._restic(words, seconds, target)
        except CommandFailed as error:
            if error.status != LOCKED:
                raise self._explained(error) from error
        # Left by one that was killed: `unlock` takes away only locks of processes that are gone.
        try:
            self._restic(["unlock"], ANSWER_SECONDS)
            return self._restic(words, seconds, target)
        except CommandFailed as error:
            raise self._explained(error) from error

    def _restic(self, words: Sequence[str], seconds: float, target: IO[bytes] | None = None) -> str:
        secrets = {name: self.plan.secret(file) for name, file in self.target.secrets.items()}
        address = files.in_memory(self._address(secrets.pop(REST_PASSWORD, "")).encode())
        environment = {
            "RESTIC_REPOSITORY_FILE": f"/proc/self/fd/{address.fileno()}",
            "RESTIC_PASSWORD_FILE": self.target.password_file,
            "RESTIC_CACHE_DIR": str(self.plan.folder / "cache"),
            "TMPDIR": "/var/tmp",  # noqa: S108 - restic makes its files there itself, unpredictable and for root
            # Where rclone has its settings; ssh asks an agent for keys, where a person has one.
            "HOME": str(Path.home()),
            **{name: os.environ[name] for name in ("SSH_AUTH_SOCK",) if name in os.environ},
            "GOMAXPROCS": "2",
            "GOGC": "20",
            **self.target.environment,
            **secrets,
        }
        with address:
            return run(
                [self.plan.engine, *words],
                name="restic",
                environment=environment,
                seconds=seconds,
                target=target,
                kept=[address.fileno()],
            )

    def _address(self, password: str) -> str:
        """The URL with a rest-server's password in it, which is read from memory: no environment shows it."""
        if not password:
            return self.target.url
        user = quote(self.target.environment.get("RESTIC_REST_USERNAME", ""), safe="")
        return re.sub(r"^(rest:https?://)(?:[^/@]*@)?", rf"\g<1>{user}:{quote(password, safe='')}@", self.target.url)

    def _explained(self, error: CommandFailed) -> BackupError:
        causes = {
            None: "does not answer: is the place reachable, is the disk there?",
            NO_REPOSITORY: "holds no repository",
            LOCKED: "is locked by another program: is a prune running? It goes on by itself when that ends",
            WRONG_PASSWORD: f"is not opened by the password in {self.target.password_file}",
        }
        cause = causes.get(error.status, "failed")
        if BEGUN in error.words:
            cause = (
                "has a key and no settings: its making was cut off, or its file `config` was lost. Where there is "
                "nothing in its folder `snapshots`, empty that place, and the next run makes it"
            )
        if any(text in error.words for text in FULL):
            cause = "is full: make room there, or thin it out with playbooks/prune.yml"
        return RepositoryError(f"repository {self.name} ({self.shown}) {cause}: {_words(error.words)}", error.status)

    @property
    def shown(self) -> str:
        """Its address without a password."""
        return re.sub(r"//[^/@]*@", "//", self.target.url)

    def answer(self) -> dict[str, Any]:
        """What the repository says of itself, within a minute. Raises BackupError."""
        found: dict[str, Any] = json.loads(self.restic("cat", "config", "--no-lock", seconds=ANSWER_SECONDS))
        self.answered = True
        return found

    def ensure(self) -> None:
        """Have the repository there: made the first time, and the same one ever after. Raises BackupError."""
        known = self.state.get("id")
        try:
            found = self.answer()
        except RepositoryError as error:
            if error.status != NO_REPOSITORY:
                raise
            if known:
                raise BackupError(
                    f"repository {self.name} ({self.shown}) is gone, yet it was there before: is its disk mounted? If "
                    f"it is lost for good: `pi-commerce-backup forget-repository {self.name}`, the next run makes one"
                ) from error
            found = self._made()
        if known and found["id"] != known:
            raise BackupError(
                f"repository {self.name} ({self.shown}) is another one than before ({found['id'][:8]} instead of "
                f"{known[:8]}): is the right disk mounted? If it was replaced: `pi-commerce-backup forget-repository "
                f"{self.name}`"
            )
        if found["version"] != FORMAT:
            raise BackupError(
                f"repository {self.name} ({self.shown}) has format {found['version']}, {FORMAT} is needed: choose an "
                "empty place, or `restic migrate upgrade_repo_v2` it from the computer that may change it"
            )
        if not known:
            self.remember(id=found["id"], since=time.time())

    def _made(self) -> dict[str, Any]:
        """Make the repository, unless another run has by now; what it says of itself. Raises BackupError.

        Two that are made in one place spoil each other: each leaves a key to another repository.
        """
        with locked(self.plan.folder, f"make-{self.name}", 4 * ANSWER_SECONDS):
            try:
                return self.answer()
            except RepositoryError as error:
                if error.status != NO_REPOSITORY:
                    raise
            self._drop_begun()
            self.restic("init", f"--repository-version={FORMAT}", seconds=ANSWER_SECONDS)
            return self.answer()

    def _drop_begun(self) -> None:
        """Take away the key that is all there is, where the making was cut off in a folder of this machine."""
        folder = Path(self.target.url)
        saved = (path for name in ("data", "index", "snapshots") for path in folder.glob(f"{name}/**/*"))
        if folder.is_absolute() and not any(path.is_file() for path in saved):
            for key in folder.glob("keys/*"):
                key.unlink()

    def backup(self, paths: Iterable[Path], tags: Sequence[str], excluded: Iterable[str] = ()) -> str:
        """Save the paths as one snapshot; return its id. Raises BackupError when a file could not be read."""
        words = [word for tag in tags for word in ("--tag", tag)]
        words += [f"--exclude={pattern}" for pattern in excluded]
        printed = self.restic(
            "backup",
            "--json",
            "--host",
            self.plan.host,
            "--group-by=host",
            "--compression=auto",
            "--retry-lock=2m",
            *words,
            *map(str, paths),
        )
        summary: dict[str, Any] = json.loads(printed.strip().rsplit("\n", 1)[-1])
        return str(summary["snapshot_id"])

    def backup_output(self, name: str, command: Sequence[str], tags: Sequence[str]) -> None:
        """Save what a command prints as the file `name`. Raises BackupError where the command fails, too."""
        words = [word for tag in tags for word in ("--tag", tag)]
        self.restic(
            *("backup", "--host", self.plan.host, "--group-by=host", "--compression=auto", "--retry-lock=2m"),
            *words,
            *("--stdin-filename", name, "--stdin-from-command", "--", *command),
        )

    def snapshots(self) -> list[Snapshot]:
        """All snapshots, the oldest first; also those of other machines. Raises BackupError."""
        if not self.answered:
            # A list may take long to come; whether one will come at all is known within a minute.
            self.answer()
        found = json.loads(self.restic("snapshots", "--json", "--no-lock", seconds=600)) or []
        read = (
            Snapshot(
                id=entry["id"],
                time=seconds_of(entry["time"]),
                host=entry["hostname"],
                paths=tuple(entry["paths"]),
                tags=tuple(entry.get("tags") or ()),
            )
            for entry in found
        )
        return sorted(read, key=lambda snapshot: snapshot.time)

    def read(self, snapshot: Snapshot, path: str) -> str:
        """The content of one small file."""
        return self.restic("dump", "--no-lock", snapshot.id, path, seconds=600)

    def write(self, snapshot: Snapshot, path: str, target: IO[bytes]) -> None:
        """Write the content of one file into another, of which it is the beginning only where this raises."""
        self.restic("dump", "--no-lock", snapshot.id, path, target=target)

    def fetch(self, snapshot: Snapshot, path: str, target: Path) -> None:
        """Lay what was saved of a folder out in the empty folder `target`, every block checked. Raises BackupError."""
        self.restic("restore", "--no-lock", "--verify", f"{snapshot.id}:{path}", "--target", str(target))

    def prune(self, dry_run: bool = False) -> str:
        """Thin out by age; what went, in words. For the admin's side: the Pi's own access may only add."""
        newest = time.time() + FUTURE_SECONDS
        ahead = [snapshot for snapshot in self.snapshots() if snapshot.time > newest]
        if ahead:
            # Ages count from the newest snapshot: one from next year would make all others too old.
            raise BackupError(
                f"repository {self.name}: {len(ahead)} snapshots claim to be from the future ({ahead[0].id[:8]}, host "
                f"{ahead[0].host}): nothing is removed. Find out who wrote them, remove them with `restic forget <id>`"
            )
        self.restic("unlock", seconds=ANSWER_SECONDS)
        keep = [f"--keep-within-{span}={length}" for span, length in self.plan.keep.items()]
        only = ["--dry-run"] if dry_run else []
        said = []
        # One by one: tags differ from snapshot to snapshot, so that grouped by them none would ever be too many.
        # Images that did not change are saved once: the newest stay however old they are.
        for kind, kept_by in {"nightly": keep, "ship": keep, "images": ["--keep-within=90d"]}.items():
            said_of = self.restic("forget", "--json", "--group-by=host", f"--tag={kind}", *kept_by, *only)
            # Nothing at all where there is no snapshot of this kind.
            groups = json.loads(said_of or "[]") or []
            gone = {entry["id"]: entry["time"][:16] for group in groups for entry in group["remove"] or []}
            left = [snapshot for snapshot in self.snapshots() if snapshot.id in gone]
            if left and not dry_run:
                # The engine ends with 0 all the same.
                raise BackupError(
                    f"repository {self.name} ({self.shown}) lets nobody delete who comes this way, and still has "
                    f"{len(left)} snapshots too many: prune it from the computer that may (playbooks/prune.yml)"
                )
            kept = sum(len(group["keep"] or []) for group in groups)
            said.append(f"{kind}: {kept} kept, {len(gone)} {'would be ' if dry_run else ''}removed")
            said += [f"  {moment} {identity[:8]}" for identity, moment in gone.items()]
        said.append(self.restic("prune", *only))
        if not dry_run:
            self.remember(pruned=time.time())
        return "\n".join(said)


class RepositoryError(BackupError):
    """restic failed; `status` is its exit code, None when it did not end in time."""

    def __init__(self, message: str, status: int | None) -> None:
        """Keep both."""
        super().__init__(message)
        self.status = status


def _words(said: str) -> str:
    """The last thing restic said, also where it said it as JSON."""
    lines = [line for line in said.splitlines() if line.strip()]
    for line in reversed(lines):
        if line.startswith("{"):
            told = json.loads(line)
            text = told.get("message") or (told.get("error") or {}).get("message")
            if text:
                return str(text)
    return " ".join(lines[-3:]) or "it said nothing"
