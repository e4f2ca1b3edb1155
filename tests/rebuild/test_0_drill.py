"""`make drill` on a machine that is minutes old, with the operator's key: nobody has waited for a night."""

from __future__ import annotations

import machine


def test_first_drill_saves_and_verifies(first_run: machine.Finished) -> None:
    assert first_run.status == 0, first_run.output[-4000:]
    drilled = machine.playbook("playbooks/drill.yml")
    assert drilled.status == 0, drilled.output[-4000:]
    # Only from the controller is the bundle opened; on the Pi alone it stays sealed.
    assert "bundle opens" in drilled.output
    assert "verified" in drilled.output
    assert [name for name, value in machine.secrets().items() if value in drilled.output] == []


def test_next_drill_takes_what_is_saved(first_run: machine.Finished) -> None:
    def nights() -> int:
        return machine.pi("pi-commerce-backup snapshots far").count('"kind": "nightly"')

    before = nights()
    drilled = machine.playbook("playbooks/drill.yml")
    assert drilled.status == 0, drilled.output[-4000:]
    assert nights() == before
