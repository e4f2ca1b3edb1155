"""Every test here needs the converged machine."""

from __future__ import annotations

from typing import Any

import machine
import pytest


@pytest.fixture(autouse=True)
def _site(first_run: machine.Finished, untouched: dict[str, Any]) -> None:
    """Every test here needs the machine."""
