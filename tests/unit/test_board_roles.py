"""The roles thermal and power, as far as they decide and write without a Pi: their own tasks, run by Ansible here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import config_txt
import plays
import pytest
import yaml

SERVICES = [
    {"name": "redis", "needs": [], "stores": []},
    {"name": "rate_limiter", "needs": ["redis"], "stores": []},
]
RECORDED = plays.ROOT / "molecule/images/virtual-pi/hardware/pi4-4gb/boot/firmware/config.txt"


def load(role: str, path: str) -> Any:
    """A YAML file of a role."""
    return yaml.safe_load((plays.ROOT / "roles" / role / path).read_text(encoding="utf-8"))


@pytest.fixture
def board(tmp_path: Path) -> Path:
    """The recorded board's config.txt."""
    path = tmp_path / "board/boot/firmware/config.txt"
    path.parent.mkdir(parents=True)
    path.write_bytes(RECORDED.read_bytes())
    return path


def run(board: Path, role: str, count: int, **variables: Any) -> tuple[int, str]:
    """The role's first tasks; exit status and what was printed."""
    root = str(board.parents[2])
    pi = {"config_txt": config_txt.facts(root), "kernel": "6.6.51+rpt-rpi-v8"}
    known = {
        **load(role, "defaults/main.yml"),
        **load(role, "vars/main.yml"),
        "hardware_root": root,
        "catalog_data": {"backup_services": SERVICES, "published_ports": []},
        **variables,
    }
    facts = {"ansible.builtin.set_fact": {"pi": pi, "cacheable": True}}
    tasks: list[dict[str, Any]] = []
    for task in load(role, "tasks/main.yml")[:count]:
        path = task.get("ansible.builtin.import_tasks")
        tasks += load(role, f"tasks/{path}") if path else [task]
    tasks = [{**task, "vars": known} for task in tasks]
    return plays.play(board.parents[3], [facts, *tasks], "--diff")


def test_fan_is_written_once_and_taken_out_again(board: Path) -> None:
    before = board.read_bytes()
    for changed in (1, 0):
        status, output = run(board, "thermal", 2, thermal_fan="ice_tower")
        assert status == 0, output
        assert f"changed={changed}" in output
    # What is as it shall be needs no call.
    assert "skipped=1" in output
    assert b"[all]\ndtoverlay=gpio-fan,gpiopin=14,temp=55000\n# END" in board.read_bytes()
    status, output = run(board, "thermal", 2)
    assert (status, board.read_bytes()) == (0, before), output


def test_without_a_fan_nothing_is_asked(board: Path) -> None:
    board.unlink()
    status, output = run(board, "thermal", 2)
    assert status == 0, output
    assert "changed=0" in output
    assert "skipped=1" in output


@pytest.mark.parametrize(
    ("line", "variables", "words"),
    [
        ("dtoverlay=gpio-fan", {"thermal_fan": "gpio"}, "sets up a fan already, by hand"),
        ("enable_uart=1", {"thermal_fan": "ice_tower"}, "gives GPIO 14 to the serial console"),
        (config_txt.END, {"thermal_fan": "gpio"}, "have to stand in it once each"),
        ("", {"thermal_shed": ["redis"]}, "name rate_limiter before redis"),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_is_changed(
    board: Path, line: str, variables: dict[str, Any], words: str
) -> None:
    with board.open("a") as file:
        file.write(f"{line}\n")
    before = board.read_bytes()
    status, output = run(board, "thermal", 2, **variables)
    assert status != 0
    assert words in " ".join(output.split())
    assert "Nothing was changed" in output
    assert board.read_bytes() == before


def test_missing_boot_partition_is_refused_where_a_fan_needs_it(board: Path) -> None:
    board.unlink()
    status, output = run(board, "thermal", 2, thermal_fan="gpio")
    assert status != 0
    assert "mount the boot partition" in output


@pytest.mark.parametrize(("seconds", "refused"), [(0, False), (14, False), (30, True)])
def test_watchdog_that_the_kernel_would_refuse_is_refused(board: Path, seconds: int, refused: bool) -> None:
    status, output = run(board, "power", 1, power_watchdog_seconds=seconds)
    assert (status != 0) == refused, output
    assert ("before Linux 6.8 (this is 6.6.51+rpt-rpi-v8)" in output) == refused


def test_upsmon_ends_the_machine_also_where_the_program_does_not_run() -> None:
    files = {entry["path"]: entry for entry in load("power", "vars/main.yml")["_power_nut_files"]}
    assert 'SHUTDOWNCMD "{{ _power_program }} down || systemctl poweroff"' in files["upsmon.conf"]["secret_content"]
    assert "LISTEN 127.0.0.1 3493" in files["upsd.conf"]["content"]
    assert all(entry["mode"] == "0640" and entry["group"] == "nut" for entry in files.values())


def test_clock_is_told_how_to_behave_before_it_is_installed() -> None:
    """Its package starts it at once. And in a container it would set the clock of the computer around it."""
    tasks = load("power", "tasks/clock.yml")
    names = [next(key for key in task if key in ("file_tree", "apt_packages")) for task in tasks[:2]]
    assert names == ["file_tree", "apt_packages"]
    image = plays.ROOT / "molecule/images/virtual-pi/rootfs/etc/systemd/system/chrony.service.d/10-container.conf"
    assert "[Unit]\nConditionVirtualization=!container\n" in image.read_text()
    assert "chrony" not in load("base", "defaults/main.yml")["base_packages"]
