"""What `make first-boot` writes and refuses. That cloud-init takes it, tests/services/test_cloud_init.py shows."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import first_boot
import plays
import pytest
import yaml
from declared import CannotRead
from first_boot import Machine

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIMwwgGl anna@home"
STATIC = {"address": "192.168.7.10/24", "gateway": "192.168.7.1", "name_servers": ["192.168.7.1", "9.9.9.9"]}
KNOWN: dict[str, Any] = {
    "ansible_host": "192.168.7.10",
    "ansible_user": "pi",
    "base_hostname": "shop-pi",
    "first_boot_keys": [KEY],
    "first_boot_network": {},
    "ssh_port_before": 22,
}
LINE = "console=serial0,115200 console=tty1 root=PARTUUID=4e639091-02 rootfstype=ext4 fsck.repair=yes rootwait"
WORDS = "cgroup_enable=memory cgroup_memory=1"


def machine(network: dict[str, Any] | None = None, keys: tuple[str, ...] = (KEY,)) -> Machine:
    return Machine("shop-pi", "shop-pi", "pi", "192.168.7.10", keys, network or {})


def boot_partition(folder: Path, line: str = LINE + "\n", config: str = "arm_64bit=1\n") -> Path:
    for name, text in (("cmdline.txt", line), ("config.txt", config), ("user-data", "#cloud-config\n")):
        (folder / name).write_text(text)
    return folder


# --- cloud-init's files -----------------------------------------------------------------------------------


def test_one_account_takes_these_keys_and_no_password() -> None:
    second = "sk-ssh-ed25519@openssh.com AAAAGnNr a key: with # everything\t'in it'"
    text = first_boot.user_data(machine(keys=(KEY, second)))
    assert text.startswith("#cloud-config\n")
    document = yaml.safe_load(text)
    (account,) = document["users"]
    assert (account["name"], account["lock_passwd"]) == ("pi", True)
    assert account["ssh_authorized_keys"] == [KEY, second]
    assert (document["ssh_pwauth"], document["disable_root"]) == (False, True)
    assert not {"passwd", "plain_text_passwd", "hashed_passwd"} & set(account)


def test_network_is_by_dhcp_or_as_it_is_named() -> None:
    (socket,) = yaml.safe_load(first_boot.network_config(machine()))["network"]["ethernets"].values()
    assert socket == {"match": {"name": "e*"}, "dhcp4": True}
    (socket,) = yaml.safe_load(first_boot.network_config(machine(STATIC)))["network"]["ethernets"].values()
    assert socket["addresses"] == ["192.168.7.10/24"]
    assert socket["routes"] == [{"to": "0.0.0.0/0", "via": "192.168.7.1"}]
    assert socket["nameservers"]["addresses"] == STATIC["name_servers"]
    six = {"address": "fd12::10/64", "gateway": "fd12::1", "name_servers": ["fd12::1"]}
    (socket,) = yaml.safe_load(first_boot.network_config(machine(six)))["network"]["ethernets"].values()
    assert socket["routes"] == [{"to": "::/0", "via": "fd12::1"}]


def test_other_files_are_another_machine_to_cloud_init() -> None:
    ids = {
        yaml.safe_load(first_boot.files(one, None)["meta-data"])["instance-id"]
        for one in (machine(), machine(), machine(STATIC))
    }
    assert len(ids) == 2


def run_on_machine(folder: Path) -> None:
    """What the first boot does to the kernel's line, in a folder instead of /boot."""
    script = first_boot.KERNEL_LINE.replace("/boot", str(folder)).replace(first_boot.MARK, str(folder / "mark"))
    subprocess.run(["sh", "-eu", "-c", script], check=True)


@pytest.mark.parametrize("place", ["firmware/current/cmdline.txt", "firmware/cmdline.txt", "cmdline.txt"])
def test_line_is_completed_on_the_machine_once_and_restarted_for_once(tmp_path: Path, place: str) -> None:
    line = tmp_path / place
    line.parent.mkdir(parents=True, exist_ok=True)
    line.write_text(LINE + "\n")
    run_on_machine(tmp_path)
    assert line.read_text() == f"{LINE} {WORDS}\n"
    assert (tmp_path / "mark").exists()
    (tmp_path / "mark").unlink()
    run_on_machine(tmp_path)
    assert line.read_text() == f"{LINE} {WORDS}\n"
    assert not (tmp_path / "mark").exists()


def test_machine_without_such_a_line_is_left_alone(tmp_path: Path) -> None:
    run_on_machine(tmp_path)
    assert not list(tmp_path.iterdir())


