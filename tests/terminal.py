"""A person at a terminal: programs that ask for a passphrase take it from nowhere else."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import time


def typed(command: list[str], answer: str, asks: str, seconds: float) -> tuple[int, str]:
    """Exit status of a command, and what it showed; `answer` is typed once it has shown `asks`."""
    own, its = pty.openpty()
    process = subprocess.Popen(command, stdin=its, stdout=its, stderr=its, start_new_session=True)
    os.close(its)
    shown, asked, deadline = b"", False, time.monotonic() + seconds
    try:
        while time.monotonic() < deadline:
            if not select.select([own], [], [], 1)[0]:
                continue
            try:
                part = os.read(own, 4096)
            except OSError:
                # So Linux says that nobody holds the other end any more.
                break
            shown += part
            if not asked and asks.encode() in shown:
                asked = True
                os.write(own, answer.encode() + b"\n")
        status = process.wait(timeout=max(1, deadline - time.monotonic()))
    finally:
        process.kill()
        process.wait()
        os.close(own)
    assert asked, f"it never asked: {shown.decode(errors='replace')[-2000:]}"
    return status, shown.decode(errors="replace")
