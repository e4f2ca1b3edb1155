"""What every check is made of."""

from __future__ import annotations

import shlex
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any, ClassVar

import yaml
from declared import Step
from gather import Answer
from report import DRIFT, Finding


class Check(ABC):
    """One row of the report: what it reads from the plays, what it asks the Pi, and how it judges the answer.

    `actions` are the tasks of the plays that it understands.
    """

    name: ClassVar[str]
    actions: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, steps: list[Step]) -> None:
        """Take from `steps`, all tasks of the plays, what is wanted."""
        self.steps = steps

    def of(self, *actions: str) -> list[Step]:
        """The steps with one of these actions."""
        return [step for step in self.steps if step.action in actions]

    def value(self, name: str) -> Any:
        """A variable as the last task that knows it sees it. Raises KeyError when none does."""
        return next(step for step in reversed(self.steps) if name in step.templar.available_variables).value(name)

    @abstractmethod
    def question(self) -> str:
        """Shell that prints what is to be judged and fails where it cannot; nothing to ask: an empty text."""

    @abstractmethod
    def judge(self, answer: Answer) -> Iterable[Finding]:
        """What is not as it should be. `answer` is that of a question that did not fail."""

    @abstractmethod
    def summary(self, answer: Answer) -> str:
        """What to say when all is well."""


def drift(text: str, remedy: str = "") -> Finding:
    """Something that the next converge would change."""
    return Finding(DRIFT, text, remedy)


def words(values: Iterable[object]) -> str:
    """Values as words of a shell command."""
    return shlex.join(str(value) for value in values)


def complete(documentation: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """A module's arguments with the defaults from its DOCUMENTATION, in lists of dictionaries too."""
    return _complete(yaml.safe_load(documentation)["options"], arguments)


def _complete(options: dict[str, Any], arguments: dict[str, Any]) -> dict[str, Any]:
    defaults = {name: option["default"] for name, option in options.items() if "default" in option}
    nested = {
        name: [_complete(options[name]["suboptions"], entry) for entry in value]
        for name, value in arguments.items()
        if "suboptions" in options.get(name, {})
    }
    return {**defaults, **arguments, **nested}
