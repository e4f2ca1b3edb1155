"""Every test here needs the converged machine, and a machine with a kernel of its own."""

from __future__ import annotations

import machine
import pytest


@pytest.fixture(scope="session", autouse=True)
def _machine(request: pytest.FixtureRequest) -> None:
    """The converged machine; `make vm` says that it is to be a virtual machine."""
    if machine.KIND != "vm":
        pytest.fail("these tests need a virtual machine (PI_KIND=vm): run `make vm`", pytrace=False)
    request.getfixturevalue("first_run")
