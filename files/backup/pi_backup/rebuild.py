"""What rebuild.yml calls on a new machine: the vault file, the images, what was sealed, and all data."""

from __future__ import annotations

import io
import os
import tarfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from . import choose, files, images, restore
from .commands import run
from .docker import volume_path
from .drill import live
from .engine import Repository, Snapshot
from .errors import BackupError, Refused
from .host import VAULT
from .plan import Plan

DATA = ("ship", "nightly")
SEALED = "host/secrets.tar.age"


class Source(NamedTuple):
    """A repository that answers, and what it holds of this machine, the oldest first."""

    repository: Repository
    snapshots: list[Snapshot]

    @property
    def point(self) -> float:
        """How far its data reaches, in seconds since 1970: that of PostgreSQL, where there is one."""
        data = [snapshot for snapshot in self.snapshots if snapshot.kind in DATA]
        points = [float(snapshot.tag("point") or 0) for snapshot in data]
        return max(points if any(points) else [snapshot.time for snapshot in data], default=0)


def mark(plan: Plan) -> Path:
    """What rebuild.yml leaves on a machine that it works on; with `finished` in it the work is done."""
    return plan.folder / "state/rebuild.json"


def under_way(plan: Plan) -> bool:
    """Whether this machine is being rebuilt."""
    found = files.read_json(mark(plan))
    return bool(found) and "finished" not in found


def sources(plan: Plan, wanted: str) -> list[Source]:
    """The repositories that can be read (only `wanted` where it is named), the one whose data is newest first.

    Where several reach as far, they stay as the plan has them. Raises Refused where there is none.
    """
    found, problems = [], []
    for name in [wanted] if wanted else plan.targets:
        repository = Repository(plan, name)
        try:
            found.append(Source(repository, choose.usable(repository.snapshots(), plan.host, time.time())))
        except BackupError as error:
            text = str(error)
            named = text.startswith("repository ")
            problems.append(text if named else f"repository {name} ({repository.shown}) {text}")
    if not found:
        raise Refused("no repository can be read: " + "; ".join(problems))
    return sorted(found, key=lambda source: -source.point)


def _first(
    plan: Plan, wanted: str, what: str, pick: Callable[[Source], Any], read: Callable[[Source, Any], Any]
) -> Any:
    """What `read` makes of the first source in which `pick` finds something; one that is damaged is passed over."""
    problems = []
    for source in sources(plan, wanted):
        picked = pick(source)
        if picked is None:
            problems.append(f"repository {source.repository.name} ({source.repository.shown}) holds none")
            continue
        try:
            return read(source, picked)
        except BackupError as error:
            problems.append(str(error))
    raise Refused(f"{what} cannot be had: {'; '.join(problems)}")


def vault(plan: Plan, wanted: str = "") -> str:
    """The vault file of the newest snapshot, sealed. Raises Refused."""

    def pick(source: Source) -> Snapshot | None:
        return next((s for s in reversed(source.snapshots) if s.kind in DATA), None)

    def read(source: Source, snapshot: Snapshot) -> str:
        return source.repository.read(snapshot, f"{snapshot.path(snapshot.kind)}/{VAULT.name}")

    return str(_first(plan, wanted, "the vault file", pick, read))


def load_images(plan: Plan, wanted: str = "") -> str:
    """Bring the bundle of images into Docker; what it said. Raises Refused."""
    return str(
        _first(
            plan,
            wanted,
            "the bundle of images (backup_images_in)",
            lambda source: images.newest(source.snapshots),
            lambda source, snapshot: images.load(source.repository, snapshot),
        )
    )


# --- what was sealed ---------------------------------------------------------------------------------------


def unseal(plan: Plan, wanted: str, paths: Sequence[str], identity: str) -> list[str]:
    """Bring back those of the sealed files that lie below `paths`, opened with the private key `identity`.

    The files that were written; none where no night has been saved yet. Raises BackupError.
    """

    def pick(source: Source) -> Snapshot | None:
        return next((s for s in reversed(source.snapshots) if s.kind == "nightly"), None)

    def read(source: Source, snapshot: Snapshot) -> list[str]:
        sealed = files.fresh(plan.folder / "staging/rebuild") / "sealed"
        with sealed.open("wb") as target:
            source.repository.write(snapshot, f"{snapshot.path('nightly')}/{SEALED}", target)
        with files.in_memory() as opened:
            # In memory only; the key through standard input.
            run(["age", "--decrypt", "--identity", "-", str(sealed)], text=identity, target=opened)
            sealed.unlink()
            opened.seek(0)
            return lay_out(opened, paths)

    if not any(pick(source) for source in sources(plan, wanted)):
        return []
    written: list[str] = _first(plan, wanted, "the sealed bundle", pick, read)
    return written


