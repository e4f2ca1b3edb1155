"""What rebuild.yml lets pass where site.yml would not, and what it refuses, played without a machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import plays
import pytest
import yaml

PASSWORD = "correct horse battery staple"
BUCKET = {"url": "s3:https://s3.test/shop", "secrets": {"AWS_SECRET_ACCESS_KEY": "bucket_key"}}


def preflight(folder: Path, **more: Any) -> tuple[int, str]:
    """The preflight's look at a vault file that is not there, for a shop with a bucket and somebody to tell."""
    variables = {
        "secrets_file": str(folder / "secrets.vault.yml"),
        "catalog_data": {"secret_names": ["one"]},
        "backup_repositories": {"far": BUCKET},
        "backup_prune_places": {},
        "notify_targets": {"phone": {"url_secret": "notify_phone_url"}},
        "ddns_provider": "",
        "services_enabled": ["webhook_handler"],
        "webhook_handler_endpoints": {"custom": {}},
        "webhook_handler_consumers": {},
        "posting_queue_accounts": {},
        "rate_limiter_callers": ["owner"],
        **more,
    }
    look = {"ansible.builtin.include_role": {"name": "secrets", "tasks_from": "open"}, "vars": variables}
    judge = {
        "ansible.builtin.assert": {
            "that": "__secrets_opened.secrets is defined",
            "fail_msg": "{{ __secrets_opened.msg | default('') }}",
        }
    }
    return plays.play(folder, [look, judge], password=PASSWORD)


def test_vault_file_that_is_yet_to_come_may_lack_what_only_others_can_give(tmp_path: Path) -> None:
    status, output = preflight(tmp_path)
    assert status != 0
    assert "lacks bucket_key, notify_phone_url, which cannot be made here" in output
    status, output = preflight(tmp_path, secrets_to_come=True)
    assert status == 0, output
    assert not (tmp_path / "secrets.vault.yml").exists()


def named(tasks: list[dict[str, Any]], name: str) -> dict[str, Any]:
    """The task of this name, however deep in blocks."""
    for task in tasks:
        if task.get("name") == name:
            return task
        for part in ("block", "rescue"):
            try:
                return named(task.get(part, []), name)
            except LookupError:
                continue
    raise LookupError(name)


@pytest.mark.parametrize(("version", "refused"), [("0.12.1", True), ("0.14.0", False), ("0.18.0", False)])
def test_restic_that_cannot_read_the_repository_is_refused(tmp_path: Path, version: str, refused: bool) -> None:
    [play] = yaml.safe_load((plays.ROOT / "playbooks/rebuild_prepare.yml").read_text())
    task = named(play["tasks"], "Refuse one that cannot read what was saved")
    said = {"rebuild_own": {"stdout": f"restic {version} compiled with go1.18.1 on linux/arm64"}}
    status, output = plays.play(tmp_path, [task], "--extra-vars", json.dumps(said))
    assert (status != 0) == refused, output
    assert (f"restic {version} of this system is too old" in output) == refused


def look(folder: Path, playbook: str, mark: str = "", volume: str = "") -> tuple[int, str]:
    """What the first play of rebuild.yml, or the one that has the disk, makes of a mark and a volume."""
    [play] = yaml.safe_load((plays.ROOT / "playbooks" / playbook).read_text())
    tasks = yaml.safe_load((plays.ROOT / "playbooks/tasks/rebuild_look.yml").read_text())
    (folder / "mark").write_text(mark)
    (folder / "volumes" / volume).mkdir(parents=True, exist_ok=True)
    given = {
        **play["vars"],
        "rebuild_mark": str(folder / "mark"),
        "rebuild_folder": str(folder),
        "rebuild_volumes": str(folder / "volumes"),
        "storage_disk": "/dev/disk/by-id/usb-Maker_Disk_1-0:0",
    }
    told = {"ansible.builtin.debug": {"msg": "{{ rebuild_state.keys() | sort | join(' ') }}"}}
    return plays.play(folder, [{**task, "vars": given} for task in [*tasks, told]])


@pytest.mark.parametrize("playbook", ["rebuild_begin.yml", "rebuild_disk.yml"])
def test_machine_without_data_and_one_that_was_cut_off_are_rebuilt(tmp_path: Path, playbook: str) -> None:
    for mark, known in (("", "begun"), ('{"begun": 1, "restored": {}}', "begun restored")):
        status, output = look(tmp_path, playbook, mark)
        assert status == 0, output
        assert f"msg: {known}\n" in output.replace('"', "")


def test_disk_with_a_shop_on_it_is_left_alone(tmp_path: Path) -> None:
    status, output = look(tmp_path, "rebuild_disk.yml", volume="pi-commerce_postgres_data")
    assert status != 0
    for word in ("1-0:0 holds data already (pi-commerce_postgres_data)", "nothing of it was changed", "site.yml"):
        assert word in " ".join(output.split()), output


@pytest.mark.parametrize(
    ("playbook", "words"),
    [
        ("rebuild_begin.yml", ("localhost was rebuilt before", "restore.yml")),
        ("rebuild_disk.yml", ("/dev/disk/by-id/usb-Maker_Disk_1-0:0 was rebuilt before", "vgremove", "site.yml")),
    ],
)
def test_what_was_rebuilt_is_refused_with_what_to_do_instead(
    tmp_path: Path, playbook: str, words: tuple[str, ...]
) -> None:
    status, output = look(tmp_path, playbook, '{"begun": 1, "finished": 2}')
    assert status != 0
    for word in words:
        assert word in " ".join(output.split()), output


def test_disk_that_has_outlived_its_machine_is_looked_at_before_anything_is_fetched_or_written() -> None:
    """What is on it is newer than any copy. It can be seen once it is mounted, and its mark must not be overwritten."""
    names = [
        entry["ansible.builtin.import_playbook"] for entry in yaml.safe_load((plays.ROOT / "rebuild.yml").read_text())
    ]
    order = [f"playbooks/{name}.yml" for name in ("host", "rebuild_disk", "rebuild_prepare", "rebuild_data")]
    assert [name for name in names if name in order] == order


def test_rebuilt_machine_gets_all_that_a_new_one_gets() -> None:
    """Whatever the site consists of is part of the rebuild, in the same order."""

    def imports_of(name: str) -> list[str]:
        return [
            entry["ansible.builtin.import_playbook"] for entry in yaml.safe_load((plays.ROOT / name).read_text("utf-8"))
        ]

    site, rebuild = imports_of("site.yml"), imports_of("rebuild.yml")
    assert [name for name in rebuild if name in site] == site
