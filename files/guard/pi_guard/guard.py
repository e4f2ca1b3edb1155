"""Armed, disarmed, restored: the state of the guard, kept on the disk."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import subprocess
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from . import connection, force, saved
from .errors import Refused

FOLDER = Path("/var/lib/pi-commerce/guard")
UNIT = "pi-commerce-guard.service"
TIMER = "pi-commerce-guard.timer"
# Bytes that are kept free for putting back, for the disk may be full by then.
ROOM = 1 << 20


class Guard:
    """The guard whose state lies in a folder."""

    def __init__(self, folder: Path = FOLDER) -> None:
        """Nothing is read yet."""
        self.folder = folder
        self.mark, self.report_file = folder / "armed.json", folder / "report.json"
        self.spared_file = folder / "spared.json"

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """One at a time: the timer may come while somebody disarms."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Not to be written: the disk may not be writable any more.
        with open(os.open(self.folder / "lock", os.O_RDONLY | os.O_CREAT, 0o600)) as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def armed(self) -> dict[str, Any]:
        """What is guarded, empty where nothing is."""
        found: dict[str, Any] = _read(self.mark, {})
        return found

    def report(self) -> dict[str, Any]:
        """What the last restoring did, empty where there was none since the guard was armed."""
        found: dict[str, Any] = _read(self.report_file, {})
        return found

    def arm(self, paths: Sequence[str], seconds: int) -> None:
        """Keep copies of the paths and have them put back in so many seconds. Raises Refused.

        The copy of a path is what was proven last: a file that somebody has changed since, and that nothing has read
        yet, may be what locks everybody out. Where it is armed already, its copies stay.
        """
        for path in paths:
            if not os.path.isabs(path) or len(Path(path).parts) < 3:
                raise Refused(f"{path!r}: must be absolute and lie at least two folders deep")
        with self.alone():
            state = self.armed()
            fresh = not state
            if fresh:
                shutil.rmtree(self.folder / "saved", ignore_errors=True)
                self.report_file.unlink(missing_ok=True)
                ran = {unit: force.active(unit) for unit in (force.WIREGUARD_UNIT, force.SSH_SOCKET)}
                state = {"paths": [], "ran": ran}
                self._keep("saved/room", bytes(ROOM))
            for path in dict.fromkeys(paths):
                if path not in state["paths"]:
                    proven = self.folder / "proven" / saved.file_name(path)
                    good = proven.read_bytes() if proven.exists() else saved.pack(Path(path))
                    self._keep(f"saved/{saved.file_name(path)}", good)
                    state["paths"].append(path)
            spared = [*_read(self.spared_file, []), *force.spare(connection.client())]
            self._keep(self.spared_file.name, json.dumps(spared).encode())
            state.update(at=connection.now(), seconds=seconds)
            self._keep("armed.json", json.dumps(state).encode())
            try:
                start_timer(seconds)
            except subprocess.CalledProcessError as problem:
                if fresh:
                    self.mark.unlink()
                raise Refused(f"systemd does not take the timer, nothing may be changed: {problem.stdout}") from problem

    def disarm(self) -> None:
        """Leave things as they are now. Raises Refused where this connection does not prove them."""
        with self.alone():
            state = self.armed()
            if not state:
                raise Refused("the guard is not armed: it was disarmed, or has put the old settings back (see status)")
            connection.prove_newer(state["at"])
            for path in state["paths"]:
                # A key that is taken away stays away.
                if Path(path).name != ".ssh":
                    self._keep(f"proven/{saved.file_name(path)}", saved.pack(Path(path)))
            self._forget()
            force.spare_no_more(_read(self.spared_file, []))
            self.spared_file.unlink(missing_ok=True)

    def restore(self, why: str = "", *, booting: bool = False) -> dict[str, Any]:
        """Put everything back; the report of it, empty where nothing was armed.

        While the machine starts (`booting`), nothing runs yet that would have to read its settings again.
        Raises Refused where something could not be put back; all the rest was, and the guard stays armed.
        """
        with self.alone():
            state = self.armed()
            if not state:
                return {}
            with contextlib.suppress(OSError):
                (self.folder / "saved/room").unlink()
            changed, missing = [], {}
            for path in state["paths"]:
                try:
                    if self._put_back(path):
                        changed.append(path)
                except (OSError, tarfile.TarError) as problem:
                    missing[path] = str(problem)
            steps = [] if booting else force.put_in_force(state["paths"], state["ran"], missing)
            reason = why or (
                "the machine started again before a new connection had come"
                if booting
                else f"no new connection came within {state['seconds']} s"
            )
            report = {"why": reason, "put_back": changed, "not_put_back": missing, "steps": steps}
            # A report that finds no room is no reason to leave things half done.
            with contextlib.suppress(OSError):
                self._keep("report.json", json.dumps(report, indent=2).encode())
            if missing:
                raise Refused(f"not everything could be put back, it is tried again: {json.dumps(report)}")
            self._forget()
        return report

    def _put_back(self, path: str) -> bool:
        """Whether the path had become something else; that stays beside, for whoever wants to know what it was."""
        good, found = (self.folder / "saved" / saved.file_name(path)).read_bytes(), saved.pack(Path(path))
        if found == good:
            return False
        saved.put_back(Path(path), good)
        # It may find no room.
        with contextlib.suppress(OSError):
            self._keep(f"replaced/{saved.file_name(path)}", found)
        return True

    def _forget(self) -> None:
        """First the mark: a timer without one does nothing, one without a timer would count at the next start."""
        self.mark.unlink()
        stop_timer()
        shutil.rmtree(self.folder / "saved", ignore_errors=True)

    def _keep(self, name: str, content: bytes) -> None:
        """Write a file in one step, for root alone, and have it on the disk."""
        path = self.folder / name
        path.parent.mkdir(mode=0o700, exist_ok=True)
        beside = path.with_suffix(".new")
        try:
            with open(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as target:
                target.write(content)
                target.flush()
                os.fsync(target.fileno())
            os.rename(beside, path)
        except OSError:
            beside.unlink(missing_ok=True)
            raise


def _read(path: Path, otherwise: Any) -> Any:
    """What a file of this program holds; `otherwise` where it is not there."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else otherwise


def start_timer(seconds: int) -> None:
    """Have systemd start the unit that puts everything back. Raises subprocess.CalledProcessError."""
    stop_timer()
    subprocess.run(
        (
            "systemd-run",
            f"--on-active={seconds}",
            "--timer-property=AccuracySec=1s",
            f"--unit={UNIT}",
        ),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=force.SECONDS,
        check=True,
    )


def stop_timer() -> None:
    """Take the timer away, if there is one."""
    subprocess.run(("systemctl", "stop", TIMER), stderr=subprocess.DEVNULL, timeout=force.SECONDS, check=False)
