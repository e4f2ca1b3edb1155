"""Where a drill takes the copies from: the repository, its snapshots, and what a job has staged, laid out here."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import choose, files
from ..engine import (
    FUTURE_SECONDS,
    NO_REPOSITORY,
    WRONG_PASSWORD,
    Repository,
    RepositoryError,
    Snapshot,
)
from ..errors import BackupError
from ..plan import Plan, Store
from .checks import Ladder, Unable
from .settings import Settings

# restic's words for a repository that is there and damaged.
DAMAGED = ("ciphertext verification failed", "is damaged", "invalid data", "not a valid", "hash does not match")


@dataclass(frozen=True)
class Staged:
    """What a job had staged, laid out in `folder`, and the manifest in it."""

    snapshot: Snapshot
    folder: Path
    manifest: dict[str, Any]


class Source:
    """The repository of one drill."""

    def __init__(self, plan: Plan, name: str, settings: Settings, ladder: Ladder, known: dict[str, Any]) -> None:
        """`plan` is that of the drill, `known` what earlier drills have noted."""
        self.plan, self.settings, self.ladder, self.known = plan, settings, ladder, known
        self.repository = Repository(plan, name)
        self._own: list[Snapshot] = []
        self.all: list[Snapshot] = []
        self.opened = self.roomy = False
        self._staged: dict[str, Staged] = {}
        self._spoilt: set[str] = set()

    def doubtful(self, error: BackupError) -> bool:
        """Whether an error of the engine may be one of the line: the repository does not open any more."""
        if not isinstance(error, RepositoryError):
            return False
        if error.status is None:
            return True
        try:
            self.open()
        except Unable:
            return True
        except BackupError:
            return False
        return False

    def open(self) -> None:
        """See whether it answers. Raises Unable where it cannot be reached, else BackupError."""
        try:
            self.repository.answer()
        except RepositoryError as error:
            damaged = any(text in str(error) for text in DAMAGED)
            if error.status in (NO_REPOSITORY, WRONG_PASSWORD) or damaged:
                raise BackupError(str(error)) from error
            raise Unable(str(error)) from error

    def reach(self) -> None:
        """Open it, and list its snapshots."""
        self.open()
        self.opened = True
        self.all = self.repository.snapshots()
        self.ladder.note(f"{self.repository.name} ({self.repository.shown}) opens, {len(self.all)} snapshots")

    def need_open(self) -> None:
        """Raises Unable where the repository does not open: what it holds is not known."""
        if not self.opened:
            raise Unable("the repository does not open")

    @property
    def snapshots(self) -> list[Snapshot]:
        """This machine's own, the oldest first. Raises Unable where none is known."""
        if not self._own:
            raise Unable("no snapshot of this machine is known")
        return self._own

    def choose(self) -> None:
        """This machine's own snapshots, none of which may be from the future."""
        self.need_open()
        now = time.time()
        self._own = choose.usable(self.all, self.plan.host, now)
        ahead = [one for one in self.all if one.time > now + FUTURE_SECONDS]
        if ahead:
            raise BackupError(
                f"{len(ahead)} snapshots claim to be from the future ({ahead[0].id[:8]}, host {ahead[0].host}): is "
                "this machine's clock right? Find out who wrote them"
            )
        self.ladder.note(f"{len(self._own)} of {self.plan.host}, the last at {choose.shown(self._own[-1].time)}")

    def latest(self, kind: str) -> Snapshot:
        """The newest snapshot of a job. Raises BackupError."""
        own = [snapshot for snapshot in self.snapshots if snapshot.kind == kind]
        if not own:
            raise BackupError(f"there is no snapshot of the job {kind}")
        return own[-1]

    def fresh(self) -> None:
        """Every store can be had as of a moment ago, and the night's copies are of last night."""
        now = time.time()
        ages = {store.name: now - self.reached(store) for store in self.plan.stores}
        night = now - self.latest("nightly").time
        window = self.settings.window_minutes * 60
        self.ladder.note(
            f"the oldest store is {max(ages.values(), default=0):.0f} s old, the night's copies {night / 3600:.1f} h",
            rpo_seconds={name: round(age, 1) for name, age in ages.items()},
        )
        late = [f"{name} is {age / 60:.0f} minutes old" for name, age in ages.items() if age > window]
        late += [f"the night's copies are {night / 3600:.0f} hours old"] * (night > self.settings.night_hours * 3600)
        if late:
            raise BackupError(
                f"{', '.join(late)}; promised are {self.settings.window_minutes} minutes and "
                f"{self.settings.night_hours} hours"
            )

    def reached(self, store: Store) -> float:
        """The newest moment as of which a store can be had. Raises Refused."""
        if store.kind == "postgres":
            return choose.recovery(self.snapshots, store.name, None).reached
        return choose.holding(self.snapshots, store.name, None).moment(store.name)

    def whole(self) -> None:
        """The repository's own check of its structure, and of one part of all its data; the part's number."""
        self.need_open()
        part = int(self.known.get("part", 0)) % self.settings.parts + 1
        # Without a lock: a check would keep everybody else out.
        self.repository.restic("check", "--no-lock", f"--read-data-subset={part}/{self.settings.parts}")
        self.known["part"] = part
        self.ladder.note(f"structure whole, part {part} of {self.settings.parts} of its data read")

    def room(self) -> None:
        """What comes back fits on this machine. Raises Unable."""
        size = 0
        for snapshot in {self.latest(kind).id: self.latest(kind) for kind in ("nightly", "ship")}.values():
            said = self.repository.restic("stats", "--no-lock", "--json", "--mode=restore-size", snapshot.id)
            size += int(json.loads(said)["total_size"])
        # Once as files, once as what is made of them.
        try:
            files.require_room(self.plan.folder, 2 * size // files.MIB, "a drill")
        except BackupError as error:
            raise Unable(str(error)) from error
        self.roomy = True
        self.ladder.note(f"{2 * size // files.MIB} MiB needed, {files.free_mib(self.plan.folder)} free")

    def fetch(self, snapshot: Snapshot, path: str, target: Path) -> None:
        """Lay a saved folder out in the empty folder `target`, every block checked. Raises BackupError."""
        if not self.roomy:
            raise Unable("it is not known to fit on this machine")
        started = time.monotonic()
        self.repository.fetch(snapshot, path, target)
        self.ladder.current.fetching += time.monotonic() - started
        self.ladder.current.size += files.measure(target)["bytes"]

    def staged(self, snapshot: Snapshot) -> Staged:
        """What a job had staged, laid out once, each file as its manifest says. Raises BackupError."""
        if snapshot.id in self._spoilt:
            raise Unable(f"snapshot {snapshot.id[:8]} ({snapshot.kind}) could not be laid out")
        if snapshot.id not in self._staged:
            self._spoilt.add(snapshot.id)
            target = files.fresh(self.plan.folder / "work" / snapshot.id[:16])
            self.fetch(snapshot, snapshot.path(snapshot.kind), target)
            found = Staged(snapshot, target, self._manifest(snapshot, target))
            self._staged[snapshot.id] = found
            self._spoilt.remove(snapshot.id)
        return self._staged[snapshot.id]

    def lay_out(self, kind: str) -> None:
        """What the newest run of a job had staged, each file as its manifest says."""
        found = self.staged(self.latest(kind))
        self.ladder.note(f"{len(found.manifest['files'])} files of {choose.shown(found.snapshot.time)}, as it says")

    def token(self, snapshot: Snapshot, store: Store) -> str:
        """The canary that a run has left in a store. Raises Unable where it has left none."""
        canary = self.staged(snapshot).manifest.get("canary", {"stores": {}})
        if store.name not in canary["stores"]:
            raise Unable(f"the run of {choose.shown(snapshot.time)} has left no canary in {store.name}: it says why")
        return str(canary["token"])

    def _manifest(self, snapshot: Snapshot, folder: Path) -> dict[str, Any]:
        """The manifest in a folder that was laid out, which has to be of this snapshot and of these files."""
        what = f"snapshot {snapshot.id[:8]} ({snapshot.kind})"
        manifest = files.read_json(folder / "manifest.json")
        if not manifest:
            raise BackupError(f"{what}: holds no manifest")
        self._bind(snapshot, manifest, what)
        found = {path: digest for path, digest in files.digests(folder).items() if path != "manifest.json"}
        wanted = manifest["files"]
        wrong = sorted(path for path in {**wanted, **found} if wanted.get(path) != found.get(path))
        if wrong:
            raise BackupError(f"{what}: {', '.join(wrong)} are not as its manifest says")
        return manifest

    def _bind(self, snapshot: Snapshot, manifest: dict[str, Any], what: str) -> None:
        """A manifest of another night, machine or job is not one of this snapshot. Raises BackupError."""
        said = {"host": manifest["host"], "kind": manifest["kind"]}
        real = {"host": snapshot.host, "kind": snapshot.kind}
        store = self.plan.postgres()
        if store and snapshot.holds(store.name):
            point = manifest["points"][store.name]
            base = manifest["base"]["id"] if snapshot.kind == "nightly" else str(manifest["wal"]["base"] or "none")
            said.update(point=f"{point:.6f}", base=base)
            real.update(point=snapshot.tag("point"), base=snapshot.tag("base"))
        earlier = [
            one.time for one in self.snapshots if one.kind == "nightly" == snapshot.kind and one.time < snapshot.time
        ]
        started = manifest["started"]
        if said != real or not max(earlier, default=0) < started <= snapshot.time + FUTURE_SECONDS:
            raise BackupError(
                f"{what}: its manifest is of another run: it says {said}, begun {choose.shown(started)}; the snapshot "
                f"is {real}, made {choose.shown(snapshot.time)}"
            )