def lay_out(bundle: io.BufferedIOBase | Any, paths: Sequence[str], root: Path = Path("/")) -> list[str]:
    """Write the files below `paths` of a tar file, each whole or not at all, with their owners; their names.

    So are links to what lies beside them (dehydrated finds its certificates by these); others would lead elsewhere.
    """
    written = []
    with tarfile.open(fileobj=bundle) as archive:
        for entry in sorted(archive, key=lambda entry: entry.name):
            name = f"/{entry.name}"
            if ".." in entry.name.split("/") or not any(name == path or name.startswith(f"{path}/") for path in paths):
                continue
            target = root / entry.name
            if entry.isdir():
                target.mkdir(parents=True, exist_ok=True)
                os.chown(target, entry.uid, entry.gid)
                target.chmod(entry.mode)
            elif entry.isfile():
                content = archive.extractfile(entry)
                target.parent.mkdir(parents=True, exist_ok=True)
                files.place(target, content.read() if content else b"", entry.mode, entry.uid, entry.gid)
                written.append(name)
            elif entry.issym() and "/" not in entry.linkname and entry.linkname not in (".", ".."):
                target.parent.mkdir(parents=True, exist_ok=True)
                files.link(target, entry.linkname)
                written.append(name)
    return written


# --- the data ----------------------------------------------------------------------------------------------


class Clock:
    """Passes on what is said, and remembers how many seconds went by until the next word."""

    def __init__(self, say: Callable[[str], None]) -> None:
        """Nothing is said yet."""
        self._say, self._last = say, ("", 0.0)
        self.seconds: dict[str, float] = {}

    def say(self, text: str) -> None:
        """Say it; what was said before has ended."""
        now = time.monotonic()
        title, begun = self._last
        if title:
            self.seconds[title] = round(self.seconds.get(title, 0) + now - begun, 1)
        self._last = (text, now)
        self._say(text)


def bring_back(plan: Plan, wanted: str, at: str, say: Callable[[str], None]) -> None:
    """Restore everything onto a machine that rebuild.yml works on; complete what was cut off; once.

    Raises Refused on another machine, and where data is there already; BackupError.
    """
    document = files.read_json(mark(plan))
    if not document or "finished" in document:
        raise Refused(f"{mark(plan)}: rebuild.yml is not at work on this machine; see `pi-commerce-backup restore`")
    if "restored" in document:
        say("the data is back already")
        return
    clock = Clock(say)
    if restore.journal(plan).exists():
        restore.resume(plan, clock.say)
    elif not _kept(plan):
        _restore(plan, wanted, at, clock, document)
    clock.say("measuring what came back")
    document["restored"] = {
        "ended": time.time(),
        "seconds": clock.seconds,
        "stores": {
            store.name: {"kind": store.kind, **files.measure(volume_path(plan, store.volume))} for store in plan.stores
        },
    }
    files.write_json(mark(plan), document)
    for name in _kept(plan):
        # There was nothing to replace: the volumes that would hold it are empty.
        restore.discard(plan, name)


def check(plan: Plan, say: Callable[[str], None]) -> None:
    """Judge what came back while the services run on it. Raises Refused where nothing did; BackupError."""
    document = files.read_json(mark(plan))
    if "restored" not in document:
        raise Refused(f"{mark(plan)}: no data was brought back to this machine by rebuild.yml")
    stores = document["restored"]["stores"]
    problems = [f"{name}: nothing came back" for name, found in stores.items() if not found["files"]]
    problems += live.judge(plan, document["source"]["canaries"], say)
    if problems:
        raise BackupError("; ".join(problems))


def _kept(plan: Plan) -> list[str]:
    """Restores of everything that were completed."""
    return [name for name, entry in files.read_json(restore.kept_file(plan)).items() if entry["title"] == "all"]


def _restore(plan: Plan, wanted: str, at: str, clock: Clock, document: dict[str, Any]) -> None:
    """From the repository whose data is newest; where that fails before anything is in place, from the next.

    What is on its way is noted in the mark first, so that also a run that goes on knows it.
    """
    problems = []
    for source in sources(plan, wanted):
        intent = restore.intend(plan, "all", at, source.repository.name)
        if intent.replaced:
            raise Refused(
                f"{', '.join(intent.replaced)} holds data already, and a rebuild is for a machine without any: bring "
                "back with restore.yml, or take it away with playbooks/uninstall.yml -e stack_uninstall_data=true"
            )
        for line in intent.lines():
            clock.say(line)
        try:
            document["source"] = {
                "repository": source.repository.name,
                "reached": {step.store.name: step.reached for step in intent.steps},
                "canaries": live.expected(intent.repository, intent.steps),
            }
            files.write_json(mark(plan), document)
            restore.carry_out(intent, "", clock.say)
        except BackupError as error:
            if restore.journal(plan).exists():
                raise
            problems.append(str(error))
            clock.say(f"not usable: {error}")
            continue
        return
    raise BackupError("no repository could be restored from: " + "; ".join(problems))
