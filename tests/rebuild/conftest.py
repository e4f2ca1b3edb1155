"""A shop with data; each test loses it in another way. `make rebuild` gives it a machine of its own."""

from __future__ import annotations

from typing import Any

import loss
import machine
import owner
import pytest


@pytest.fixture(scope="session")
def shop(first_run: machine.Finished) -> dict[str, Any]:
    """What the shop held when it was saved for the last time."""
    assert first_run.status == 0, first_run.output[-4000:]
    if "By hand" not in machine.psql("n8n", "SELECT name FROM workflow_entity"):
        owner.build_by_hand()
    owner.sell(3)
    loss.save("nightly")
    # Only in the log that goes on from there.
    owner.sell(2)
    loss.save("ship")
    return owner.everything()
