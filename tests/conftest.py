"""The virtual Pi under test, converged once for the whole test run."""

from __future__ import annotations

import os
from collections.abc import Iterator

import machine
import pytest


@pytest.fixture(scope="session")
def first_run() -> Iterator[machine.Finished]:
    """`make up` on a machine that was not there before; taken down again unless KEEP is set."""
    if os.environ.get("KEEP") and (machine.STATE / "secrets.vault.yml").exists():
        yield machine.playbook("site.yml")
        return
    machine.make("down")
    yield machine.make("up")
    if not os.environ.get("KEEP"):
        machine.make("down")