# --- the boot partition -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "merged"),
    [
        (LINE, f"{LINE} {WORDS}"),
        (f"{LINE} cgroup_disable=memory", f"{LINE} {WORDS}"),
        (f"{LINE} cgroup_enable=memory", f"{LINE} cgroup_enable=memory cgroup_memory=1"),
        (f"{LINE} {WORDS}", f"{LINE} {WORDS}"),
        (f"{LINE}\r\n\r", f"{LINE} {WORDS}"),
    ],
)
def test_kernel_line_gets_what_is_missing(tmp_path: Path, line: str, merged: str) -> None:
    found = first_boot.merged(boot_partition(tmp_path, line + "\n"))
    assert found["cmdline.txt"] == merged + "\n"


@pytest.mark.parametrize("line", ["", f"{LINE}\n{WORDS}\n", "console=tty1\n"])
def test_line_that_would_not_boot_is_refused(tmp_path: Path, line: str) -> None:
    with pytest.raises(CannotRead, match=r"cmdline\.txt: has to be one line with root="):
        first_boot.merged(boot_partition(tmp_path, line))


def test_line_of_the_system_that_is_booted_counts(tmp_path: Path) -> None:
    boot_partition(tmp_path, "root=old\n", "[all]\nos_prefix=current/\narm_64bit=1\n")
    (tmp_path / "current").mkdir()
    (tmp_path / "current/cmdline.txt").write_text("root=new\n")
    assert first_boot.merged(tmp_path)["current/cmdline.txt"] == f"root=new {WORDS}\n"
    assert "cmdline.txt" not in first_boot.merged(tmp_path)


def test_settings_of_the_firmware_are_kept_as_they_are() -> None:
    own = "# my own\ndtoverlay=gpio-fan\narm_64bit=1\n\n\n"
    assert first_boot.merged_config(own) == own


@pytest.mark.parametrize("text", ["dtparam=audio=on\n", "arm_64bit=0\n", "arm_64bit=1\n[pi4]\narm_64bit=0"])
def test_settings_are_completed_by_a_marked_block_once(text: str) -> None:
    once = first_boot.merged_config(text)
    assert once.startswith(text.rstrip() + "\n\n# pi-commerce: begin\n[all]\narm_64bit=1\n")
    assert first_boot.merged_config(once) == once


def test_folder_that_is_no_boot_partition_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CannotRead, match=r"has no config\.txt: BOOT is the folder"):
        first_boot.merged(tmp_path)
    (boot_partition(tmp_path) / "user-data").unlink()
    with pytest.raises(CannotRead, match=r"does not know cloud-init.*make bootstrap"):
        first_boot.merged(tmp_path)


# --- what is refused --------------------------------------------------------------------------------------


def test_good_inventory_has_no_problems() -> None:
    assert list(first_boot.problems(KNOWN)) == []
    assert list(first_boot.problems({**KNOWN, "first_boot_network": STATIC})) == []
    # A name says nothing about its address.
    assert list(first_boot.problems({**KNOWN, "ansible_host": "shop.local", "first_boot_network": STATIC})) == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"ansible_user": "root"}, "ansible_user: is 'root', must be a name of your own"),
        ({"ansible_user": "Anna Smith"}, "ansible_user: is 'Anna Smith'"),
        ({"ansible_user": ""}, "ansible_user: is ''"),
        ({"base_hostname": "shop_pi"}, "base_hostname: is 'shop_pi', must be a host name"),
        ({"first_boot_network": "dhcp"}, "first_boot_network: "),
        ({"first_boot_keys": None}, "first_boot_keys: "),
        ({"base_hostname": "shop_pi", "first_boot_keys": ["x"]}, "first_boot_keys: is ['x'], must be"),
        ({"first_boot_keys": ["~/.ssh/id_ed25519.pub"]}, "first_boot_keys: is"),
        ({"first_boot_network": {"address": "192.168.7.10"}}, "first_boot_network: is"),
        (
            {"first_boot_network": STATIC, "ansible_host": "192.168.7.11"},
            "its address is 192.168.7.10, but ansible_host is 192.168.7.11",
        ),
        ({"ssh_port_before": 2222}, "ssh_port_before: is 2222, and a fresh system listens on 22"),
    ],
)
def test_inventory_that_leads_nowhere_is_refused(changes: dict[str, Any], said: str) -> None:
    assert said in "\n".join(first_boot.problems({**KNOWN, **changes}))


def test_inventory_without_the_common_variables_is_refused() -> None:
    without = {name: value for name, value in KNOWN.items() if name != "ssh_port_before"}
    assert "ssh_port_before: missing required" in "\n".join(first_boot.problems(without))


