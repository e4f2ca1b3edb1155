"""The shop saved as cron does it, and brought back."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from testinfra.host import Host

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "plugins/module_utils"))
import age_keys

PSQL = "docker exec -i pi-commerce-postgres-1 psql -U postgres -XAtq -v ON_ERROR_STOP=1"
LIBRARY = "/usr/local/lib/pi-commerce"


@pytest.fixture(scope="module")
def folder(variables: dict[str, Any]) -> str:
    """Where the program keeps its state."""
    return str(variables["backup_folder"])


@pytest.fixture(scope="module")
def near(variables: dict[str, Any]) -> str:
    """The repository on the machine itself."""
    return str(variables["backup_repositories"]["near"]["url"])


def cron(host: Host, job: str) -> list[str]:
    """The fields of a job's line, and how cron runs it."""
    lines = host.file("/etc/cron.d/pi-commerce-backup").content_string.splitlines()
    [path] = [line for line in lines if line.startswith("PATH=")]
    [line] = [line for line in lines if line.endswith(f"pi-commerce-backup {job}")]
    *times, user, command = line.split(maxsplit=6)
    return [*times, f"runuser -u {user} -- env -i {path} {command}"]


@pytest.fixture(scope="module")
def saved(host: Host) -> str:
    """Both jobs have run, and one more ship with a row that is lost afterwards; what status says."""
    host.check_output(cron(host, "nightly")[-1])
    host.check_output(
        f"{PSQL} -d n8n -c %s", "DROP TABLE IF EXISTS molecule; CREATE TABLE molecule AS SELECT 'kept' AS w"
    )
    host.check_output(cron(host, "ship")[-1])
    host.check_output(f"{PSQL} -d n8n -c 'DROP TABLE molecule'")
    return host.check_output("pi-commerce-backup status")


def test_jobs_run_when_they_should(host: Host, variables: dict[str, Any]) -> None:
    nightly, ship = cron(host, "nightly"), cron(host, "ship")
    assert nightly[:5] == [str(variables["backup_minute"]), str(variables["backup_hour"]), *"***"]
    assert ship[:5] == [f"*/{variables['backup_ship_minutes']}", *"****"]


def test_every_store_can_be_restored(saved: str, facts: dict[str, Any]) -> None:
    stores = [store for service in facts["catalog_data"]["backup_services"] for store in service["stores"]]
    assert len(stores) == 3
    for store in stores:
        assert re.search(rf"^near +{store['volume']} +\d+ s old$", saved, re.MULTILINE), saved


def test_service_is_brought_back(host: Host, saved: str) -> None:
    shown = host.run("pi-commerce-backup restore n8n")
    assert shown.rc == 2
    assert "stopped meanwhile: n8n" in shown.stdout
    done = host.run("pi-commerce-backup restore n8n --confirm 'replace n8n with newest'")
    assert done.rc == 0, done.stderr
    assert host.check_output(f"{PSQL} -d n8n -c 'SELECT w FROM molecule'") == "kept"
    health = "docker inspect --format '{{.State.Health.Status}}' pi-commerce-n8n-1"
    assert host.check_output(health) == "healthy"
    kept = re.search(r"kept as (\w+)", done.stdout)
    assert kept is not None
    host.check_output(f"pi-commerce-backup discard {kept[1]}")
    assert "_before_" not in host.check_output("docker volume ls --quiet")


