"""Kills the notify program before each single step, and says what its target got: runs inside the machine under test.

`notify_killed.py send` kills whoever raises a message, `notify_killed.py flush` whoever delivers it. For each step a
line of JSON: what the killed one was about to do, how it ended, and how often the message arrived in the end.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from pi_notify import __main__ as program
from pi_notify import delivery, settings
from pi_notify.locks import locked
from pi_notify.outbox import Outbox, new

STEPS = {"os.rename", "os.remove", "os.mkdir", "fcntl.flock", "socket.connect", "subprocess.Popen", "syslog.syslog"}
RECEIVED = Path("/srv/remote/received")
KNOWN = settings.load()
END = 200


def killed(step: int, words: list[str], body: str, told: Path) -> int:
    """Exit status of the program in a process of its own that is killed before its n-th step, which it writes down."""
    child = os.fork()
    if child == 0:
        left = [step]

        def hook(name: str, arguments: tuple[Any, ...]) -> None:
            writes = name == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
            if left[0] and (name in STEPS or writes):
                left[0] -= 1
                if not left[0]:
                    told.write_text(f"{name} {arguments[0] if arguments else ''}")
                    os.kill(os.getpid(), signal.SIGKILL)

        source, target = os.pipe()
        os.write(target, body.encode())
        os.close(target)
        os.dup2(source, 0)
        sys.addaudithook(hook)
        os._exit(program.main(words))
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def flush() -> None:
    """Deliver all there is, whatever anybody waits for; an orphan of the killed one may be at it."""
    with locked(KNOWN.folder, "flush", 60):
        delivery.Flush(KNOWN).run()


def main() -> None:
    """Each step once, until there is none left."""
    for step in range(1, END):
        title, told = f"{sys.argv[1]}-{step}", Path("/run/told")
        told.write_text("")
        if sys.argv[1] == "flush":
            Outbox(KNOWN).add(new("info", title, "body", "", KNOWN.targets))
            status = killed(step, ["--flush"], "", told)
        else:
            status = killed(step, [title], "body", told)
        flush()
        lines = RECEIVED.read_text().splitlines() if RECEIVED.exists() else []
        times = sum(f"{title}\\" in line for line in lines)
        print(json.dumps({"step": told.read_text(), "status": status, "times": times, "at": time.time()}))
        if not told.read_text():
            return


if __name__ == "__main__":
    main()
