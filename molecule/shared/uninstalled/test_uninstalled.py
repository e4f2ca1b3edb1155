"""After its uninstall a role has left nothing behind but what it keeps on purpose."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
import yaml
from testinfra.host import Host

SHARED = Path(__file__).resolve().parents[1]
SCENARIO = os.environ["MOLECULE_SCENARIO_NAME"]
ROLE = SCENARIO.split("-")[0]


def state(host: Host) -> list[str]:
    """The Pi's state now."""
    lines = host.check_output("bash -c %s", (SHARED / "state.sh").read_text()).splitlines()
    assert len(lines) > 500, "the state could not be read"
    return lines


def left(after: list[str]) -> list[str]:
    """Lines of a state that appeared (+) or vanished (-) since before the role, and that no pattern allows."""
    before = set((Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"]) / "state").read_text().splitlines())
    kept = yaml.safe_load((SHARED / "vars/kept.yml").read_text()).get(ROLE, [])
    found = [f"+ {line}" for line in set(after) - before] + [f"- {line}" for line in before - set(after)]
    return sorted(line for line in found if not any(re.fullmatch(pattern, line) for pattern in kept))


@pytest.fixture(scope="module")
def lines(host: Host) -> list[str]:
    """The state after the uninstall."""
    return state(host)


def test_data_stays_and_goes_as_promised(lines: list[str]) -> None:
    data = yaml.safe_load((SHARED / "uninstalled/data.yml").read_text()).get(SCENARIO, {})
    for pattern in data.get("stays", []):
        assert any(re.fullmatch(pattern, line) for line in lines), pattern
    for pattern in data.get("goes", []):
        assert not [line for line in lines if re.fullmatch(pattern, line)], pattern


def test_nothing_is_left(lines: list[str]) -> None:
    assert not left(lines), "\n".join(left(lines))


def test_what_is_left_would_be_noticed(host: Host) -> None:
    host.check_output("touch /etc/pi-commerce-left-behind")
    try:
        found = left(state(host))
    finally:
        host.check_output("rm /etc/pi-commerce-left-behind")
    assert any("/etc/pi-commerce-left-behind" in line for line in found)
