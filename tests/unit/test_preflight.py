"""The preflight's judgement, fact by fact."""

from __future__ import annotations

from typing import Any

import preflight
import pytest

GOOD: dict[str, Any] = {
    "architecture": "aarch64",
    "userland_bits": 64,
    "os_id": "debian",
    "os_version": "13",
    "os_name": "Debian GNU/Linux 13 (trixie)",
    "board": "Raspberry Pi 4 Model B Rev 1.5",
    "ram_mib": 3793,
    "page_bytes": 4096,
    "disk_free_mib": 20000,
    "epoch_seconds": 1_800_000_000,
    "systemd": True,
    "python": "3.13.5",
}


def judge(allow_any_board: bool = False, **changes: Any) -> list[preflight.Finding]:
    """Judge a good Pi with some facts changed."""
    return preflight.judge(
        {**GOOD, **changes},
        architectures=["aarch64"],
        allow_any_board=allow_any_board,
        ram_min_mib=3584,
        disk_min_mib=6144,
        controller_epoch=1_800_000_000,
    )


def refused(findings: list[preflight.Finding]) -> list[str]:
    """Names of the checks that refuse."""
    return [finding.check for finding in findings if finding.level == "refuse"]


def test_good_pi_passes_everything() -> None:
    assert {finding.level for finding in judge()} == {"pass"}


@pytest.mark.parametrize(
    ("os_id", "os_version"),
    [("ubuntu", "22.04"), ("ubuntu", "24.04"), ("ubuntu", "26.04"), ("debian", "12"), ("debian", "13")],
)
def test_supported_systems_pass(os_id: str, os_version: str) -> None:
    assert refused(judge(os_id=os_id, os_version=os_version)) == []


@pytest.mark.parametrize(
    ("changes", "check"),
    [
        ({"architecture": "armv7l"}, "architecture"),
        ({"architecture": "x86_64"}, "architecture"),
        ({"userland_bits": 32}, "architecture"),
        ({"os_version": "11"}, "operating system"),
        ({"os_id": "fedora"}, "operating system"),
        ({"os_id": None}, "operating system"),
        ({"board": "Raspberry Pi 3 Model B"}, "board"),
        ({"board": None}, "board"),
        ({"ram_mib": 1900}, "memory"),
        ({"ram_mib": None}, "memory"),
        ({"disk_free_mib": 100}, "free disk"),
        ({"epoch_seconds": 1_800_086_400}, "clock"),
        ({"epoch_seconds": 1_799_913_600}, "clock"),
        ({"systemd": False}, "init"),
    ],
)
def test_each_bad_fact_is_refused_with_a_remedy(changes: dict[str, Any], check: str) -> None:
    findings = judge(**changes)
    assert refused(findings) == [check]
    assert all(finding.remedy for finding in findings if finding.level == "refuse")


def test_other_board_is_a_warning_where_it_is_allowed() -> None:
    findings = judge(allow_any_board=True, board="Some other board")
    assert refused(findings) == []
    assert [finding.check for finding in findings if finding.level == "warn"] == ["board"]


def test_table_shows_every_check_and_the_remedy() -> None:
    table = preflight.render(judge(ram_mib=1024))
    assert "refuse  memory" in table
    assert "-> use a Pi with 4 GB" in table
    assert table.count("pass ") == 6
