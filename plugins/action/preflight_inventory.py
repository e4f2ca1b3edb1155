"""Action plugin: refuses a controller or an inventory that cannot work, before anything is asked of the Pi.

Options:
    roles (str): the folder of the roles; what they document is what is judged.
    known (list of str): names with a role's prefix that are no option, because roles set them as facts.

Reads the variables of the host and of the role `catalog`. Fails with one table of everything that is refused.
"""

from __future__ import annotations

import datetime
import sys
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail, AnsibleError
from ansible.plugins.action import ActionBase
from ansible.release import __version__ as ansible_version

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "module_utils"))

import catalog
import preflight
import variables
from preflight import Finding


class ActionModule(ActionBase):
    """Runs on the controller, without a connection."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Judge, and fail with the table if anything is refused."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        arguments = self.validate_argument_spec(
            argument_spec={
                "roles": {"type": "path", "required": True},
                "known": {"type": "list", "elements": "str", "default": []},
            }
        )[1]
        controller = preflight.judge_controller(ansible_version)
        findings = [controller]
        # An Ansible that is too old would only be refused for other reasons as well.
        if controller.level == "pass":
            findings += self._judge(task_vars or {}, variables.role_specs(Path(arguments["roles"])), arguments["known"])
        if any(finding.level == "refuse" for finding in findings):
            table = preflight.render(findings)
            raise AnsibleActionFail(f"The inventory is refused, nothing was changed:\n{table}")
        return {**result, "changed": False}

    def _judge(self, task_vars: dict[str, Any], specs: list[dict[str, Any]], known: list[str]) -> list[Finding]:
        """The variables, and if they are in order what the catalog makes of them."""
        values: dict[str, Any] = {}
        refused = []
        for name in (name for spec in specs for name in spec["options"] if name in task_vars):
            try:
                values[name] = self._templar.template(task_vars[name])
            except AnsibleError as error:
                refused.append(Finding("refuse", name, f"cannot be rendered: {error}", variables.WHERE))
        refused += variables.judge(specs, values, task_vars, known, datetime.datetime.now(datetime.UTC))
        if refused:
            return refused
        return [Finding("pass", "variables", f"{len(values)} of {len(specs)} roles"), *self._catalog(task_vars)]

    def _catalog(self, task_vars: dict[str, Any]) -> list[Finding]:
        """The rendered catalog, held against itself."""
        remedy = "correct that file, or the variable that the message names"
        try:
            texts = self._templar.template(task_vars["_catalog_texts"])
        except AnsibleError as error:
            broken = self._broken_templates(task_vars) or [("templates/services", str(error))]
            return [
                Finding("refuse", "catalog", f"{path}: cannot be rendered: {told}", remedy) for path, told in broken
            ]
        enabled, edition = (self._templar.template(task_vars[name]) for name in ("services_enabled", "edition"))
        try:
            loaded = catalog.load({name: str.__str__(text) for name, text in texts.items()}, enabled, edition)
        except catalog.CatalogError as error:
            return [Finding("refuse", "catalog", problem, remedy) for problem in error.problems]
        return [Finding("pass", "catalog", f"{len(loaded.services)} services")]

    def _broken_templates(self, task_vars: dict[str, Any]) -> list[tuple[str, str]]:
        """Each catalog file that cannot be rendered on its own, and why: an error of all together does not name it."""
        render = self._shared_loader_obj.lookup_loader.get(
            "ansible.builtin.template", loader=self._loader, templar=self._templar
        )
        broken = []
        for path in self._templar.template(task_vars["_catalog_files"]):
            try:
                render.run([path], variables=task_vars)
            except AnsibleError as error:
                broken.append((f"templates/services/{Path(path).name}", str(error)))
        return broken
