"""What QEMU and the virtual machine are told, without starting either."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from pathlib import Path

import images
import pytest
import virtual_pi
import vm
from virtual_pi import Settings

ROOT = Path(__file__).resolve().parents[2]


def settings(tmp_path: Path, arch: str = "amd64") -> Settings:
    return Settings(tmp_path / "state", "unit", "192.0.2", "trixie", arch, "4g")


def option(command: list[str], name: str) -> str:
    """The value after an option that stands in a command line once."""
    assert command.count(name) == 1, command
    return command[command.index(name) + 1]


@pytest.mark.parametrize(
    ("arch", "kvm", "program", "accelerator", "cpu"),
    [
        ("amd64", True, "qemu-system-x86_64", "kvm", "host"),
        ("amd64", False, "qemu-system-x86_64", vm.EMULATION, vm.BOARDS["amd64"].emulated_cpu),
        ("arm64", True, "qemu-system-aarch64", "kvm", "host"),
        ("arm64", False, "qemu-system-aarch64", vm.EMULATION, vm.BOARDS["arm64"].emulated_cpu),
    ],
)
def test_machine_is_of_the_architecture_asked_for(
    tmp_path: Path, arch: str, kvm: bool, program: str, accelerator: str, cpu: str
) -> None:
    command = vm.machine_command(settings(tmp_path, arch), cpus=3, kvm=kvm)
    assert command[0] == program
    assert option(command, "-accel") == accelerator
    assert option(command, "-cpu") == cpu
    assert option(command, "-smp") == "3"
    assert option(command, "-m") == "4G"


def test_every_architecture_of_the_images_has_a_board_and_only_the_emulated_pi_a_model() -> None:
    assert set(vm.BOARDS) == set(images.MACHINES)
    assert {arch for arch, board in vm.BOARDS.items() if board.model.startswith("Raspberry Pi 4")} == {"arm64"}


def test_the_disk_in_the_cache_is_never_written(tmp_path: Path) -> None:
    drives = [word for word in vm.machine_command(settings(tmp_path), 2, kvm=False) if word.startswith("file=")]
    assert drives
    assert all(drive.startswith("file=/machine/") and "format=qcow2" in drive for drive in drives)


def test_machine_has_the_address_of_the_pi_from_its_first_moment(tmp_path: Path) -> None:
    line = vm.kernel_line(vm.BOARDS["arm64"], settings(tmp_path, "arm64"))
    assert "ip=192.0.2.10::192.0.2.1:255.255.255.0::eth0:none" in line.split()
    assert "console=ttyAMA0" in line.split()


def test_only_a_kernel_that_looked_for_its_disk_has_run() -> None:
    assert vm.kernel_ran("... Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)")
    assert not vm.kernel_ran("qemu-system-x86_64: error: failed to set MSR 0x10a to 0xc000069")
    assert not vm.kernel_ran("KVM internal error. Suberror: 1\nemulation failure")


def test_probe_starts_the_same_processor_and_ends_by_itself() -> None:
    command = vm.probe_command("amd64")
    assert command[0] == "timeout"
    assert option(command, "-accel") == "kvm"
    assert option(command, "-cpu") == "host"
    assert "-no-reboot" in command


def test_machine_has_its_own_host_key_and_knows_its_owner_once_and_for_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolver = tmp_path / "resolv.conf"
    resolver.write_text("nameserver 192.0.2.53\n")
    monkeypatch.setattr(virtual_pi, "upstream_resolvers", lambda: resolver)
    pi = settings(tmp_path)
    virtual_pi.prepare_state(pi)
    vm.prepare_first_boot(pi)
    conf = pi.state / "first-boot.conf"
    assert conf.stat().st_mode & 0o777 == 0o600
    entries = {fields[1]: fields for fields in (line.split() for line in conf.read_text().splitlines())}
    # Plain `f` writes a file that is missing and never one that is there.
    assert {fields[0] for fields in entries.values()} == {"f~"}
    content = {path: base64.b64decode(fields[6]).decode() for path, fields in entries.items()}
    assert content["/home/pi/.ssh/authorized_keys"] == (pi.state / "id_ed25519.pub").read_text()
    assert entries["/home/pi/.ssh/authorized_keys"][2:5] == ["0600", "pi", "pi"]
    assert "192.0.2.5 registry.test" in content["/etc/hosts"].splitlines()
    assert content["/etc/resolv.conf"] == "nameserver 192.0.2.53\n"
    kind, key, *_ = content["/etc/ssh/ssh_host_ed25519_key.pub"].split()
    assert (pi.state / "known_hosts").read_text() == f"192.0.2.10 {kind} {key}\n"
    # A boot line that was changed stays, and so do the keys.
    line = pi.state / "cmdline.txt"
    line.write_text(line.read_text().strip() + " cgroup_disable=memory\n")
    before = {path.name: path.read_text() for path in pi.state.iterdir()}
    virtual_pi.prepare_state(pi)
    vm.prepare_first_boot(pi)
    assert {path.name: path.read_text() for path in pi.state.iterdir()} == before


@pytest.mark.parametrize(
    ("kind", "arch", "script", "playbook", "built"),
    [
        ("container", "amd64", "virtual_pi.py up", "site.yml", {"n8n", "virtual-pi"}),
        ("container", "arm64", "virtual_pi.py up", "playbooks/preflight.yml", {"virtual-pi"}),
        ("vm", "amd64", "vm.py up", "site.yml", {"n8n", "vm"}),
        ("vm", "arm64", "vm.py up", "site.yml", {"n8n", "vm"}),
    ],
)
def test_make_up_takes_the_kind_of_machine_asked_for(
    kind: str, arch: str, script: str, playbook: str, built: set[str]
) -> None:
    printed = dry_run("up", f"PI_KIND={kind}", f"ARCH={arch}", "HOST_ARCH=amd64")
    assert f"molecule/shared/{script}" in printed
    assert any(line.endswith(f" {playbook}") for line in printed.splitlines())
    images_built = next(line for line in printed.splitlines() if f"--arch {arch}" in line).split()
    assert {"n8n", "vm", "virtual-pi"} & set(images_built) == built


def test_make_refuses_another_kind() -> None:
    assert 'PI_KIND is "board": set it to container or vm' in dry_run("up", "PI_KIND=board", status=2)


def dry_run(*words: str, status: int = 0) -> str:
    """What make would run."""
    command = ["make", "--dry-run", "--old-file=.venv/.stamp", *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == status, done.stderr
    return done.stdout + done.stderr


def test_both_virtual_inventories_differ_only_in_what_their_kind_of_machine_needs() -> None:
    def variables(name: str) -> dict[str, object]:
        command = [f"{Path(sys.executable).parent}/ansible-inventory", "-i", f"inventory/{name}", "--host", "shop-pi"]
        printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        shown: dict[str, object] = json.loads(printed.stdout)
        return shown

    container, machine = variables("virtual"), variables("vm")
    different = {key for key in container.keys() | machine.keys() if container.get(key) != machine.get(key)}
    assert different == {
        *("base_kernel_modules", "base_sysctl", "base_sysctl_where_known", "hardware_root"),
        *("n8n_start_seconds", "probe_seconds", "stack_wait_seconds", "updates_healthy_minutes"),
        *("guard_seconds", "power_watchdog", "power_watchdog_seconds"),
    }
    # A machine gets all settings of the role.
    assert not {"base_kernel_modules", "base_sysctl", "base_sysctl_where_known"} & machine.keys()


def test_what_runs_beside_a_machine_is_built_for_this_computer() -> None:
    planned = subprocess.run(
        ["make", "--dry-run", "images", "PI_KIND=vm", "ARCH=arm64"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    own, of_machine = [line.partition(" build ")[2].split() for line in planned.splitlines() if " build " in line]
    assert {"registry", "rest-server", "backup-host", "notify-host", "qemu"} <= set(own)
    assert "--arch" not in own
    assert of_machine[-2:] == ["--arch", "arm64"]
