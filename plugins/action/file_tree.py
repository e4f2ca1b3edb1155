"""Action plugin: the module `file_tree`, called only where it has something to do.

The Pi told its files when the run began (`pi_state`, role facts). A tree that is as it shall be by that needs no call.
As soon as a tree changes, what was told no longer counts, and every role asks again for itself.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "module_utils"))

import host_state

UNCHANGED = {"changed": False, "written": [], "adjusted": [], "removed": [], "applied": False}


class ActionModule(ActionBase):
    """Compares on the controller, writes on the Pi."""

    TRANSFERS_FILES = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Answer from what is known, else run the module."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        known = (task_vars or {})["ansible_facts"].get("pi_state", host_state.UNKNOWN)
        if host_state.holds(self._task.args, known["files"]):
            return {**result, **UNCHANGED}
        result.update(self._execute_module(task_vars=task_vars))
        if result.get("changed"):
            result["ansible_facts"] = {"pi_state": host_state.UNKNOWN}
        return result
