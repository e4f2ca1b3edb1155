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
