"""`file_tree` writes everything or nothing, and tells no secret."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import plays
import pytest

CANARY = "line one of a secret\nand its second line 8d21f\n"
ME = {"owner": str(os.getuid()), "group": str(os.getgid())}


def run(root: Path, **options: Any) -> dict[str, Any]:
    """The module's result."""
    return plays.module("file_tree", root=str(root), **options)


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
        ({"path": "a/../../out"}, ["a/../../out", "stay below"]),
        ({"path": "a", "mode": "999"}, ["a", "999", "octal"]),
        # What an unquoted 0644 becomes in YAML.
        ({"path": "a", "mode": 420}, ["a", "420", "in quotes"]),
        ({"path": "a", "owner": "nobody-here"}, ["nobody-here", "user"]),
        ({"path": "link/a"}, ["link/a", "leads out"]),
        ({"path": "sibling/a"}, ["sibling/a", "leads out"]),
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
    (tmp_path / "root-of-another").mkdir()
    (root / "sibling").symlink_to(tmp_path / "root-of-another")
    before = sorted(str(path) for path in tmp_path.rglob("*"))
    result = run(root, files=[file("good"), {**file("x"), **entry}])
    assert result["failed"]
    for word in words:
        assert word in result["msg"]
    assert sorted(str(path) for path in tmp_path.rglob("*")) == before


def test_secret_that_everybody_could_read_is_refused(tmp_path: Path) -> None:
    entry = {"path": "a", "secret_content": CANARY, **ME}
    result = run(tmp_path, files=[entry])
    assert "a: mode 0644 shows a secret to everybody" in result["msg"]
    assert not (tmp_path / "a").exists()
    assert run(tmp_path, files=[{**entry, "mode": "0440"}])["changed"]


def test_path_listed_twice_is_refused(tmp_path: Path) -> None:
    assert "listed twice" in run(tmp_path, files=[file("a"), file("./a")])["msg"]


