"""Where a secret could come to light, and the searches for it, on the Pi and on the controller."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import machine

ON_PI = Path(__file__).parent / "on_pi"
WATCH_SECONDS = 1800

# What to search, as shell. `cat /dev/null` gives each search a file, so that finding none is no failure.
PI_PLACES = {
    # With the command lines that it notes for each message.
    "journal": "journalctl --no-pager --output export",
    "logs": "find /var/log -xdev -type f ! -path '*/journal/*' -exec cat /dev/null {} +",
    "containers": "docker ps --all --quiet | xargs --no-run-if-empty docker inspect",
    "images": "docker images --all --quiet | sort -u"
    " | xargs --no-run-if-empty -I{} sh -c 'docker history --no-trunc {}; docker inspect {}'",
    "container logs": "for name in $(docker ps --all --format '{{.Names}}'); do docker logs $name 2>&1; done",
    "configuration": "find /etc /usr/local -xdev -type f ! -path '/etc/pi-commerce/secrets/*' -exec cat /dev/null {} +",
    "left behind": "find /home /root /tmp /var/tmp -xdev -type f -exec cat /dev/null {} +",
    # A file with a process's number is gone with the process, perhaps before it is read.
    "engine": "find /var/lib/docker/containers /run/docker /run/containerd -type f ! -path '*/netns/*' ! -name '*.pid'"
    " -exec cat /dev/null {} +",
}


def controller_places(repository: Path, temporary: Path) -> dict[str, str]:
    """What to search here: all that was ever committed, and what runs left in their folder for temporary files."""
    return {
        "git history": f"git -C {repository} log --patch --all --no-ext-diff --text",
        "left behind": f"find {temporary} -type f -exec cat /dev/null {{}} +",
    }


def forms(value: str) -> list[str]:
    """A secret as it is, as part of a URL, and base64-encoded at any place of a longer text."""
    encoded = [base64.b64encode(b" " * shift + value.encode()).decode()[4 if shift else 0 : -4] for shift in range(3)]
    return sorted({value, quote(value, safe=""), *encoded})


def in_text(secrets: dict[str, str], text: str) -> set[str]:
    """Names of the secrets that stand in a text."""
    return {name for name, value in secrets.items() if any(form in text for form in forms(value))}


def in_places(secrets: dict[str, str], places: dict[str, str], here: bool = False) -> set[tuple[str, str]]:
    """(place, name) of the secrets that are found on the Pi, or `here` on the controller."""
    asked = json.dumps({"texts": {name: forms(value) for name, value in secrets.items()}, "places": places})
    script = (ON_PI / "places.py").read_text()
    if here:
        done = machine.run(sys.executable, str(ON_PI / "places.py"), stdin=asked, apart=True)
        assert done.status == 0, done.errors
        answer = done.output
    else:
        answer = machine.pi(f"python3 <(cat <<'SCRIPT'\n{script}\nSCRIPT\n) <<'ASKED'\n{asked}\nASKED\n")
    return {(place, name) for place, name in json.loads(answer)}


class Watched:
    """What processes showed while they were watched, by machine."""

    def __init__(self) -> None:
        self.texts: dict[str, str] = {}


@contextmanager
def watched() -> Iterator[Watched]:
    """Watch the processes of the Pi and of the controller while the block runs; the texts are there afterwards."""
    script = (ON_PI / "processes.py").read_text()
    machine.pi(f"cat > /run/watch-processes.py <<'SCRIPT'\n{script}\nSCRIPT")
    limit = ("timeout", str(WATCH_SECONDS), "python3")
    commands = {
        "Pi": machine.ssh(f"sudo {' '.join(limit)} /run/watch-processes.py"),
        "controller": (*limit, str(ON_PI / "processes.py")),
    }
    result = Watched()
    running = {
        place: subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for place, command in commands.items()
    }
    try:
        for process in running.values():
            assert process.stdout is not None
            assert process.stdout.readline() == "watching\n"
        yield result
    finally:
        for place, process in running.items():
            # Ends its input, and with it the watching.
            printed = process.communicate(timeout=60)[0]
            result.texts[place] = "\n".join(json.loads(printed))
        machine.pi("rm /run/watch-processes.py")
