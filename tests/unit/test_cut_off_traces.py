"""What a run that was cut off has left is told from what is always there."""

from __future__ import annotations

import cut_off
import pytest

WHOLE = "Package: cron\nStatus: install ok installed\n\nPackage: old\nStatus: deinstall ok config-files\n"


@pytest.mark.parametrize(
    "state",
    [
        "install ok unpacked",
        "install ok half-configured",
        "install ok half-installed",
        "install reinstreq half-installed",
        "install reinstreq installed",
        "install ok triggers-awaited",
        "install ok triggers-pending",
    ],
)
def test_package_that_is_not_finished_is_seen(state: str) -> None:
    assert cut_off.half_installed(f"{WHOLE}\nPackage: docker.io\nStatus: {state}\nVersion: 26\n", [])


def test_journal_of_dpkg_is_seen_and_its_scratch_file_is_not() -> None:
    assert cut_off.half_installed(WHOLE, ["0003", "tmp.i"])
    assert not cut_off.half_installed(WHOLE, ["tmp.i"])


@pytest.mark.parametrize("state", ["install ok not-installed", "hold ok installed", "purge ok not-installed"])
def test_finished_packages_are_left_alone(state: str) -> None:
    assert not cut_off.half_installed(f"{WHOLE}\nPackage: other\nStatus: {state}\n", [])
