"""Runs on the Pi: waits for one moment of a run, holds the work there, and kills what it is told to kill.

Standard input holds one JSON object: `kill` (hold, run, session, line, engine), `seconds`, and one of
  process  regular expression: a process with such a command line is held as soon as it is seen, where `path` is given
           once that glob matches something, too;
  step     [audit event, regular expression, n]: a Python module is held at its n-th such event;
  shell    command: nothing is held, the moment is when the command succeeds.
Prints `armed`, then `reached`. With `hold` the work goes on when another line comes in; with `run` the sessions
stand still until then, and are killed: nobody is left who would try again. A line that comes before the moment ends
the watch.
"""

from __future__ import annotations

import json
import os
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

POLL_SECONDS = 0.002
HOOK = """
import os, re, signal, sys
def _hook(name, arguments, left=[{count}]):
    if name == {event!r} and re.search({pattern!r}, repr(arguments)):
        left[0] -= 1
        if not left[0]:
            os.kill(os.getpid(), signal.SIGSTOP)
sys.addaudithook(_hook)
"""
# The server's side of a connection: sshd of Debian 12 and of Debian 13.
SESSION = re.compile(r"^sshd(-session)?: pi\b")
ENGINE = re.compile(r"^/usr/s?bin/dockerd\b")


def processes() -> dict[int, str]:
    """Command lines by process id, without this process."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                found[int(entry.name)] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
    return found


def status(pid: int) -> tuple[str, int]:
    """State letter and parent of a process."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return "X", 0
    return fields[0], int(fields[1])


def matching(pattern: re.Pattern[str]) -> list[int]:
    """Processes with such a command line."""
    return [pid for pid, command in processes().items() if pattern.search(command)]


def tree(roots: list[int]) -> list[int]:
    """These processes and all below them."""
    parents = {pid: status(pid)[1] for pid in processes()}
    found = list(roots)
    for pid in found:
        found += [child for child, above in parents.items() if above == pid and child not in found]
    return found


def send(pids: list[int], number: signal.Signals) -> None:
    """Signal those that still live."""
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue


def plant(spec: dict) -> list[Path]:
    """Put the ambush in place; the files to take away again."""
    if spec.get("step"):
        event, pattern, count = spec["step"]
        hook = Path("/run/ambush.py")
        hook.write_text(HOOK.format(event=event, pattern=pattern, count=count))
        [packages] = Path("/usr/local/lib").glob("python3*/dist-packages")
        loader = packages / "ambush.pth"
        loader.write_text(f"import os; os.path.exists('{hook}') and exec(open('{hook}').read(), {{}})\n")
        return [loader, hook]
    return []


def moment(spec: dict) -> list[int] | None:
    """The processes that are held at the moment; None when it has not come."""
    if spec.get("shell"):
        done = subprocess.run(["/bin/sh", "-c", spec["shell"]], capture_output=True, check=False)
        return [] if done.returncode == 0 else None
    if spec.get("process"):
        ripe = not spec.get("path") or any(Path("/").glob(spec["path"].lstrip("/")))
        found = matching(re.compile(spec["process"])) if ripe else []
        send(found, signal.SIGSTOP)
        return found or None
    return [pid for pid in processes() if status(pid)[0] == "T"] or None


def victims(kind: str) -> list[int]:
    """What this machine kills by itself. None may act on the end of another: they stand still."""
    if kind == "engine":
        found = matching(ENGINE)
    elif kind == "line":
        found = matching(SESSION)
    elif kind in ("session", "run"):
        found = tree(matching(SESSION))
    else:
        found = []
    send(found, signal.SIGSTOP)
    return found


def main() -> int:
    """Exit code 1: the moment did not come."""
    spec = json.loads(sys.stdin.readline())
    planted = plant(spec)
    held: list[int] | None = None
    try:
        print("armed", flush=True)
        deadline = time.monotonic() + spec["seconds"]
        while (held := moment(spec)) is None:
            called_off = select.select([sys.stdin], [], [], POLL_SECONDS)[0]
            if called_off or time.monotonic() > deadline:
                return 1
        for path in planted:
            path.unlink()
        planted = []
        doomed = victims(spec["kill"])
        if spec["kill"] not in ("hold", "run"):
            send(doomed, signal.SIGKILL)
        print("reached", flush=True)
        if spec["kill"] in ("hold", "run"):
            sys.stdin.readline()
            send(doomed, signal.SIGKILL)
    finally:
        for path in planted:
            path.unlink()
        send(held or [], signal.SIGCONT)
    return 0


if __name__ == "__main__":
    sys.exit(main())
