"""Callback plugin: how often each task starts SSH on the controller.

Enabled by `PROFILE=1` (or ANSIBLE_CALLBACKS_ENABLED). The shell script `counted/ssh` beside this file counts: it takes
the place of ssh, sftp and scp, so what is counted is what Ansible really does, retries included.
Setting REMOTE_CALLS_REPORT to a path writes the totals there as JSON: `tasks`, `remote_tasks`, `remote_calls`.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = r"""
name: remote_calls
type: aggregate
short_description: Count the SSH calls of every task
description:
  - Prints the tasks that spoke to a machine, with the number of SSH, SFTP and SCP calls of each.
requirements:
  - Needs to be enabled, and the C(linear) strategy with one machine for the calls to be put down to the right task.
"""

WRAPPER = Path(__file__).with_name("counted")


class Tally:
    """Tasks in their order, each with the calls that were made until the next one began.

    `calls` is read from the size of a file to which every call appends one byte.
    """

    def __init__(self, log: Path) -> None:
        """Count in `log`, which must exist."""
        self._log = log
        self._begun: list[tuple[str, int]] = []

    def begin(self, task: str) -> None:
        """Put the calls from now on down to `task`."""
        self._begun.append((task, self._log.stat().st_size))

    def calls(self) -> list[tuple[str, int]]:
        """Every task with its number of calls."""
        ends = [before for _task, before in self._begun[1:]] + [self._log.stat().st_size]
        return [(task, end - before) for (task, before), end in zip(self._begun, ends, strict=True)]

    def totals(self) -> dict[str, int]:
        """Number of `tasks`, of those with remote calls, and of the calls."""
        counts = [calls for _task, calls in self.calls()]
        return {"tasks": len(counts), "remote_tasks": sum(map(bool, counts)), "remote_calls": sum(counts)}


class CallbackModule(CallbackBase):
    """Prints the calls when the run ends."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "remote_calls"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self) -> None:
        super().__init__()
        handle, name = tempfile.mkstemp(prefix="remote-calls-")
        os.close(handle)
        self._log = Path(name)
        self._tally = Tally(self._log)
        # Read by the connections, which are made in children of this process.
        os.environ["REMOTE_CALLS_LOG"] = name
        for program in ("SSH", "SFTP", "SCP"):
            os.environ[f"ANSIBLE_{program}_EXECUTABLE"] = str(WRAPPER / program.lower())

    def v2_playbook_on_task_start(self, task: Any, is_conditional: bool) -> None:
        """A task of a play begins."""
        self._tally.begin(task.get_name())

    def v2_playbook_on_handler_task_start(self, task: Any) -> None:
        """A handler begins."""
        self._tally.begin(task.get_name())

    def v2_playbook_on_stats(self, stats: Any) -> None:
        """The run has ended."""
        totals = self._tally.totals()
        self._display.banner("REMOTE CALLS")
        for task, calls in self._tally.calls():
            if calls:
                self._display.display(f"{calls:4}  {task}")
        self._display.display("{remote_calls:4}  in {remote_tasks} of {tasks} tasks".format(**totals))
        if report := os.environ.get("REMOTE_CALLS_REPORT"):
            Path(report).write_text(json.dumps(totals))
        self._log.unlink()
