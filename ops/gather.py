"""One shell script that asks everything, and the answers it prints. Pure.

The script needs a POSIX shell, coreutils, findutils, awk and the docker client. It writes nothing, not even below /tmp.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from typing import NamedTuple

QUESTION_SECONDS = 20

# What a question prints stands between two lines that nobody else can know; its last complaint follows its exit code.
# The docker client writes into its own folder whatever it is asked, so it is given none.
_ASK = r"""
export LC_ALL=C DOCKER_CONFIG=/nonexistent
ask() {
  printf '%s begin %s\n' "$mark" "$1"
  complaint=$( { timeout "$seconds" sh -c "$2" </dev/null; } 2>&1 >&3 )
  printf '\n%s end %s %d %s\n' "$mark" "$1" "$?" "$(printf '%s' "$complaint" | tail -n 1)"
}
exec 3>&1
"""


class Answer(NamedTuple):
    """What a question printed, its exit code, and the last line of what it complained about."""

    status: int
    output: str
    complaint: str = ""


def script(questions: Mapping[str, str], mark: str) -> str:
    """The script that asks `questions`, shell by name. `mark` is a word that no answer contains."""
    head = f"mark={shlex.quote(mark)}\nseconds={QUESTION_SECONDS}\n"
    return head + _ASK + "".join(f"ask {name} {shlex.quote(text)}\n" for name, text in questions.items())


def answers(lines: Iterable[str], mark: str) -> dict[str, Answer]:
    """Answers by name from the lines that the script printed; one that was cut short is not among them."""
    found: dict[str, Answer] = {}
    body: list[str] = []
    for line in lines:
        if line.startswith(f"{mark} begin "):
            body = []
        elif line.startswith(f"{mark} end "):
            name, status, *complaint = line.split(" ", 4)[2:]
            found[name] = Answer(int(status), "\n".join(body).strip("\n"), " ".join(complaint))
        else:
            body.append(line)
    return found
