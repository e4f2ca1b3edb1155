"""Which packages have to be installed or removed."""

from __future__ import annotations

import apt_packages
import pytest

STATUS = "cron ii \nold-config rc \nhalf-done iU \nheld hi \njq ii \n"


def test_only_complete_packages_count_as_installed() -> None:
    assert apt_packages.installed(STATUS) == {"cron", "held", "jq"}


@pytest.mark.parametrize(
    ("state", "expected"), [("present", ["half-done", "old-config", "tzdata"]), ("absent", ["cron", "jq"])]
)
def test_only_what_differs_is_changed(state: str, expected: list[str]) -> None:
    names = ["cron", "half-done", "old-config", "jq", "tzdata"]
    assert apt_packages.to_change(names, state, apt_packages.installed(STATUS)) == expected


def test_what_goes_is_read_from_a_simulation() -> None:
    told = "Reading package lists...\nRemv docker.io [26.1] [containerd:amd64 ]\nRemv runc [1.1]\nInst jq (1.7)\n"
    assert apt_packages.removals(told) == {"docker.io", "runc"}
