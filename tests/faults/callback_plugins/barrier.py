"""Callback plugin for tests: each task begins when the test lets it, so that a test acts at a task and not at a time.

The test listens on the socket that BARRIER_SOCKET names. It is sent the name of each task and answers with None, or
with (audit event, pattern): then this run is killed when a worker of it raises that event with such arguments.
"""

from __future__ import annotations

import os
import re
import signal
import sys
from multiprocessing.connection import Client
from typing import Any

from ansible.playbook.task import Task
from ansible.plugins.callback import CallbackBase

DOCUMENTATION = r"""
name: barrier
type: aggregate
short_description: Each task waits for the test
description: Lets a test act at the beginning of a task.
"""


def kill_at(event: str, pattern: str) -> None:
    """Kill this process group, the whole run, at the first such event in this process or in one forked from it."""

    def hook(name: str, arguments: tuple[Any, ...]) -> None:
        if name == event and re.search(pattern, repr(arguments)):
            os.killpg(0, signal.SIGKILL)

    sys.addaudithook(hook)


class CallbackModule(CallbackBase):
    """Sends the task's name, waits for the answer."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "barrier"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self) -> None:
        super().__init__()
        self._test = Client(os.environ["BARRIER_SOCKET"])

    def v2_playbook_on_task_start(self, task: Task, is_conditional: bool) -> None:
        """Runs in the main process before the task is handed to a worker."""
        self._test.send(task.get_name())
        if ambush := self._test.recv():
            kill_at(*ambush)
