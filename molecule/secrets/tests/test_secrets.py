"""Each service's secrets in files for it alone, from a vault that only its owner opens."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from passlib.hash import bcrypt
from testinfra.host import Host

FOLDER = "/etc/pi-commerce/secrets"
# Rendered from others.
DERIVED = {"n8n_owner_password_hash", "redis_users"}


@pytest.fixture(scope="module")
def written(host: Host) -> dict[str, str]:
    """The secrets on the Pi by name."""
    return {name: host.file(f"{FOLDER}/{name}").content_string for name in host.file(FOLDER).listdir()}


def test_files_hold_what_the_vault_holds(written: dict[str, str], secrets: dict[str, str]) -> None:
    assert {"postgres_password", *DERIVED} <= set(written)
    for name in written.keys() - DERIVED:
        assert written[name] == secrets[name], name


def test_what_nobody_needs_is_gone(written: dict[str, str]) -> None:
    assert "old_api_key" not in written


def test_nobody_else_can_read_them(host: Host) -> None:
    for user in ("nobody", "pi"):
        assert host.run(f"runuser -u {user} -- ls {FOLDER}").rc != 0
        # A service sees its file by its own mount, so the file alone has to refuse as well.
        refused = host.run(
            f"cp --archive {FOLDER} /run/secrets-test && chmod 0755 /run/secrets-test && "
            f"runuser -u {user} -- cat /run/secrets-test/postgres_password; rm -r /run/secrets-test"
        )
        assert "Permission denied" in refused.stderr
        assert not refused.stdout


def test_service_reads_its_own_and_no_other(host: Host, written: dict[str, str]) -> None:
    """PostgreSQL (user 999) gets its superuser's password and not what only the controller needs."""
    read = host.check_output(f"setpriv --reuid 999 --regid 999 --clear-groups cat < {FOLDER}/postgres_password")
    assert read == written["postgres_password"]
    assert host.file(f"{FOLDER}/postgres_password").uid == 999
    assert not {"digest_key", "n8n_owner_password"} & set(written)


def test_made_secrets_cannot_be_guessed_and_chosen_ones_are_taken(
    secrets: dict[str, str], variables: dict[str, Any]
) -> None:
    chosen = variables["secrets_values"]
    if isinstance(chosen, str):
        # The inventory's own words: what the far repository lets this machine in by, which it has made itself.
        chosen = {"far_access": Path(os.environ["PI_STATE"], "far-access").read_text().strip()}
    assert {name: secrets[name] for name in chosen} == chosen
    made = [value for name, value in secrets.items() if name not in chosen]
    assert len(set(made)) == len(made) > 2
    assert min(map(len, made)) >= 32


def test_hash_opens_with_the_owners_password_alone(written: dict[str, str], secrets: dict[str, str]) -> None:
    known = written["n8n_owner_password_hash"].rstrip()
    assert bcrypt.verify(secrets["n8n_owner_password"], known)
    assert not bcrypt.verify(secrets["n8n_owner_password"][:-1], known)


def test_vault_file_is_sealed(secrets: dict[str, str], variables: dict[str, Any]) -> None:
    path = Path(variables["secrets_file"].replace("{{ virtual_pi_state }}", os.environ["PI_STATE"]))
    assert path.stat().st_mode & 0o077 == 0
    assert path.read_text().startswith("$ANSIBLE_VAULT;")
    assert not [name for name, value in secrets.items() if value in path.read_text()]
