"""pyinfra's way to ask a machine: one fact that holds the answers to any number of questions."""

from __future__ import annotations

import gather
from pyinfra.api.facts import FactBase


class Answers(FactBase[dict[str, gather.Answer]]):
    """Answers by name, read as root by one shell script. Empty where the script could not be run."""

    shell_executable = "sh"

    @staticmethod
    def default() -> dict[str, gather.Answer]:
        """No answers."""
        return {}

    def command(self, questions: dict[str, str], mark: str) -> str:
        """The script; see gather.script."""
        self.mark = mark
        return gather.script(questions, mark)

    def process(self, output: list[str]) -> dict[str, gather.Answer]:
        """Answers from the lines that it printed."""
        return gather.answers(output, self.mark)
