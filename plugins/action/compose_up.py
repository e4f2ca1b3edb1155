"""Action plugin: `community.docker.docker_compose_v2` with `state: present`, and a diff that tells what it does.

Options and result are the module's. In check mode Compose itself cannot be asked for everything: its dry run starts
nothing, and then waits for what was not started. So it is asked what it would make, and what stands still is added.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "module_utils"))

from compose_steps import foreseen, told

MODULE = "community.docker.docker_compose_v2"
# Makes containers without starting them, then stops all that run; in check mode that is only said.
CHECK = {"state": "stopped", "wait": False}


class ActionModule(ActionBase):
    """Runs the module on the Pi."""

    TRANSFERS_FILES = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run the module and put its steps into words."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        arguments = dict(self._task.args)
        if self._task.check_mode:
            arguments.update(CHECK)
        result.update(self._execute_module(module_name=MODULE, module_args=arguments, task_vars=task_vars))
        if result.get("failed"):
            return result
        if self._task.check_mode:
            result["actions"] = foreseen(result["actions"], result["containers"], arguments.get("services") or [])
            result["changed"] = bool(result["actions"])
        if result["changed"]:
            result["diff"] = {"before": "", "after": told(result["actions"])}
        return result
