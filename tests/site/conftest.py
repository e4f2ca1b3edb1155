"""Every test here needs the converged machine."""

from __future__ import annotations

import machine
import pytest


@pytest.fixture(autouse=True)
def _site(first_run: machine.Finished) -> None:
    """Every test here needs the machine."""
