"""Callback plugin: load filters and tests once a run instead of once a task.

Ansible runs each task in a child of its own and loads filters and tests where the first expression asks for them: in
the child, with which they go. What its parent has loaded, all children have.
"""

from __future__ import annotations

from typing import Any

from ansible.plugins.callback import CallbackBase
from ansible.plugins.loader import filter_loader, test_loader

DOCUMENTATION = r"""
name: preload
type: aggregate
short_description: Load filters and tests before the first task
description:
  - Saves about a third of what the controller computes in a run, see docs/decisions/0009-speed.md.
"""


class CallbackModule(CallbackBase):
    """Loads them when a run begins."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "preload"

    def v2_playbook_on_start(self, playbook: Any) -> None:
        """The files are read, no task has begun."""
        for loader in (filter_loader, test_loader):
            list(loader.all())
