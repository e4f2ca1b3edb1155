"""Run commands inside running containers and find their addresses, through the docker client of the host."""

from __future__ import annotations

import json
import subprocess
from typing import NamedTuple

# What the docker client answers when there is nothing to talk to, unlike a command that failed inside.
_AWAY = (
    "no such container",
    "no such object",
    "is not running",
    "is restarting",
    "cannot connect to the docker daemon",
)


class ContainerAway(Exception):
    """The container (or the engine) cannot be asked: it does not exist or does not run."""


class CommandFailed(Exception):
    """The command ran and failed: its error output, and in `stdout` what it had printed before."""

    def __init__(self, message: str, stdout: str = "") -> None:
        """Keep both outputs."""
        super().__init__(message)
        self.stdout = stdout


class Finished(NamedTuple):
    """Output of a command that succeeded."""

    stdout: str
    stderr: str


def _docker(arguments: list[str], container: str, stdin: str, timeout: float) -> Finished:
    try:
        done = subprocess.run(
            ["docker", *arguments],
            input=stdin.encode(),
            capture_output=True,
            timeout=timeout,
            check=False,
        )
    except FileNotFoundError as missing:
        raise ContainerAway("the docker client is not installed on this host") from missing
    except subprocess.TimeoutExpired as late:
        raise CommandFailed(f"container '{container}': no answer within {timeout:.0f} s") from late
    stdout = done.stdout.decode(errors="replace")
    stderr = done.stderr.decode(errors="replace").strip()
    if done.returncode == 0:
        return Finished(stdout, stderr)
    if any(text in stderr.lower() for text in _AWAY):
        raise ContainerAway(f"container '{container}' cannot be reached: {stderr}; start the stack first")
    raise CommandFailed(stderr or stdout.strip() or f"exit code {done.returncode}", stdout)


def run_in_container(container: str, argv: list[str], stdin: str = "", timeout: float = 120) -> Finished:
    """Run `argv` in `container` with `stdin` as its input and return its output.

    Raises ContainerAway when the container does not run, CommandFailed when the command fails.
    """
    return _docker(["exec", "-i", container, *argv], container, stdin, timeout)


def container_address(container: str) -> str:
    """Return an IPv4 address of `container` that this host can reach.

    Raises ContainerAway when it does not run or is in no network of its own.
    """
    template = "{{json .NetworkSettings.Networks}}"
    answer = _docker(["container", "inspect", "--format", template, container], container, "", 30)
    addresses = [network["IPAddress"] for network in json.loads(answer.stdout).values() if network["IPAddress"]]
    if not addresses:
        raise ContainerAway(f"container '{container}' is not running or has no network address; start the stack first")
    return str(addresses[0])
