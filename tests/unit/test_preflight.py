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
    "kernel": "6.12.34+rpt-rpi-v8",
    "disk_free_mib": 20000,
    "read_only": [],
    "data_mounted": None,
    "memory_cgroup": True,
    "servers": [],
    "ports": [],
    "epoch_seconds": 1_800_000_000,
    "systemd": True,
    "python": "3.13.5",
}


SERVER = {"kind": "image registry", "address": "registry.test:5000", "problem": ""}


def judge(
    allow_any_board: bool = False,
    allow_no_registry: bool = False,
    data_mount: str = "",
    edition: str = "lean",
    **changes: Any,
) -> list[preflight.Finding]:
    """Judge a good Pi with some facts changed."""
    return preflight.judge(
        {**GOOD, **changes},
        architectures=["aarch64"],
        allow_any_board=allow_any_board,
        allow_no_registry=allow_no_registry,
        ram_min_mib=3584,
        disk_min_mib=6144,
        data_mount=data_mount,
        edition=edition,
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
        ({"kernel": "5.4.0-1100-raspi"}, "kernel"),
        ({"page_bytes": 65536}, "kernel"),
        ({"read_only": ["/etc"]}, "file systems"),
        ({"data_mount": "/data", "data_mounted": False}, "data disk"),
        ({"memory_cgroup": False}, "memory limits"),
        ({"edition": "appwrite"}, "edition"),
        ({"servers": [SERVER | {"problem": "the name cannot be resolved"}]}, "image registry"),
        ({"servers": [SERVER | {"kind": "package mirror", "problem": "does not answer"}]}, "package mirror"),
        ({"ports": [{"address": "0.0.0.0:443/tcp", "problem": "is taken by apache2"}]}, "port"),
    ],
)
def test_each_bad_fact_is_refused_with_a_remedy(changes: dict[str, Any], check: str) -> None:
    findings = judge(**changes)
    assert refused(findings) == [check]
    assert all(finding.remedy for finding in findings if finding.level == "refuse")


def test_registry_that_is_away_is_a_warning_where_images_come_from_elsewhere_and_a_mirror_is_not() -> None:
    away = {"problem": "does not answer"}
    mirror = {**SERVER, "kind": "package mirror", **away}
    findings = judge(allow_no_registry=True, servers=[{**SERVER, **away}, mirror])
    assert refused(findings) == ["package mirror"]
    assert [finding.check for finding in findings if finding.level == "warn"] == ["image registry"]


def test_other_board_is_a_warning_where_it_is_allowed() -> None:
    findings = judge(allow_any_board=True, board="Some other board")
    assert refused(findings) == []
    assert [finding.check for finding in findings if finding.level == "warn"] == ["board"]


def test_table_shows_every_check_and_the_remedy() -> None:
    table = preflight.render(judge(ram_mib=1024))
    assert "refuse  memory" in table
    assert "-> use a Pi with 4 GB" in table
    assert table.count("pass ") == len(judge()) - 1


def test_what_cannot_be_known_yet_does_not_refuse() -> None:
    assert refused(judge(memory_cgroup=None)) == []
    assert refused(judge(data_mount="/data", data_mounted=True, page_bytes=16384)) == []
    assert refused(judge(edition="appwrite", ram_mib=7812)) == []
    assert refused(judge(servers=[SERVER], ports=[{"address": "0.0.0.0:443/tcp", "problem": ""}])) == []


def test_name_that_cannot_be_resolved_has_another_remedy_than_a_silent_server() -> None:
    problems = ("the name cannot be resolved", "does not answer within 5 s")
    remedies = [judge(servers=[SERVER | {"problem": problem}])[-1].remedy for problem in problems]
    assert "/etc/resolv.conf" in remedies[0]
    assert "default route" in remedies[1]


@pytest.mark.parametrize(
    ("version", "level"), [("2.18.9", "refuse"), ("2.19.0rc1", "pass"), ("2.21.5", "pass"), ("3.0.0", "pass")]
)
def test_controller_is_judged_by_its_version(version: str, level: str) -> None:
    assert preflight.judge_controller(version).level == level


@pytest.mark.parametrize(
    ("reading", "found"),
    [
        ({"unreachable": True, "msg": "ssh: connect to host 192.0.2.1 port 22: No route to host"}, "does not answer"),
        (
            {"unreachable": True, "msg": "ssh: connect to host 192.0.2.1 port 22: Connection timed out"},
            "does not answer",
        ),
        ({"unreachable": True, "msg": "ssh: Could not resolve hostname shop: Name or service"}, "cannot be resolved"),
        ({"unreachable": True, "msg": "Host key verification failed."}, "host key"),
        ({"unreachable": True, "msg": "pi@192.0.2.1: Permission denied (publickey)."}, "this user"),
        ({"failed": True, "msg": "Missing sudo password"}, "become root"),
        ({"failed": True, "msg": "failed", "module_stderr": "/bin/sh: 1: /usr/bin/python3: not found"}, "Python"),
        ({"failed": True, "msg": "", "exception": "Traceback:\n  line\nKeyError: 'x'\n"}, "KeyError: 'x'"),
    ],
)
def test_failed_connection_is_explained(reading: dict[str, Any], found: str) -> None:
    finding = preflight.judge_connection(reading, "pi@192.0.2.1")
    assert finding.level == "refuse"
    assert found in finding.found
    assert "pi@192.0.2.1" in finding.found
    assert finding.remedy


def test_connection_that_worked_passes() -> None:
    assert preflight.judge_connection({"ansible_facts": {"pi": GOOD}}, "pi@192.0.2.1").level == "pass"
