"""The way in: the firewall's rules that are in force, and who is banned."""

from __future__ import annotations

from collections.abc import Iterator

import network_state
from declared import Step
from gather import Answer
from report import Finding

from checks.base import Check, drift
from checks.files import written


class Firewall(Check):
    """The rules in the kernel, against those in UFW's files that the roles write."""

    name = "firewall"

    def __init__(self, steps: list[Step]) -> None:
        """Take the rules from the files' contents."""
        super().__init__(steps)
        files = dict(written(self.of("file_tree")))
        names = {
            family: [f"/etc/ufw/{name}{six}.rules" for name in network_state.CHAINS]
            for family, six in network_state.FAMILIES.items()
        }
        whole = all(name in files for wanted in names.values() for name in wanted)
        self.wanted = {family: "".join(files[name] for name in names[family]) for family in names} if whole else {}

    def question(self) -> str:
        """The rules of both families."""
        if not self.wanted:
            return ""
        return "set -eu\n" + "".join(
            f"{command} >/dev/null\n{command} | sed 's/^/{family}|/'\n"
            for family in self.wanted
            for command in map(" ".join, network_state.asked(family))
        )

    def judge(self, answer: Answer) -> Iterator[Finding]:
        """Policies and chains that are not as written."""
        lines = [line.split("|", 1) for line in answer.output.splitlines() if "|" in line]
        found = {family: "\n".join(text for name, text in lines if name == family) for family in self.wanted}
        for problem in network_state.firewall_problems(found, self.wanted):
            yield drift(problem, "ufw reload, on the Pi")

    def summary(self, answer: Answer) -> str:
        """How many rules are in force."""
        rules = sum("|-A " in line for line in answer.output.splitlines())
        return f"{rules} rules in force" if self.wanted else "none declared"
