"""The table of what has to be true (tests/site/state.yml), all of it: before a restart, and after one."""

from __future__ import annotations

import effective_state
import machine
import pytest
from boots import boot_id
from test_vm_3_boots import wait_until_back

MOMENTS = ("as it is", "after a restart")


@pytest.fixture(scope="module", params=MOMENTS)
def found(request: pytest.FixtureRequest) -> dict[str, str]:
    """What the machine answers."""
    if request.param == MOMENTS[1]:
        before = boot_id()
        machine.pi("systemctl reboot", check=False)
        wait_until_back(before)
    return effective_state.on_the_pi(effective_state.ROWS)


@pytest.mark.parametrize("row", effective_state.ROWS, ids=lambda row: row.title)
def test_machine_is(row: effective_state.Row, found: dict[str, str]) -> None:
    assert row.met(found[row.title]), f"{row.ask}\nsays {found[row.title]!r} instead of {row.expected!r} ({row.source})"
