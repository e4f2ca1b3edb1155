"""The preflight's judgement, fact by fact."""

from __future__ import annotations

from typing import Any

import plays
import preflight
import preflight_body
import pytest

BODY: dict[str, Any] = {
    "revision": "c03115",
    "ram_mib": 4096,
    "eeprom_epoch": 1_790_000_000,
    "throttled": 0,
    "under_voltage": None,
    "celsius": 48.2,
    "boot": {"disk": "sda", "medium": "USB", "speed_mbit": 5000},
    "bridges": [{"id": "174c:55aa", "name": "ASM1153E", "driver": "uas", "speed_mbit": 5000}],
    "sockets": [{"name": "eth0", "wireless": False, "carrier": True, "speed_mbit": 1000, "way_out": True}],
}
CONFIG_TXT: dict[str, Any] = {
    "path": "/boot/firmware/config.txt",
    "problem": "",
    "block": [],
    "fan": [],
    "serial": [],
    "overlays": None,
}
GOOD: dict[str, Any] = {
    "architecture": "aarch64",
    "userland_bits": 64,
    "os_id": "debian",
    "os_version": "13",
    "os_name": "Debian GNU/Linux 13 (trixie)",
    "board": "Raspberry Pi 4 Model B Rev 1.5",
    "body": BODY,
    "config_txt": CONFIG_TXT,
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
    "clock_synced": True,
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


def test_name_that_cannot_be_resolved_is_said_of_the_name_server_too() -> None:
    findings = judge(servers=[SERVER | {"problem": "the name cannot be resolved"}])
    assert refused(findings) == ["name server", "image registry"]
    assert "registry.test:5000" in str(findings)
    by_number = {**SERVER, "address": "192.0.2.5:5000"}
    (finding,) = [one for one in judge(servers=[SERVER, by_number]) if one.check == "name server"]
    assert finding.found == "1 names resolved"


@pytest.mark.parametrize("synced", [False, None])
def test_clock_that_nobody_keeps_is_a_warning(synced: bool | None) -> None:
    findings = judge(clock_synced=synced)
    assert [(one.level, one.check) for one in findings if one.level != "pass"] == [("warn", "clock sync")]


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


# --- the board itself -------------------------------------------------------------------------------------

NOW = 1_800_000_000
UAS = {"id": "152d:0578", "name": "JMS578", "driver": "uas", "speed_mbit": 5000}
WIRED, RADIO = BODY["sockets"][0], {**BODY["sockets"][0], "name": "wlan0", "wireless": True, "speed_mbit": None}


def body(**changes: Any) -> list[preflight.Finding]:
    """Judge a good board with something changed."""
    return list(preflight_body.judge({**GOOD, "body": {**BODY, **changes}}, NOW))


def test_good_board_passes() -> None:
    assert {finding.level for finding in body()} == {"pass"}


@pytest.mark.parametrize(
    ("changes", "level", "check", "said"),
    [
        ({"throttled": 0x1}, "refuse", "power supply", "too little voltage right now"),
        ({"throttled": 0x50005}, "refuse", "power supply", "too little voltage right now"),
        ({"throttled": 0x10000}, "warn", "power supply", "at some time since it was started"),
        ({"throttled": None, "under_voltage": True}, "refuse", "power supply", "too little voltage right now"),
        ({"throttled": 0x2}, "warn", "throttling", "frequency capped right now"),
        ({"throttled": 0x4}, "warn", "throttling", "throttled right now"),
        ({"throttled": 0x8}, "warn", "throttling", "at its soft temperature limit right now"),
        ({"throttled": 0xE0000}, "warn", "throttling", "frequency capped, throttled, at its soft"),
        ({"ram_mib": 8192}, "warn", "all memory", "3793 MiB of the board's 8192"),
        ({"boot": {"disk": "mmcblk0", "medium": "SD", "speed_mbit": None}}, "warn", "boot medium", "SD, mmcblk0"),
        ({"boot": {**BODY["boot"], "speed_mbit": 480}}, "warn", "boot medium", "480 Mbit/s"),
        ({"bridges": [UAS]}, "warn", "USB disk", "152d:0578 JMS578, driver uas: known to reset"),
        ({"bridges": [{**UAS, "driver": None}]}, "warn", "USB disk", "driver unknown: known to reset"),
        ({"eeprom_epoch": 1_599_091_200}, "warn", "boot program", "6.4 years ago"),
        ({"sockets": [{**WIRED, "speed_mbit": 100}]}, "warn", "network socket", "eth0, 100 Mbit/s"),
        ({"sockets": [{**WIRED, "way_out": False}, RADIO]}, "warn", "network socket", "Wi-Fi, wlan0"),
        ({"sockets": [{**WIRED, "carrier": False, "way_out": False}]}, "warn", "network socket", "no cable"),
    ],
)
def test_bad_board_is_judged_with_a_remedy(changes: dict[str, Any], level: str, check: str, said: str) -> None:
    found = [finding for finding in body(**changes) if (finding.level, finding.check) == (level, check)]
    assert len(found) == 1, body(**changes)
    assert said in found[0].found
    assert found[0].remedy


def test_low_voltage_may_be_accepted_and_is_told_all_the_same() -> None:
    low = {**GOOD, "body": {**BODY, "throttled": 0x50005}}
    (refused,) = [one for one in preflight_body.judge(low, NOW) if one.level == "refuse"]
    assert "preflight_allow_low_voltage: true" in refused.remedy
    findings = list(preflight_body.judge(low, NOW, allow_low_voltage=True))
    assert [one.level for one in findings if one.check == "power supply"] == ["warn"]
    assert not [one for one in findings if one.level == "refuse"]


def test_card_that_carries_the_system_alone_passes() -> None:
    card = {**GOOD, "body": {**BODY, "boot": {"disk": "mmcblk0", "medium": "SD", "speed_mbit": None}}}
    disk = "/dev/disk/by-id/usb-Maker_Disk_1-0:0"
    (finding,) = [one for one in preflight_body.judge(card, NOW, data_disk=disk) if one.check == "boot medium"]
    assert (finding.level, finding.found) == ("pass", f"SD, mmcblk0; the data is to lie on {disk}")


@pytest.mark.parametrize(
    ("config_txt", "said"),
    [
        (None, "unknown"),
        ({**CONFIG_TXT, "problem": "/boot/firmware/config.txt: its file system is read-only; mount -o"}, "read-only"),
    ],
)
def test_firmware_settings_that_cannot_be_written_are_told(config_txt: dict[str, Any] | None, said: str) -> None:
    (finding,) = [
        one for one in preflight_body.judge({**GOOD, "config_txt": config_txt}, NOW) if one.check == "firmware settings"
    ]
    assert finding.level == "warn"
    assert said in finding.found
    assert finding.remedy


@pytest.mark.parametrize(
    ("seconds", "kernel", "level"), [(60, "6.6.31", "refuse"), (60, "6.12", "pass"), (0, "5.15", "pass")]
)
def test_watchdog_that_the_kernel_would_not_take_is_refused_early(seconds: int, kernel: str, level: str) -> None:
    findings = preflight_body.judge({**GOOD, "kernel": kernel}, NOW, watchdog_seconds=seconds)
    assert [one.level for one in findings if one.check == "watchdog"] == [level]


def test_remedies_name_the_very_words() -> None:
    (finding,) = [one for one in body(bridges=[UAS]) if one.check == "USB disk"]
    assert '"usb-storage.quirks=152d:0578:u"' in finding.remedy
    assert "/boot/firmware/cmdline.txt" in finding.remedy
    # With the quirk it is driven otherwise, and all is well.
    assert {one.level for one in body(bridges=[{**UAS, "driver": "usb-storage"}])} == {"pass"}


@pytest.mark.parametrize(
    ("name", "check"),
    [
        ("ram_mib", "all memory"),
        ("throttled", "power supply"),
        ("throttled", "throttling"),
        ("bridges", "USB disk"),
        ("eeprom_epoch", "boot program"),
        ("sockets", "network socket"),
    ],
)
def test_what_cannot_be_read_is_unknown_and_never_well(name: str, check: str) -> None:
    (finding,) = [one for one in body(**{name: None}) if one.check == check]
    assert finding.level == "warn"
    assert "unknown" in finding.found
    assert finding.remedy


def test_unknown_boot_medium_and_half_known_power() -> None:
    unknown = {"disk": None, "medium": None, "speed_mbit": None}
    assert [one.check for one in body(boot=unknown) if one.level == "warn"] == ["boot medium"]
    (finding,) = [one for one in body(throttled=None, under_voltage=False) if one.check == "power supply"]
    assert (finding.level, finding.found) == ("pass", "enough voltage right now; since it was started: unknown")


def test_cable_counts_where_the_way_out_is_made_by_software() -> None:
    bridged = {**WIRED, "way_out": False}
    assert [one.level for one in body(sockets=[bridged]) if one.check == "network socket"] == ["pass"]


SOAK = {"seconds": 600, "bits": 0, "celsius": 61.3, "mhz": 1800, "nominal_mhz": 1800}


@pytest.mark.parametrize(
    ("changes", "level", "said"),
    [
        ({}, "pass", "600 s on all cores: 61.3 degrees at most, 1800 of 1800 MHz at least"),
        ({"bits": None, "celsius": None}, "pass", "unknown temperature"),
        ({"mhz": None}, "pass", "unknown of 1800 MHz"),
        # What was set before the load is told by "throttling".
        ({"bits": 0x50000}, "pass", "600 s"),
        ({"bits": 0x4, "seconds": 40}, "refuse", "throttled"),
        ({"bits": 0x1}, "refuse", "too little voltage"),
        ({"mhz": 600}, "refuse", "it was slowed down"),
        ({"celsius": 80.0}, "refuse", "80.0 degrees"),
        ({"bits": None, "mhz": None}, "refuse", "unknown"),
    ],
)
def test_soak_is_ready_only_where_nothing_gave_way(changes: dict[str, Any], level: str, said: str) -> None:
    finding = preflight_body.judge_soak({**SOAK, **changes})
    assert finding.level == level, finding
    assert said in finding.found
    assert bool(finding.remedy) == (level == "refuse")


# --- the report -------------------------------------------------------------------------------------------

EXPECTED = {
    "architectures": ["aarch64"],
    "allow_any_board": False,
    "ram_min_mib": 3584,
    "disk_min_mib": 6144,
    "data_mount": "",
    "edition": "lean",
    "controller_epoch": NOW,
}


def verdict(soak: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    """What the role gets, of a good board with something changed."""
    reading = {"ansible_facts": {"pi": {**GOOD, "body": {**BODY, **changes}}}}
    judged = plays.filters("preflight")["preflight_judge"](
        reading, "pi@192.0.2.1", {"secrets": {}}, [], 600, soak=soak, **EXPECTED
    )
    assert isinstance(judged, dict)
    return judged


def test_report_counts_and_says_whether_it_is_ready() -> None:
    good = verdict()
    assert (good["refused"], good["warnings"]) == (False, "")
    assert good["totals"].startswith("ready: ")
    assert good["totals"].endswith(" 0 warn, 0 refuse")
    warned = verdict(throttled=0x10000)
    assert not warned["refused"]
    assert warned["totals"].startswith("ready, look at the warnings: ")
    assert warned["warnings"].startswith("warn    power supply")
    assert "-> use the board's own power supply" in warned["warnings"]
    bad = verdict(throttled=0x1)
    assert bad["refused"]
    assert bad["totals"].startswith("not ready: ")


def test_soak_is_a_row_of_the_report() -> None:
    assert "under load" not in verdict()["table"]
    assert "pass    under load" in verdict(SOAK)["table"]
    assert verdict({**SOAK, "bits": 4})["refused"]
