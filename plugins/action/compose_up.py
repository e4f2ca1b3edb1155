"""Action plugin: `community.docker.docker_compose_v2` with `state: present`, and a diff that tells what it does.

Options and result are the module's. In check mode Compose itself cannot be asked for everything: its dry run starts
nothing, and then waits for what was not started. So it is asked what it would make, and what stands still is added.
Where there is no engine yet, everything is still to be made.

Compose gives up at the first unhealthy container, also at one that is so because of what it has just mended: a worker
whose Redis was away. One that was not touched gets the time to become well that started ones have.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "module_utils"))

from compose_steps import foreseen, ill_before, told

MODULE = "community.docker.docker_compose_v2"
# Makes containers without starting them, then stops all that run; in check mode that is only said.
CHECK = {"state": "stopped", "wait": False}
# Ends with 0 as soon as the container is not unhealthy any more.
RECOVER = """timeout {seconds} sh -c '
while [ "$(docker inspect --format "{{{{.State.Health.Status}}}}" {name})" = unhealthy ]; do sleep 2; done'"""


class ActionModule(ActionBase):
    """Runs the module on the Pi."""

    TRANSFERS_FILES = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run the module and put its steps into words."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        result.update(self._check(task_vars) if self._task.check_mode else self._patiently(task_vars))
        if result.get("changed") and not result.get("failed"):
            result["diff"] = {"before": "", "after": told(result["actions"])}
        return result

    def _up(self, arguments: dict[str, Any], task_vars: dict[str, Any] | None) -> dict[str, Any]:
        """The module's own result."""
        answer: dict[str, Any] = self._execute_module(module_name=MODULE, module_args=arguments, task_vars=task_vars)
        return answer

    def _patiently(self, task_vars: dict[str, Any] | None) -> dict[str, Any]:
        """The module's result, run again for each container that was ill before and recovers."""
        answer = self._up(self._task.args, task_vars)
        recovered: set[str] = set()
        while (name := ill_before(answer)) and name not in recovered:
            recovered.add(name)
            wait = RECOVER.format(seconds=int(self._task.args["wait_timeout"]), name=name)
            if self._low_level_execute_command(wait)["rc"] != 0:
                break
            again = self._up(self._task.args, task_vars)
            again["actions"] = answer["actions"] + again.get("actions", [])
            again["changed"] = answer["changed"] or again.get("changed", False)
            answer = again
        return answer

    def _check(self, task_vars: dict[str, Any] | None) -> dict[str, Any]:
        """What the result would be; nothing is done."""
        arguments = self._task.args
        if self._low_level_execute_command("command -v docker")["rc"] != 0:
            project = {"what": "project", "id": arguments["project_name"], "status": "Creating"}
            return {"changed": True, "actions": [project]}
        answer = self._up({**arguments, **CHECK}, task_vars)
        if not answer.get("failed"):
            answer["actions"] = foreseen(answer["actions"], answer["containers"], arguments.get("services") or [])
            answer["changed"] = bool(answer["actions"])
        return answer