def test_whole_file_system_as_root_ends(tmp_path: Path) -> None:
    path = str(tmp_path / "deep/file").lstrip("/")
    assert run(Path("/"), files=[file(path)])["changed"]
    assert (tmp_path / "deep/file").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"directories": [{"path": "link", **ME}]}, ["link", "leads out"]),
        ({"directories": [{"path": "a", **ME}, {"path": "./a", **ME}]}, ["a", "listed twice"]),
        ({"purge": ["link"]}, ["link", "leads out"]),
    ],
)
def test_bad_folder_is_refused_and_nothing_is_touched(
    tmp_path: Path, options: dict[str, Any], words: list[str]
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir(mode=0o700)
    (outside / "kept").write_text("x\n")
    root = tmp_path / "root"
    root.mkdir()
    (root / "link").symlink_to(outside)
    result = run(root, files=[file("good")], **options)
    assert result["failed"]
    for word in words:
        assert word in result["msg"]
    assert (outside / "kept").exists()
    assert outside.stat().st_mode & 0o777 == 0o700
    assert not (root / "good").exists()


@pytest.mark.parametrize(("root", "folder"), [("/", "."), ("/", "etc"), ("/etc", ".")])
def test_folder_of_the_system_is_not_purged(root: str, folder: str) -> None:
    result = run(Path(root), purge=[folder], _ansible_check_mode=True)
    assert result["failed"]
    assert "belongs to the system" in result["msg"]


def test_purged_folder_loses_links_but_not_what_they_lead_to(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/kept").write_text("x\n")
    (tmp_path / "root").mkdir()
    (tmp_path / "root/link").symlink_to(tmp_path / "outside")
    assert run(tmp_path / "root", purge=["."])["removed"] == [str(tmp_path / "root/link")]
    assert (tmp_path / "outside/kept").exists()


def test_account_that_a_check_did_not_make_is_no_error(tmp_path: Path) -> None:
    files = [file("a", owner="not-made-yet")]
    assert run(tmp_path, files=files, _ansible_check_mode=True)["changed"]
    assert "not-made-yet" in run(tmp_path, files=files)["msg"]


def test_diff_shows_contents_and_rights_only_when_asked(tmp_path: Path) -> None:
    run(tmp_path, files=[file("a", "one\n"), file("b", mode="0600")])
    (tmp_path / "b").chmod(0o644)
    options: dict[str, Any] = {"files": [file("a", "two\n"), file("b", mode="0600")], "_ansible_check_mode": True}
    content, rights = run(tmp_path, **options)["diff"]
    assert (content["before"], content["after"]) == ("one\n", "two\n")
    assert (rights["before"][:9], rights["after"][:9]) == ("mode 0644", "mode 0600")
    assert "diff" not in run(tmp_path, **options, _ansible_diff=False)


def journal(folder: Path) -> dict[str, str]:
    """Environment in which modules log to the file `folder/journal`, as they do to systemd's journal."""
    package = folder / "fake/systemd"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "daemon.py").write_text("def booted():\n    return True\n")
    (package / "journal.py").write_text(
        "sendv = None\n\n\ndef send(**fields):\n"
        f"    with open({str(folder / 'journal')!r}, 'a') as log:\n        log.write(repr(fields) + '\\n')\n"
    )
    return {"PYTHONPATH": str(package.parent)}


def tree_task(folder: Path, variable: str) -> dict[str, Any]:
    """A task that writes an open file and three secret ones with the text in `variable`."""
    # Line breaks and quotes make a value look different in a log, where it is then not masked.
    secrets = [
        {"path": f"closed{number}", "secret_content": f"{{{{ {variable} }}}}{ending}", "mode": "0400", **ME}
        for number, ending in enumerate(["", "\n", "'\"\\"])
    ]
    return {"file_tree": {"root": str(folder), "files": [{"path": "open", "content": "{{ seen }}", **ME}, *secrets]}}


def test_no_secret_in_output_diff_or_journal(tmp_path: Path) -> None:
    values = {"canary": CANARY, "canary_changed": CANARY[::-1], "seen": "seen\n"}
    (tmp_path / "vars.json").write_text(json.dumps(values))
    # The stock module shows that what modules log is caught.
    control = {"command": "echo control-was-logged"}
    tasks = [tree_task(tmp_path / "tree", name) for name in ("canary", "canary_changed")]
    environment = journal(tmp_path)
    tasks = [{**task, "environment": environment} for task in (*tasks, control)]
    status, output = plays.play(tmp_path, tasks, "--diff", "-vvv", "-e", f"@{tmp_path / 'vars.json'}")
    assert status == 0, output
    assert (tmp_path / "tree/closed1").read_text() == CANARY[::-1] + "\n"
    assert "+seen" in output
    assert "+(secret content)" in output
    assert "-(secret content, old)" in output
    logged = (tmp_path / "journal").read_text()
    assert "control-was-logged" in logged
    for part in (CANARY + CANARY[::-1]).split("\n"):
        assert not part or part not in output
        assert not part or part not in logged


def test_command_before_comes_before_the_first_file_and_only_where_one_is_touched(tmp_path: Path) -> None:
    root, marks = tmp_path / "tree", str(tmp_path / "mark-")
    options: dict[str, Any] = {
        "files": [file("a", "new\n")],
        "before": f"cat {root}/a >> {tmp_path}/seen 2>&1; echo asked >> {tmp_path}/seen",
        "marks": marks,
    }
    root.mkdir()
    (root / "a").write_text("old\n")
    run(root, **options, _ansible_check_mode=True)
    assert not (tmp_path / "seen").exists()
    run(root, **options)
    run(root, **options)
    assert (tmp_path / "seen").read_text() == "old\nasked\n"


def test_nothing_is_touched_where_the_command_before_fails(tmp_path: Path) -> None:
    failed = run(
        tmp_path / "tree", files=[file("a")], before="echo not today; exit 3", apply="true", marks=str(tmp_path / "m-")
    )
    assert failed["failed"]
    assert "not today" in failed["msg"]
    assert not (tmp_path / "tree").exists()
    assert not list(tmp_path.glob("m-*"))
