"""`file_tree` writes everything or nothing, and tells no secret."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import plays
import pytest

CANARY = "line one of a secret\nand its second line 8d21f\n"
ME = {"owner": str(os.getuid()), "group": str(os.getgid())}


def run(root: Path, **options: Any) -> dict[str, Any]:
    """The module's result, run as Ansible runs it: a process of its own with its arguments on standard input."""
    arguments = {"root": str(root), **options, "_ansible_diff": True}
    script = (
        "import sys; sys.path.insert(0, sys.argv[1]); import file_tree; "
        "from ansible.module_utils.testing import patch_module_args; import json\n"
        "with patch_module_args(json.load(sys.stdin)): file_tree.main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(plays.ROOT / "plugins/modules")],
        input=json.dumps(arguments),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def file(path: str, content: str = "x\n", **more: Any) -> dict[str, Any]:
    """One entry of `files`, owned by whoever runs the test."""
    return {"path": path, "content": content, **ME, **more}


def test_writes_once_and_then_changes_nothing(tmp_path: Path) -> None:
    files = [file("a.conf", "one\n"), file("deep/er/b.sh", "two\n", mode="0750")]
    first = run(tmp_path, files=files)
    assert first["changed"]
    assert (tmp_path / "a.conf").read_text() == "one\n"
    assert (tmp_path / "deep/er/b.sh").stat().st_mode & 0o7777 == 0o750
    inode = (tmp_path / "a.conf").stat().st_ino
    second = run(tmp_path, files=files)
    assert not second["changed"]
    assert (tmp_path / "a.conf").stat().st_ino == inode


def test_mode_drift_is_set_right(tmp_path: Path) -> None:
    run(tmp_path, files=[file("a", mode="0600")])
    (tmp_path / "a").chmod(0o644)
    again = run(tmp_path, files=[file("a", mode="0600")])
    assert again["adjusted"] == [str(tmp_path / "a")]
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o600


def test_only_purged_folders_lose_what_is_not_listed(tmp_path: Path) -> None:
    for path in ("kept/other", "swept/old", "swept/listed"):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text("x\n")
    result = run(tmp_path, files=[file("swept/listed")], purge=["swept"])
    assert result["removed"] == [str(tmp_path / "swept/old")]
    assert (tmp_path / "kept/other").exists()
    assert (tmp_path / "swept/listed").exists()


def test_check_mode_predicts_and_writes_nothing(tmp_path: Path) -> None:
    (tmp_path / "old").write_text("x\n")
    options: dict[str, Any] = {"files": [file("new/file")], "purge": ["."]}
    predicted = run(tmp_path, **options, _ansible_check_mode=True)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["old"]
    done = run(tmp_path, **options)
    assert {key: predicted[key] for key in ("changed", "written", "removed")} == {
        key: done[key] for key in ("changed", "written", "removed")
    }


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"path": "../out"}, ["../out", "stay below"]),
        ({"path": "/etc/out"}, ["/etc/out", "relative"]),
        ({"path": "a", "mode": "999"}, ["a", "999", "octal"]),
        ({"path": "a", "owner": "nobody-here"}, ["nobody-here", "user"]),
        ({"path": "link/a"}, ["link/a", "leads out"]),
        ({"path": "folder"}, ["folder", "not a plain file"]),
        ({"path": "good/below"}, ["good", "has to be a folder"]),
    ],
)
def test_bad_entry_is_refused_before_anything_is_written(
    tmp_path: Path, entry: dict[str, Any], words: list[str]
) -> None:
    root = tmp_path / "root"
    (root / "folder").mkdir(parents=True)
    (root / "link").symlink_to(tmp_path)
    before = sorted(str(path) for path in tmp_path.rglob("*"))
    result = run(root, files=[file("good"), {**file("x"), **entry}])
    assert result["failed"]
    for word in words:
        assert word in result["msg"]
    assert sorted(str(path) for path in tmp_path.rglob("*")) == before


def test_path_listed_twice_is_refused(tmp_path: Path) -> None:
    assert "listed twice" in run(tmp_path, files=[file("a"), file("./a")])["msg"]


def test_whole_file_system_as_root_ends(tmp_path: Path) -> None:
    path = str(tmp_path / "deep/file").lstrip("/")
    assert run(Path("/"), files=[file(path)])["changed"]
    assert (tmp_path / "deep/file").exists()


def test_no_secret_in_output_or_log(tmp_path: Path) -> None:
    logged = tmp_path / "syslog"
    task = {
        "file_tree": {
            "root": str(tmp_path / "tree"),
            "files": [
                {"path": "open", "content": "seen\n", **ME},
                {"path": "closed", "secret_content": CANARY, "mode": "0400", **ME},
            ],
        }
    }
    status, output = plays.play(tmp_path, [task], "--diff", "-vvv")
    assert status == 0, output
    assert (tmp_path / "tree/closed").read_text() == CANARY
    assert "seen" in output
    assert "(secret content)" in output
    for part in CANARY.splitlines():
        assert part not in output
    # What the module would send to the target's log.
    script = (
        "import sys; sys.path.insert(0, sys.argv[1]); import syslog\n"
        f"syslog.syslog = lambda *words: open({str(logged)!r}, 'a').write(repr(words))\n"
        "import file_tree; from ansible.module_utils.testing import patch_module_args; import json\n"
        "with patch_module_args(json.load(sys.stdin)): file_tree.main()"
    )
    arguments = {"root": str(tmp_path / "tree2"), "files": [{"path": "closed", "secret_content": CANARY, **ME}]}
    subprocess.run(
        [sys.executable, "-c", script, str(plays.ROOT / "plugins/modules")],
        input=json.dumps(arguments),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert (tmp_path / "tree2/closed").exists()
    assert "second line" not in (logged.read_text() if logged.exists() else "")
