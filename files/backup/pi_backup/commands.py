"""Runs other programs."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from typing import IO, Any

from .errors import BackupError

TAIL = 2000  # characters of a program's last words that a message repeats
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)


def _end_with_parent() -> None:
    """Have the kernel end this process when the one that started it is killed, so that nobody writes on behind it."""
    _LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class CommandFailed(BackupError):
    """A program ended with another exit code than 0 (`status`), or not in time (`status` None)."""

    def __init__(self, name: str, status: int | None, words: str) -> None:
        """`words` is what it said."""
        ended = "did not end in time" if status is None else f"ended with {status}"
        super().__init__(f"{name} {ended}: {words.strip()[-TAIL:] or 'it said nothing'}")
        self.name = name
        self.status = status
        self.words = words


def run(
    command: Sequence[str],
    *,
    name: str = "",
    text: str | None = None,
    source: IO[bytes] | None = None,
    target: IO[bytes] | None = None,
    environment: Mapping[str, str] | None = None,
    seconds: float = 3600,
    both: bool = False,
    kept: Sequence[int] = (),
) -> str:
    """Run a command; return what it printed, which is empty where it went to the file `target`.

    With `both` that includes its standard error. `text` or the file `source` is its input; `environment` is added to
    a bare one; `kept` are open files that it inherits. Raises CommandFailed.
    """
    fed: dict[str, Any] = {"input": text.encode()} if text is not None else {"stdin": source or subprocess.DEVNULL}
    try:
        done = subprocess.run(
            command,
            stdout=target or subprocess.PIPE,
            stderr=subprocess.STDOUT if both else subprocess.PIPE,
            env={"PATH": os.environ.get("PATH", PATH), "LC_ALL": "C.UTF-8", **(environment or {})},
            timeout=seconds,
            check=False,
            pass_fds=kept,
            preexec_fn=_end_with_parent,
            **fed,
        )
    except FileNotFoundError as error:
        raise BackupError(f"{command[0]}: is not installed; run site.yml") from error
    except subprocess.TimeoutExpired as error:
        said = (error.stderr or b"").decode(errors="replace")
        raise CommandFailed(name or command[0], None, said or f"{seconds:.0f} s") from error
    printed = (done.stdout or b"").decode(errors="replace")
    if done.returncode:
        raise CommandFailed(
            name or command[0], done.returncode, (done.stderr or b"").decode(errors="replace") or printed
        )
    return printed
