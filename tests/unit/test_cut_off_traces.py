"""What a run that was cut off has left is told from what is always there."""

from __future__ import annotations

import getpass
import importlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import ansible.module_utils
import cut_off
import plays
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


@pytest.fixture
def unpacked() -> Iterator[Path]:
    """Where Ansible unpacks a module that is not piped to Python."""
    folder = Path.home() / ".ansible/tmp"
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="ansible-tmp-", dir=folder) as name:
        yield Path(name)


def test_folder_of_the_module_that_asks_is_its_own_and_another_one_is_not(unpacked: Path) -> None:
    module = unpacked / "AnsiballZ_module.py"
    module.write_text("import cut_off\nprint(*cut_off.unpacked_modules(), sep='\\n')\n")
    environment = {
        **os.environ,
        "PYTHONPATH": str(plays.ROOT / "plugins/module_utils"),
        "SUDO_USER": getpass.getuser(),
    }

    def found(*command: str) -> list[str]:
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
        return done.stdout.splitlines()

    assert str(unpacked) not in found(sys.executable, str(module))
    assert str(unpacked) in found(sys.executable, "-c", module.read_text())


class Ended(Exception):
    """The module has answered."""


class Stub:
    """As much of AnsibleModule as the module asks for."""

    check_mode = False
    params: ClassVar = {"wait_seconds": 1}

    def __init__(self, **_: object) -> None:
        """Takes what the other takes."""
        self.commands: list[list[str]] = []

    def run_command(self, command: list[str], **_: object) -> tuple[int, str, str]:
        """Notes it; of two packages one was cut off while it was unpacked."""
        self.commands.append(command)
        return 0, "cron ok\ncontainerd reinstreq\n" if command[0] == "dpkg-query" else "", ""

    def exit_json(self, **_: object) -> None:
        """Ends it."""
        raise Ended


@pytest.fixture
def leftovers(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module, which finds ours beside Ansible's."""
    monkeypatch.setitem(sys.modules, "ansible.module_utils.cut_off", cut_off)
    monkeypatch.setattr(ansible.module_utils, "cut_off", cut_off, raising=False)
    return importlib.import_module("leftovers")


def test_package_whose_files_may_not_be_whole_is_unpacked_once_more(leftovers: Any) -> None:
    stub = Stub()
    leftovers.complete_packages(stub)
    assert stub.commands[0][:1] == ["dpkg"]
    assert stub.commands[-1][0] == "apt-get"
    assert stub.commands[-1][-3:] == ["install", "--reinstall", "containerd"]


def test_module_of_a_run_that_begins_meanwhile_is_left_alone(
    leftovers: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Completing packages takes minutes; the controller may be gone and back by then."""
    old, new = tmp_path / "ansible_old_payload_x", tmp_path / "ansible_new_payload_y"
    old.mkdir()
    monkeypatch.setattr(leftovers, "AnsibleModule", Stub)
    monkeypatch.setattr(leftovers, "complete_packages", lambda _: new.mkdir())
    monkeypatch.setattr(cut_off, "strangers", dict)
    monkeypatch.setattr(cut_off, "packages_are_half_installed", lambda: True)
    monkeypatch.setattr(cut_off, "unpacked_modules", lambda: sorted(tmp_path.iterdir()))
    with pytest.raises(Ended):
        leftovers.main()
    assert list(tmp_path.iterdir()) == [new]
