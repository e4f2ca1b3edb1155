"""What goes into a rescue kit, and what is refused; that age opens it, test_age_file.py of the services shows."""

from __future__ import annotations

import datetime
import io
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest
import rescue_kit
from declared import ROOT, CannotRead

FACTS: dict[str, Any] = {
    "made": datetime.datetime(2030, 1, 2, tzinfo=datetime.UTC),
    "inventory": "inventory/production",
    "hosts": {
        "shop-pi": {
            "ansible_host": "192.0.2.10",
            "site_address": "shop.example",
            "backup_repositories": {"near": {"url": "/backups"}, "far": {"url": "sftp:nas:/pi"}},
            "vault_path": "inventory/production/shop-pi.vault.yml",
        }
    },
    "public_key": "ssh-ed25519 AAAA rescue-kit",
    "environment": {"PI_STATE": "$PWD/state"},
    "ssh_key": rescue_kit.SSH_KEY,
    "vault_password": rescue_kit.VAULT_PASSWORD,
}


def test_project_is_whole_and_has_nothing_that_git_leaves_out() -> None:
    found = rescue_kit.project()
    assert {"rebuild.yml", "requirements.txt", "files/backup/pi_backup/rebuild.py", "ops/rescue_kit.py"} <= set(found)
    assert not any(path.startswith((".venv", ".virtual-pi", "rescue/")) or "vault.yml" in path for path in found)


def test_only_what_has_its_place_below_the_project_can_go_along(tmp_path: Path) -> None:
    assert rescue_kit.below(str(ROOT / "inventory/../inventory/production")) == "inventory/production"
    with pytest.raises(CannotRead, match="lies outside"):
        rescue_kit.below(str(tmp_path / "secrets.vault.yml"))


def test_kit_keeps_modes_and_links_in_one_folder() -> None:
    kit = rescue_kit.Kit({"a/run.sh": (b"x", 0o755), "keys/ssh": (b"y", 0o600)}, {"a/link": "run.sh"}, FACTS)
    with tarfile.open(fileobj=io.BytesIO(kit.packed("kit"))) as archive:
        entries = {entry.name: entry for entry in archive}
    assert {name: entry.mode & 0o777 for name, entry in entries.items() if entry.isfile()} == {
        "kit/a/run.sh": 0o755,
        "kit/keys/ssh": 0o600,
    }
    assert entries["kit/a/link"].linkname == "run.sh"


def test_page_says_where_what_is_and_what_to_type() -> None:
    page = rescue_kit.rendered("page.md.j2", FACTS, "rescue-kit-2030-01-02")
    for words in (
        "    shop-pi: 192.0.2.10",
        "    age --decrypt rescue-kit-2030-01-02.tar.gz.age | tar -xz",
        "    ssh-ed25519 AAAA rescue-kit",
        "| shop-pi | near | /backups | yes |",
        "| shop-pi | far | sftp:nas:/pi | no |",
        "https://shop.example/",
    ):
        assert words in page, words


def test_script_is_shell_and_runs_the_rebuild_with_the_kits_own_keys() -> None:
    script = rescue_kit.rendered("rescue.sh.j2", FACTS, "kit")
    done = subprocess.run(["bash", "-n"], input=script, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert 'export PI_STATE="$PWD/state"' in script
    assert script.rstrip().endswith(
        '.venv/bin/ansible-playbook -i inventory/production --private-key keys/ssh rebuild.yml "$@"'
    )