def test_operator_opens_the_secrets_bundle(host: Host, near: str, saved: str, secrets: dict[str, str]) -> None:
    """With a key that follows from the vault, which is itself in the bundle."""
    key = age_keys.identity(secrets["backup_operator_key"])
    opened = host.run(
        f"export RESTIC_REPOSITORY={near} RESTIC_PASSWORD_FILE=/etc/pi-commerce/secrets/backup_near_password\n"
        f"umask 077; echo {key} > /run/operator; engine=$(echo {LIBRARY}/engine/*)\n"
        "path=$($engine ls --no-lock --tag nightly latest | grep 'secrets.tar.age$')\n"
        "$engine dump --no-lock --tag nightly latest $path | age --decrypt --identity /run/operator | tar --list\n"
        "rm /run/operator"
    )
    names = opened.stdout.splitlines()
    assert {"etc/pi-commerce/secrets/n8n_encryption_key", "etc/pi-commerce/backup/vault.yml"} <= set(names), (
        opened.stderr
    )
    plain = host.check_output(
        f"export RESTIC_REPOSITORY={near} RESTIC_PASSWORD_FILE=/etc/pi-commerce/secrets/backup_near_password\n"
        f"{LIBRARY}/engine/* ls --no-lock --tag nightly latest"
    )
    assert "/etc/pi-commerce/compose/n8n.yml" in plain
    assert "/etc/pi-commerce/secrets/n8n_encryption_key" not in plain
    assert re.search(r"nightly/n8n/workflow/\w+\.json", plain)
    assert re.search(r"nightly/n8n/credentials/\w+\.json", plain)


def test_nobody_but_root_reads_it(host: Host, folder: str, near: str, saved: str) -> None:
    for path in (folder, near):
        assert "Permission denied" in host.run(f"runuser -u pi -- ls {path}/.").stderr
    assert host.run(f"runuser -u pi -- {LIBRARY}/engine/restic-* version").rc != 0


def test_only_one_engine_and_one_program_are_there(host: Host) -> None:
    assert len(host.file(f"{LIBRARY}/engine").listdir()) == 1
    assert host.check_output(f"{LIBRARY}/engine/* version").startswith("restic 0.18")
    assert "old.py" not in host.file(f"{LIBRARY}/backup/pi_backup").listdir()


def test_second_one_at_the_same_time_gives_up(host: Host, folder: str, saved: str) -> None:
    def skipped() -> int:
        return json.loads(host.file(f"{folder}/status.json").content_string)["jobs"]["ship"].get("skipped", 0)

    before = skipped()
    refused = host.run(f"flock {folder}/.ship.lock pi-commerce-backup ship")
    assert refused.rc == 75
    assert "another ship is running" in refused.stderr
    # Cron's own may have been left out, too.
    assert skipped() > before


def playbook(*words: str) -> subprocess.CompletedProcess[str]:
    """Run a playbook on the machine, as a person does."""
    return subprocess.run(
        ["ansible-playbook", "-i", "inventory/virtual", *words],
        cwd=Path(__file__).resolve().parents[3],
        env={**os.environ, "ANSIBLE_NOCOLOR": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_restore_by_playbook_shows_its_plan_and_refuses_without_the_words(saved: str) -> None:
    for more, refused in (("--check", False), ("-v", True)):
        done = playbook("restore.yml", "-e", "service=redis", more)
        assert (done.returncode != 0) == refused, done.stdout
        assert "redis redis_data: as of" in done.stdout
        assert "replace redis with newest" in done.stdout
        assert "changed=0" in done.stdout


def test_every_repository_holds_every_store(host: Host, saved: str, variables: dict[str, Any]) -> None:
    for name in variables["backup_repositories"]:
        snapshots = json.loads(host.check_output(f"pi-commerce-backup snapshots {name}"))
        assert {snapshot["kind"] for snapshot in snapshots} == {"ship", "nightly"}


def test_repository_on_the_pi_is_thinned_out_there(
    host: Host, folder: str, saved: str, variables: dict[str, Any]
) -> None:
    settings = json.dumps({"repository": "near", "backup_folder": folder, "backup_keep": variables["backup_keep"]})
    for _ in range(2):
        host.check_output(cron(host, "ship")[-1])
    before = len(json.loads(host.check_output("pi-commerce-backup snapshots near")))
    shown = playbook("playbooks/prune.yml", "-e", settings, "--check")
    assert shown.returncode == 0, shown.stdout
    assert len(json.loads(host.check_output("pi-commerce-backup snapshots near"))) == before
    done = playbook("playbooks/prune.yml", "-e", settings)
    assert done.returncode == 0, done.stdout
    assert len(json.loads(host.check_output("pi-commerce-backup snapshots near"))) < before
    refused = playbook("playbooks/prune.yml", "-e", "repository=moon")
    assert "repository is moon: name one of" in refused.stdout
