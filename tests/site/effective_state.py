"""The table of what has to be true of a machine (state.yml): read here, asked there in one go, judged here."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import machine
import yaml

TABLE = Path(__file__).parent / "state.yml"
HOST_WAIVERS: dict[str, str] = yaml.safe_load((Path(__file__).parent / "waivers.yml").read_text())["host"]
# Around each answer, so that none is taken for a part of another.
BEGIN, END = "@@row", "@@end"


class Row(NamedTuple):
    """One line of the table: `expected` is a text or a /pattern/; `vm` is why a container cannot show it."""

    what: str
    name: str
    ask: str
    expected: str
    source: str
    waives: str
    vm: str

    @property
    def title(self) -> str:
        """How the test of it is called."""
        return f"{self.what}: {self.name}"

    def met(self, found: str) -> bool:
        """Whether this is what it should have printed."""
        if len(self.expected) > 1 and self.expected[0] == self.expected[-1] == "/" and "/" not in self.expected[1:-1]:
            return re.fullmatch(self.expected[1:-1], found) is not None
        return found == self.expected


def read(groups: list[Mapping[str, Any]]) -> list[Row]:
    """The rows of all groups."""
    rows = []
    for group in groups:
        for entry in group["rows"]:
            name, *given = [entry] if isinstance(entry, str) else entry
            expected = group["is"] if "is" in group else given.pop(0)
            source = group["source"] if "source" in group else given.pop(0)
            waives = given.pop(0) if given else ""
            ask = group["ask"].replace("NAME", name)
            rows.append(Row(group["what"], name, ask, expected, source, waives, group.get("vm", "")))
    return rows


ROWS = read(yaml.safe_load(TABLE.read_text()))


def script(rows: list[Row]) -> str:
    """Asks all of them; one that hangs or has a slip of the pen in it spoils no other."""
    packed = ((number, base64.b64encode(row.ask.encode()).decode()) for number, row in enumerate(rows))
    run = 'timeout 300 bash -c "$(echo {ask} | base64 -d)" </dev/null 2>&1; echo'
    return "".join(f'echo "{BEGIN} {number}"; {run.format(ask=ask)}; echo "{END}"\n' for number, ask in packed)


def answers(rows: list[Row], printed: str) -> list[str]:
    """What each has printed, in the rows' order."""
    found = {
        int(number): text.strip()
        for number, text in re.findall(rf"^{BEGIN} (\d+)\n(.*?)^{END}$", printed, flags=re.MULTILINE | re.DOTALL)
    }
    return [found.get(number, "no answer") for number in range(len(rows))]


def on_the_pi(rows: list[Row]) -> dict[str, str]:
    """What the Pi answers now, by title."""
    return dict(zip((row.title for row in rows), answers(rows, machine.pi(script(rows))), strict=True))
