"""What writes files is killed before each single step of it: nothing is ever half, and the next run makes it good."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import file_tree
import plays
import pytest
from ansible.module_utils.testing import patch_module_args
from ansible.parsing.vault import VaultLib, VaultSecret

sys.path.insert(0, str(plays.ROOT / "plugins/action"))

import vault_secrets

STEPS = {"os.mkdir", "os.rename", "os.chmod", "os.chown", "os.remove", "os.rmdir", "subprocess.Popen"}
KEY = ("default", VaultSecret(b"password"))
ME = {"owner": str(os.getuid()), "group": str(os.getgid())}
NEVER = 1000


def run(step: int, work: Callable[[], object]) -> int | None:
    """Exit status of the work in a process of its own, killed before its n-th change of the file system or program."""

    def killed() -> None:
        left = [step]

        def hook(name: str, arguments: tuple[Any, ...]) -> None:
            writes = name == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
            if name in STEPS or writes:
                left[0] -= 1
                if not left[0]:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(hook)
        work()

    process = multiprocessing.get_context("fork").Process(target=killed)
    process.start()
    process.join()
    return process.exitcode


def plant(folder: Path) -> None:
    """A tree that has to change in every way there is."""
    (folder / "tree/swept").mkdir(parents=True)
    (folder / "tree/changed").write_text("old\n")
    (folder / "tree/swept/gone").write_text("old\n")
    (folder / "tree/closed").write_text("same\n")
    (folder / "tree/closed").chmod(0o644)


def request(folder: Path) -> dict[str, Any]:
    """What the tree shall be; to put it into force is to copy a file of it."""
    return {
        "root": str(folder / "tree"),
        "files": [
            {"path": "changed", "content": "new\n", **ME},
            {"path": "closed", "content": "same\n", "mode": "0600", **ME},
            {"path": "made/deeper/file", "content": "new\n", **ME},
        ],
        "directories": [{"path": "made", "mode": "0750", **ME}],
        "purge": ["swept"],
        "apply": f"cp {folder}/tree/changed {folder}/in-force",
        "marks": str(folder / "mark-"),
    }


def state(folder: Path) -> dict[str, str]:
    """Every path with its mode and content."""
    return {
        str(path.relative_to(folder)): f"{path.stat().st_mode:o} {path.read_text() if path.is_file() else ''}"
        for path in folder.rglob("*")
    }


def tree(folder: Path, step: int = NEVER) -> dict[str, Any] | None:
    """Result of `file_tree`; None when it was killed."""
    answer = folder.with_suffix(".json")

    def work() -> None:
        with answer.open("w") as sys.stdout, patch_module_args(request(folder)):
            file_tree.main()

    return None if run(step, work) == -signal.SIGKILL else dict(json.loads(answer.read_text()))


def test_file_tree_killed_at_any_step_is_made_good_by_the_next_run(tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    plant(whole)
    assert tree(whole)
    wanted = state(whole)
    assert wanted["in-force"].endswith("new\n")
    for step in range(1, NEVER):
        folder = tmp_path / str(step)
        plant(folder)
        if tree(folder, step) is not None:
            break
        settled = {path: text for path, text in state(folder).items() if "/." not in path and "mark-" not in path}
        assert all(text.endswith(("old\n", "new\n", "same\n", " ")) for text in settled.values()), settled
        mended = tree(folder)
        assert mended is not None
        assert mended["changed"], f"killed at step {step}, the next run has nothing to do"
        assert state(folder) == wanted, f"killed at step {step}"
        again = tree(folder)
        assert again is not None
        assert not again["changed"], f"killed at step {step}, never comes to rest"
    # Folders, files, rights, the purge, the mark and the command: each has at least one.
    assert step > 12


def test_file_tree_command_that_fails_is_tried_again(tmp_path: Path) -> None:
    plant(tmp_path)
    (tmp_path / "in-force").mkdir()
    (tmp_path / "in-force/changed").mkdir()
    failed = tree(tmp_path)
    assert failed is not None
    for word in ("cp ", "not in force", "run again"):
        assert word in failed["msg"]
    (tmp_path / "in-force/changed").rmdir()
    (tmp_path / "in-force").rmdir()
    mended = tree(tmp_path)
    assert mended is not None
    assert (mended["written"], mended["applied"], mended["changed"]) == ([], True, True)
    assert (tmp_path / "in-force").read_text() == "new\n"


@pytest.mark.parametrize("before", [{}, {"one": "old-secret-value-123456"}])
def test_vault_file_killed_at_any_step_holds_the_old_or_the_new(tmp_path: Path, before: dict[str, str]) -> None:
    vault = VaultLib([KEY])
    after = {**before, "two": "new-secret-value-123456"}

    def opened(path: Path) -> dict[str, str]:
        return vault_secrets.read(vault, path)[0]

    def work() -> None:
        with vault_secrets.locked(path.parent):
            vault_secrets.sweep(path)
            vault_secrets.write(vault, path, after, KEY)

    killed = 0
    for step in range(1, NEVER):
        path = tmp_path / str(step) / "secrets.vault.yml"
        path.parent.mkdir()
        if before:
            vault_secrets.write(vault, path, before, KEY)
        if run(step, work) == 0:
            break
        killed += 1
        assert opened(path) in (before, after), f"killed at step {step}"
        assert run(NEVER, work) == 0
        assert opened(path) == after
        assert [entry.name for entry in path.parent.iterdir()] == [path.name], f"killed at step {step}"
    assert killed >= 2
