"""Action plugin: `file_tree` as a playbook without it would have to do it, with one stock task item for each file.

Only for the comparison in `make bench WHAT=converge`. Folders to be swept are left as they are, so this side has less
to do than the real one.
"""

from __future__ import annotations

from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

RIGHTS = {"owner": "root", "group": "root"}


class ActionModule(ActionBase):
    """Calls `ansible.builtin.file` for each folder and `ansible.builtin.copy` for each file."""

    TRANSFERS_FILES = True
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Do them in their order; any failure ends the comparison."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        arguments = self._task.args
        folders = [
            {**RIGHTS, "mode": "0755", **item, "path": f"{arguments['root']}/{item['path']}", "state": "directory"}
            for item in arguments.get("directories", [])
        ]
        answers = [
            self._execute_module(module_name="ansible.builtin.file", module_args=folder, task_vars=task_vars)
            for folder in folders
        ]
        answers += [self._copy(arguments["root"], item, task_vars) for item in arguments.get("files", [])]
        if failed := [answer["msg"] for answer in answers if answer.get("failed")]:
            raise AnsibleActionFail("; ".join(failed))
        return {**result, "changed": any(answer["changed"] for answer in answers), "_ansible_no_log": True}

    def _copy(self, root: str, item: dict[str, Any], task_vars: dict[str, Any] | None) -> dict[str, Any]:
        """One file by the stock action."""
        task = self._task.copy()
        task.args = {
            **RIGHTS,
            "mode": item.get("mode", "0644"),
            **{name: item[name] for name in ("owner", "group", "validate") if name in item},
            "content": item["secret_content"] if "secret_content" in item else item["content"],
            "dest": f"{root.rstrip('/')}/{item['path']}",
            # The sealed vault file goes as it is; `copy` would open it.
            "decrypt": False,
        }
        action = self._shared_loader_obj.action_loader.get(
            "ansible.builtin.copy",
            task=task,
            connection=self._connection,
            play_context=self._play_context,
            loader=self._loader,
            templar=self._templar,
            shared_loader_obj=self._shared_loader_obj,
        )
        answer: dict[str, Any] = action.run(task_vars=task_vars)
        return answer
