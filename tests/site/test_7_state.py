"""Everything in the table of what has to be true (state.yml), asked of the machine as it is."""

from __future__ import annotations

import effective_state
import machine
import pytest


@pytest.fixture(scope="module")
def found(first_run: machine.Finished) -> dict[str, str]:
    """What the machine answers."""
    return effective_state.on_the_pi([row for row in effective_state.ROWS if not row.vm])


@pytest.mark.parametrize("row", effective_state.ROWS, ids=lambda row: row.title)
def test_machine_is(row: effective_state.Row, found: dict[str, str]) -> None:
    if row.vm:
        pytest.skip(row.vm)
    assert row.met(found[row.title]), f"{row.ask}\nsays {found[row.title]!r} instead of {row.expected!r} ({row.source})"


DRIFTS = {
    "kernel setting of the network: net.ipv4.conf.all.accept_redirects": (
        "sysctl --write net.ipv4.conf.all.accept_redirects=1",
        "sysctl --write net.ipv4.conf.all.accept_redirects=0",
    ),
    "mode and owner: /etc/crontab": ("chmod 0644 /etc/crontab", "chmod 0600 /etc/crontab"),
    "option of a mount: /tmp noexec": ("mount -o remount,bind,exec /tmp", "pi-commerce-harden"),
    "unit that runs, and will after a restart: cron.service": ("systemctl stop cron", "systemctl start cron"),
}


@pytest.mark.parametrize("title", sorted(DRIFTS))
def test_what_somebody_opens_is_noticed(title: str, first_run: machine.Finished) -> None:
    """A table that is green whatever the machine is says nothing."""
    [row] = [row for row in effective_state.ROWS if row.title == title]
    opened, closed = DRIFTS[title]
    machine.pi(opened)
    try:
        assert not row.met(effective_state.on_the_pi([row])[title])
    finally:
        machine.pi(closed)
    assert row.met(effective_state.on_the_pi([row])[title])
