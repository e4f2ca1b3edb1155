"""What lies in PostgreSQL, judged by the plans of the modules that put it there."""

from __future__ import annotations

import json
import shlex
from abc import abstractmethod
from collections.abc import Iterable, Iterator
from typing import Any, ClassVar

import n8n_workflows
import postgres_databases
import postgres_migrations
from ansible.module_utils.n8n_plan import VERBS, WorkflowError, read_workflows
from ansible.module_utils.psql import SqlError, psql_command
from declared import Step
from gather import Answer
from report import Finding

from checks.base import Check, complete, drift

_END, _NEXT = "END_OF_SQL", "next-answer"


def sql(container: str, script: str, superuser: str, database: str = "postgres") -> str:
    """Shell that runs a psql script which cannot write."""
    command = shlex.join(psql_command(superuser, database))
    options = "PGOPTIONS='-c default_transaction_read_only=on'"
    return (
        f"docker exec --interactive --env {options} {shlex.quote(container)} {command} <<'{_END}'\n{script}\n{_END}\n"
    )


class Planned(Check):
    """A check that asks what a module would ask and judges as it would."""

    documentation: ClassVar[str]

    def __init__(self, steps: list[Step]) -> None:
        """Complete the module's arguments in every step."""
        super().__init__(steps)
        self.wanted = [complete(self.documentation, step.arguments) for step in self.of(*self.actions)]

    def question(self) -> str:
        """The module's own script for every step, the answers apart from each other."""
        return (
            f"echo {_NEXT}\n".join(["set -eu\n", *(self.ask(wanted) for wanted in self.wanted)]) if self.wanted else ""
        )

    def judge(self, answer: Answer) -> Iterator[Finding]:
        """What the module would do."""
        outputs = answer.output.split(f"{_NEXT}\n")[1:]
        for wanted, output in zip(self.wanted, outputs, strict=True):
            try:
                yield from map(drift, self.plan(wanted, output))
            except (SqlError, WorkflowError) as refused:
                yield drift(str(refused), "do what it says; a converge would refuse this")

    @abstractmethod
    def ask(self, wanted: dict[str, Any]) -> str:
        """Shell that asks for what one step is about."""

    @abstractmethod
    def plan(self, wanted: dict[str, Any], output: str) -> Iterable[str]:
        """What the module would do about one step, in words."""


class Databases(Planned):
    """Databases, their roles, and who else may enter."""

    name = "databases"
    actions = frozenset({"postgres_databases"})
    documentation = postgres_databases.DOCUMENTATION

    def ask(self, wanted: dict[str, Any]) -> str:
        """Roles, databases and rights."""
        return sql(wanted["container"], postgres_databases.state_script(wanted["databases"]), wanted["superuser"])

    def plan(self, wanted: dict[str, Any], output: str) -> Iterable[str]:
        """Roles and rights that would be set right."""
        state = postgres_databases.parse_state(output)
        return [f"to do: {change.text}" for change in postgres_databases.plan(wanted["databases"], state)]

    def summary(self, answer: Answer) -> str:
        """Their names."""
        names = [entry["name"] for wanted in self.wanted for entry in wanted["databases"]]
        return f"{', '.join(names) or 'none'}, each open to its own role only"


class Schema(Planned):
    """SQL files that were applied."""

    name = "schema"
    actions = frozenset({"postgres_migrations"})
    documentation = postgres_migrations.DOCUMENTATION

    def ask(self, wanted: dict[str, Any]) -> str:
        """What the database has seen."""
        return sql(wanted["container"], postgres_migrations.applied_script(wanted["database"]), wanted["superuser"])

    def plan(self, wanted: dict[str, Any], output: str) -> Iterable[str]:
        """Files that are missing. Raises SqlError where one was edited afterwards."""
        files = postgres_migrations.read_migrations(wanted["migrations"])
        missing = postgres_migrations.pending(files, json.loads(output) or {})
        return [f"{wanted['database']}: {file.name} is not applied" for file in missing]

    def summary(self, answer: Answer) -> str:
        """How many."""
        return ", ".join(f"{wanted['database']}: {len(wanted['migrations'])} applied" for wanted in self.wanted)


class Workflows(Planned):
    """Workflows and credentials in n8n."""

    name = "workflows"
    actions = frozenset({"n8n_workflows"})
    documentation = n8n_workflows.DOCUMENTATION

    def ask(self, wanted: dict[str, Any]) -> str:
        """What n8n has and what was imported."""
        script = n8n_workflows.state_script(read_workflows(wanted["workflows"]))
        return sql(wanted["database_container"], script, wanted["superuser"], wanted["database"])

    def plan(self, wanted: dict[str, Any], output: str) -> Iterable[str]:
        """Steps that would be taken. Raises WorkflowError where a workflow could not work."""
        converge = n8n_workflows.Converge(wanted)
        converge.plan(n8n_workflows.parse_state(output))
        files = {workflow.id: f"{workflow.file}: " for workflow in converge.workflows}
        return [f"{files.get(step.id, '')}{step.title}: {VERBS[step.verb][0]}" for step in converge.steps]

    def summary(self, answer: Answer) -> str:
        """How many."""
        return f"{sum(len(wanted['workflows']) for wanted in self.wanted)} published, as in their files"
