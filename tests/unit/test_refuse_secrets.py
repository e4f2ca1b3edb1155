"""What must not enter git is refused, by itself and when somebody commits it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import plays
import pytest
import refuse_secrets
import yaml

# Built from halves: this file is in git itself.
PRIVATE_KEY = "-----BEGIN OPENSSH " + "PRIVATE KEY-----\nb3BlbnNzaC1rZXk\n"

REFUSED = [
    ("notes.txt", PRIVATE_KEY, "holds a private key"),
    ("a.pem", PRIVATE_KEY.replace("OPENSSH ", ""), "holds a private key"),
    ("a.asc", PRIVATE_KEY.replace("OPENSSH", "PGP").replace("KEY-", "KEY BLOCK-"), "holds a private key"),
    ("inventory/production/shop-pi.vault.yml", "$ANSIBLE_VAULT;1.1;AES256\n61", "vault file"),
    (".vault-password", "x", "vault password"),
    ("keys/id_ed25519", "x", "private key by its name"),
    ("picture.png", "x" * (refuse_secrets.LARGEST + 1), "at most 1048576 are allowed"),
    ("inventory/a.yml", "secrets_values: {n8n_owner_password: Kx81}", "secrets_values stands there in plain text"),
    ("inventory/a.yml", "secrets_values: {pin: 815}", "secrets_values stands there in plain text"),
    ("inventory/hosts.yml", "pis: {hosts: {a: {proxy_certificate_key: abc}}}", "proxy_certificate_key stands there"),
    ("inventory/a.yaml", "workflows_credentials: [{id: a, secrets: {key: abc}}]", "workflows_credentials stands there"),
]
ACCEPTED = [
    ("notes.txt", PRIVATE_KEY.replace("PRIVATE", "PUBLIC")),
    ("inventory/a.yml", "$ANSIBLE_VAULT;1.1;AES256\n6131"),
    ("inventory/a.yml", "secrets_values:\n  n8n_owner_password: !vault |\n    $ANSIBLE_VAULT;1.1;AES256\n    6131"),
    ("inventory/a.yml", "proxy_certificate_key: \"{{ lookup('env', 'KEY') }}\"\nsecrets_values: {}"),
    ("inventory/a.yml", "workflows_credentials: [{id: a, data: {user: abc}}]"),
    ("roles/a/defaults/main.yml", "secrets_values: {example: text}"),
    ("largest", "x" * refuse_secrets.LARGEST),
]


def plant(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.mark.parametrize(("name", "text", "problem"), REFUSED, ids=[f"{r[0]}-{r[2]}" for r in REFUSED])
def test_it_refuses(tmp_path: Path, name: str, text: str, problem: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = plant(tmp_path, name, text)
    assert refuse_secrets.main([str(path)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {path}: ")
    assert problem in line


@pytest.mark.parametrize(("name", "text"), ACCEPTED)
def test_it_accepts(tmp_path: Path, name: str, text: str) -> None:
    assert refuse_secrets.main([str(plant(tmp_path, name, text))]) == 0


def test_it_knows_every_variable_that_belongs_into_a_vault_file() -> None:
    secret = set()
    for path in (plays.ROOT / "roles").glob("*/meta/argument_specs.yml"):
        options = yaml.safe_load(path.read_text())["argument_specs"]["main"]["options"]
        secret |= {name for name, option in options.items() if re.search(r"\bin a vault file", option["description"])}
    assert secret == set(refuse_secrets.SECRET_VARIABLES)


def test_a_commit_with_a_secret_does_not_happen(tmp_path: Path) -> None:
    """A repository with our hooks installed as `make hooks` does."""
    shutil.copytree(plays.ROOT / ".ci", tmp_path / ".ci")
    for name in (".pre-commit-config.yaml", ".yamllint"):
        shutil.copy(plays.ROOT / name, tmp_path / name)
    (tmp_path / ".venv").symlink_to(plays.ROOT / ".venv")
    environment = {name: text for name, text in os.environ.items() if not name.startswith(("GIT_", "PRE_COMMIT"))}
    environment |= {"PRE_COMMIT_HOME": str(tmp_path / "cache"), "GIT_CONFIG_GLOBAL": os.devnull}

    def run(*command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False
        )

    for command in (
        ["git", "init", "--quiet"],
        ["git", "config", "user.name", "Somebody"],
        ["git", "config", "user.email", "somebody@example.com"],
        [".venv/bin/pre-commit", "install"],
    ):
        done = run(*command)
        assert done.returncode == 0, done.stdout + done.stderr

    plant(tmp_path, "notes.txt", PRIVATE_KEY)
    run("git", "add", "notes.txt", ".pre-commit-config.yaml")
    refused = run("git", "commit", "--message", "Add notes")
    assert refused.returncode != 0
    assert "error: notes.txt: holds a private key" in refused.stdout + refused.stderr

    plant(tmp_path, "notes.txt", "the key is on the Pi\n")
    run("git", "add", "notes.txt")
    done = run("git", "commit", "--message", "Add notes")
    assert done.returncode == 0, done.stdout + done.stderr


def test_links_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("folder")
    assert refuse_secrets.main([str(tmp_path / "link")]) == 0
