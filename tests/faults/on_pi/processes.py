"""Until standard input ends: every command line and environment that any process shows; printed, each once, as JSON."""

from __future__ import annotations

import json
import os
import select
import sys

# Short, so that processes that live for a moment are met.
PAUSE_SECONDS = 0.01
# A process shows something else once its program is replaced, which mostly comes right after its start: it is read in
# its first looks, and in every so many after them. To read all of them in each look takes a whole processor.
YOUNG, SOMETIMES = 10, 50


def shown(process: str) -> set[bytes]:
    """What a process shows now; one that has just ended shows nothing."""
    texts = set()
    for part in ("cmdline", "environ"):
        try:
            with open(f"/proc/{process}/{part}", "rb") as source:
                texts.add(source.read())
        except OSError:
            continue
    return texts


def main() -> None:
    """Look again and again."""
    seen: set[bytes] = set()
    looks: dict[str, int] = {}
    while True:
        looks = {process: looks.get(process, 0) + 1 for process in os.listdir("/proc") if process.isdigit()}
        for process, number in looks.items():
            if number <= YOUNG or number % SOMETIMES == 0:
                seen |= shown(process)
        if max(looks.values()) == 1:
            print("watching", flush=True)
        if select.select([sys.stdin], [], [], PAUSE_SECONDS)[0]:
            break
    print(json.dumps([text.decode("latin-1") for text in seen]))


if __name__ == "__main__":
    main()