def test_key_is_the_chosen_one_or_that_of_the_connection_or_ones_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(CannotRead, match=r"id_rsa\.pub: none is there; run ssh-keygen"):
        first_boot.public_keys([], "")
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh/id_rsa.pub").write_text("ssh-rsa AAAAB3Nz anna@old\n")
    (tmp_path / "shop.pub").write_text("ssh-ed25519 AAAAC3Nz shop\n")
    assert first_boot.public_keys([], "") == ("ssh-rsa AAAAB3Nz anna@old",)
    assert first_boot.public_keys([], "~/shop") == ("ssh-ed25519 AAAAC3Nz shop",)
    assert first_boot.public_keys([KEY], "~/shop") == (KEY,)
    with pytest.raises(CannotRead, match="nowhere"):
        first_boot.public_keys([], "~/nowhere")
    (tmp_path / "shop.pub").write_text("-----BEGIN OPENSSH\n")
    with pytest.raises(CannotRead, match="holds no public key"):
        first_boot.public_keys([], "~/shop")


def test_nothing_is_left_of_another_card(tmp_path: Path) -> None:
    folder = tmp_path / "first-boot/shop-pi"
    first_boot.write(folder, {"current/cmdline.txt": "root=old", first_boot.PAGE: "a"})
    first_boot.write(folder, {"user-data": "b", first_boot.PAGE: "b"})
    assert {path.name for path in folder.rglob("*")} == {"user-data", first_boot.PAGE}


def test_folder_with_something_else_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(CannotRead, match="holds other files"):
        first_boot.write(tmp_path, {first_boot.PAGE: "a"})
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]


def inventory(folder: Path, **variables: Any) -> str:
    """An inventory of one machine, with the variables that all machines have in common."""
    common = yaml.safe_load((plays.ROOT / "inventory/group_vars/all.yml").read_text())
    host = {**common, "ansible_host": "192.168.7.10", "ansible_user": "pi", "first_boot_keys": [KEY], **variables}
    path = folder / "hosts.yml"
    path.write_text(yaml.safe_dump({"pis": {"hosts": {"shop-pi": host}}}))
    return str(path)


def program(folder: Path, *arguments: str, host: str = "shop-pi", **variables: Any) -> tuple[int, str]:
    """The program itself: exit code and what it said."""
    environment = {name: value for name, value in os.environ.items() if name != "ANSIBLE_VAULT_PASSWORD_FILE"}
    command = [sys.executable, "ops/first_boot.py", inventory(folder, **variables), host]
    done = subprocess.run(
        [*command, "--to", str(folder / "out"), *arguments],
        cwd=plays.ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
        check=False,
    )
    return done.returncode, done.stdout


def test_whole_inventory_is_read_without_a_vault_password(tmp_path: Path) -> None:
    status, told = program(tmp_path, first_boot_network=STATIC)
    assert status == 0, told
    for said in ("ssh pi@192.168.7.10", WORDS, "BOOT_ORDER=0xf14", "192.168.7.10/24", "ssh-ed25519 anna@home"):
        assert said in told
    assert "AAAAC3" not in told
    assert (tmp_path / "out" / first_boot.PAGE).read_text().strip() == told.strip()
    written = {path.name: path.read_text() for path in (tmp_path / "out").iterdir() if path.name != first_boot.PAGE}
    assert written == first_boot.files(machine(STATIC), None)


def test_boot_partition_is_merged_beside_and_not_touched(tmp_path: Path) -> None:
    (tmp_path / "boot").mkdir()
    boot_partition(tmp_path / "boot")
    status, told = program(tmp_path, "--boot", str(tmp_path / "boot"))
    assert status == 0, told
    assert f"{tmp_path}/out/. {tmp_path}/boot/" in told
    assert (tmp_path / "out/cmdline.txt").read_text() == f"{LINE} {WORDS}\n"
    assert (tmp_path / "boot/cmdline.txt").read_text() == f"{LINE}\n"


@pytest.mark.parametrize(
    ("host", "variables", "said"),
    [
        ("cellar", {}, "HOST=cellar: is no machine of"),
        ("shop-pi", {"ansible_user": "root"}, "ansible_user: is 'root'"),
        ("shop-pi", {"first_boot_keys": "{{ nowhere }}"}, "nowhere"),
    ],
)
def test_refusal_has_written_nothing(tmp_path: Path, host: str, variables: dict[str, Any], said: str) -> None:
    status, told = program(tmp_path, host=host, **variables)
    assert status == 1, told
    assert told.startswith("error: ")
    assert said in told
    assert not (tmp_path / "out").exists()
