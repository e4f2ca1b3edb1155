"""Runs other programs."""

from __future__ import annotations

import os
import subprocess

from .errors import PiError

TAIL = 2000  # characters of a program's last words that a message repeats
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class CommandFailed(PiError):
    """A program ended with another exit code than 0, or not in time."""


def run(*command: str, text: str = "", seconds: float = 600, both: bool = False) -> str:
    """Run a command with `text` as its input; what it printed, with `both` its errors too. Raises CommandFailed."""
    try:
        done = subprocess.run(
            command,
            input=text,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT if both else subprocess.PIPE,
            text=True,
            errors="replace",
            timeout=seconds,
            check=False,
            env={
                "PATH": os.environ.get("PATH", PATH),
                "HOME": os.environ.get("HOME", "/root"),
                "LC_ALL": "C.UTF-8",
                "DEBIAN_FRONTEND": "noninteractive",
            },
        )
    except FileNotFoundError as error:
        raise CommandFailed(f"{command[0]}: is not installed; run site.yml") from error
    except OSError as error:
        raise CommandFailed(f"{command[0]}: {error.strerror}") from error
    except subprocess.TimeoutExpired as error:
        raise CommandFailed(f"{' '.join(command)}: did not end within {seconds:.0f} s") from error
    if done.returncode:
        said = ((done.stderr or "").strip() or done.stdout.strip())[-TAIL:]
        raise CommandFailed(f"{' '.join(command)}: ended with {done.returncode}: {said or 'it said nothing'}")
    return done.stdout
