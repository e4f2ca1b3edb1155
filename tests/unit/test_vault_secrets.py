"""`vault_secrets` makes what is missing, keeps what is there, and refuses what is not safe."""

from __future__ import annotations

import json
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import plays
import pytest
from ansible.parsing.vault import VaultLib, VaultSecret

PASSWORD = "a-vault-password-for-tests"


def vault() -> VaultLib:
    """The vault that the plays open with PASSWORD."""
    return VaultLib([("default", VaultSecret(PASSWORD.encode()))])


def opened(path: Path) -> dict[str, str]:
    """What stands in the file."""
    plain: bytes = vault().decrypt(path.read_bytes())
    return dict(line.split(": ", 1) for line in plain.decode().splitlines())


def task(folder: Path, **options: Any) -> dict[str, Any]:
    """A task that opens the vault file and writes what it got to a file of its own."""
    return {
        "vault_secrets": {"path": str(folder / "secrets.vault.yml"), "names": ["one", "two"], **options},
        "register": "got",
    }


def keep(folder: Path) -> dict[str, Any]:
    """A task that shows that the values reach later tasks."""
    return {"copy": {"dest": str(folder / "got"), "content": "{{ got.secrets | to_json }}"}, "no_log": True}


def test_first_run_makes_second_run_keeps_nothing_is_shown(tmp_path: Path) -> None:
    status, output = plays.play(tmp_path, [task(tmp_path), keep(tmp_path)], "-vvv", "--diff", password=PASSWORD)
    assert status == 0, output
    path = tmp_path / "secrets.vault.yml"
    secrets = opened(path)
    assert set(secrets) == {"one", "two"}
    assert path.stat().st_mode & 0o777 == 0o600
    assert json.loads((tmp_path / "got").read_text()) == secrets
    sealed = path.read_bytes()
    status, again = plays.play(tmp_path, [task(tmp_path), keep(tmp_path)], "-vvv", "--diff", password=PASSWORD)
    assert status == 0, again
    assert "changed=0" in again
    assert path.read_bytes() == sealed
    for value in secrets.values():
        assert len(value) >= 32
        assert value not in output
        assert value not in again


def test_new_name_is_added_and_chosen_value_is_taken(tmp_path: Path) -> None:
    plays.play(tmp_path, [task(tmp_path)], password=PASSWORD)
    before = opened(tmp_path / "secrets.vault.yml")
    chosen = "My-own-Chosen-Value-77"
    more = task(tmp_path, names=["one", "two", "three"], values={"two": chosen})
    status, output = plays.play(tmp_path, [more], password=PASSWORD)
    assert status == 0, output
    after = opened(tmp_path / "secrets.vault.yml")
    assert after["one"] == before["one"]
    assert after["two"] == chosen
    assert len(after["three"]) >= 32
    assert chosen not in output


def test_secret_that_a_service_gives_is_asked_for_and_not_made(tmp_path: Path) -> None:
    given = task(tmp_path, names=["one", "phone_url"], given=["phone_url"])
    status, output = plays.play(tmp_path, [given], password=PASSWORD)
    assert status != 0
    assert "lacks phone_url, which cannot be made here" in output
    assert not (tmp_path / "secrets.vault.yml").exists()
    url = "tgram://123456789:A-Token-Given/1"
    chosen = task(tmp_path, names=["one", "phone_url"], given=["phone_url"], values={"phone_url": url})
    assert plays.play(tmp_path, [chosen], password=PASSWORD)[0] == 0
    status, output = plays.play(tmp_path, [given], password=PASSWORD)
    assert status == 0, output
    assert opened(tmp_path / "secrets.vault.yml")["phone_url"] == url


def test_check_mode_writes_nothing(tmp_path: Path) -> None:
    status, output = plays.play(tmp_path, [task(tmp_path), keep(tmp_path)], "--check", password=PASSWORD)
    assert status == 0, output
    assert "changed=2" in output
    assert not (tmp_path / "secrets.vault.yml").exists()


@pytest.mark.parametrize(
    ("content", "password", "words"),
    [
        (
            vault().encrypt("one: kept-secret-value-123\n"),
            "another password",
            ["does not open", "ANSIBLE_VAULT_PASSWORD_FILE"],
        ),
        (vault().encrypt("one: kept-secret-value-123\n"), None, ["no vault password"]),
        (b"one: kept-secret-value-123\n", PASSWORD, ["not encrypted", "ansible-vault encrypt"]),
        (vault().encrypt("- a list\n"), PASSWORD, ["one text per name"]),
        (vault().encrypt("one: kept-secret-value-123\ntwo: 5\n"), PASSWORD, ["one text per name"]),
        (vault().encrypt("one: [kept-secret-value-123\n"), PASSWORD, ["one text per name"]),
        (vault().encrypt("one: kept-secret-value-123\n")[:-9] + b"\n", PASSWORD, ["damaged"]),
        (vault().encrypt("one: Password123456\n"), PASSWORD, ["one is a well-known password"]),
    ],
    ids=[
        "wrong password",
        "no password",
        "plain text",
        "not a mapping",
        "not a text",
        "not YAML",
        "damaged",
        "weak value",
    ],
)
def test_refused_with_file_untouched(tmp_path: Path, content: bytes, password: str | None, words: list[str]) -> None:
    path = tmp_path / "secrets.vault.yml"
    path.write_bytes(content)
    path.chmod(0o600)
    status, output = plays.play(tmp_path, [task(tmp_path)], password=password)
    assert status != 0
    for word in [*words, "secrets.vault.yml"]:
        assert word in output
    assert "kept-secret-value" not in output
    assert path.read_bytes() == content


def test_file_that_git_tracks_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "secrets.vault.yml"
    path.write_bytes(vault().encrypt("one: kept-secret-value-123\n"))
    for command in (["init", "--quiet"], ["add", "secrets.vault.yml"]):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    status, output = plays.play(tmp_path, [task(tmp_path)], password=PASSWORD)
    assert status != 0
    assert "tracked by git" in output


def test_weak_chosen_value_is_refused_without_being_shown(tmp_path: Path) -> None:
    weak = task(tmp_path, values={"one": "raspberry2024"})
    status, output = plays.play(tmp_path, [weak], password=PASSWORD)
    assert status != 0
    assert "one is a well-known password" in output
    assert not (tmp_path / "secrets.vault.yml").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"bytes": 15}, ["15", "16 and 48"]),
        ({"names": None}, ["names"]),
        ({"value": {"one": "misspelt-canary"}}, ["value"]),
        ({"values": {"one": 123456789012}}, ["one", "in quotes"]),
    ],
)
def test_wrong_option_is_refused(tmp_path: Path, options: dict[str, Any], words: list[str]) -> None:
    status, output = plays.play(tmp_path, [task(tmp_path, **options)], password=PASSWORD)
    assert status != 0
    for word in words:
        assert word in output
    assert not (tmp_path / "secrets.vault.yml").exists()


@pytest.mark.parametrize("mode", [0o640, 0o604])
def test_file_open_to_others_is_refused_and_left(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "secrets.vault.yml"
    sealed = vault().encrypt("one: kept-secret-value-123\ntwo: kept-secret-value-456\n")
    path.write_bytes(sealed)
    path.chmod(mode)
    status, output = plays.play(tmp_path, [task(tmp_path)], password=PASSWORD)
    assert status != 0
    assert f"{mode:04o}" in output
    assert "chmod 600" in output
    assert path.stat().st_mode & 0o777 == mode
    assert path.read_bytes() == sealed


def test_choice_that_nobody_reads_is_refused(tmp_path: Path) -> None:
    misspelt = task(tmp_path, names=["owner_password"], values={"owner_pasword": "My-own-Chosen-Value-77"})
    status, output = plays.play(tmp_path, [misspelt], password=PASSWORD)
    assert status != 0
    assert "owner_pasword is no secret" in output
    assert "did you mean owner_password?" in output
    assert "My-own-Chosen-Value-77" not in output
    assert not (tmp_path / "secrets.vault.yml").exists()


def test_file_stays_with_the_vault_identity_that_opened_it(tmp_path: Path) -> None:
    """With several identities the first of them would be taken, and the file be lost to who has only its own."""
    path = tmp_path / "secrets.vault.yml"
    (tmp_path / "other").write_text("the password of another vault")
    (tmp_path / "own").write_text(PASSWORD)
    path.write_bytes(vault().encrypt("one: kept-secret-value-123\n", vault_id="own"))
    path.chmod(0o600)
    identities = [f"--vault-id={name}@{tmp_path / name}" for name in ("other", "own")]
    status, output = plays.play(tmp_path, [task(tmp_path)], *identities)
    assert status == 0, output
    assert path.read_bytes().startswith(b"$ANSIBLE_VAULT;1.2;AES256;own\n")
    assert set(opened(path)) == {"one", "two"}


def test_two_first_runs_at_once_make_one_set_of_secrets(tmp_path: Path) -> None:
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        folder.mkdir()
    with ThreadPoolExecutor() as pool:
        done = list(pool.map(lambda f: plays.play(f, [task(tmp_path), keep(f)], password=PASSWORD), folders))
    assert [status for status, _ in done] == [0, 0], done
    first, second = (json.loads((folder / "got").read_text()) for folder in folders)
    assert first == second == opened(tmp_path / "secrets.vault.yml")
    assert sorted("changed=2" in output for _, output in done) == [False, True]


def test_saved_file_replaces_values_keeps_others_and_what_was_replaced_lies_beside(tmp_path: Path) -> None:
    """What a rebuild does: the owner's part of the file, and the whole one as the lost machine had it."""
    path = tmp_path / "secrets.vault.yml"
    path.write_bytes(vault().encrypt("one: held-secret-value-123\nown: held-secret-value-789\n"))
    path.chmod(0o600)
    saved = vault().encrypt("one: saved-secret-value-123\ntwo: saved-secret-value-456\n").decode()
    status, output = plays.play(tmp_path, [task(tmp_path, sealed=saved)], "-vvv", "--diff", password=PASSWORD)
    assert status == 0, output
    whole = {"one": "saved-secret-value-123", "two": "saved-secret-value-456", "own": "held-secret-value-789"}
    assert opened(path) == whole
    assert not any(value in output for value in whole.values())
    [kept] = tmp_path.glob("secrets.before-*.vault.yml")
    assert kept.stat().st_mode & 0o777 == 0o600
    assert opened(kept) == {"one": "held-secret-value-123", "own": "held-secret-value-789"}
    status, again = plays.play(tmp_path, [task(tmp_path, sealed=saved)], password=PASSWORD)
    assert (status, "changed=0" in again) == (0, True), again
    assert len(list(tmp_path.glob("*.vault.yml"))) == 2


def test_saved_file_of_another_password_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "secrets.vault.yml"
    sealed = vault().encrypt("one: held-secret-value-123\n")
    path.write_bytes(sealed)
    path.chmod(0o600)
    other = VaultLib([("default", VaultSecret(b"another password"))]).encrypt("one: saved-secret-value-123\n").decode()
    status, output = plays.play(tmp_path, [task(tmp_path, sealed=other)], password=PASSWORD)
    assert status != 0
    assert "the saved vault file: the vault password does not open this file" in output
    assert path.read_bytes() == sealed


def test_empty_file_is_refused_like_any_that_is_not_encrypted(tmp_path: Path) -> None:
    path = tmp_path / "secrets.vault.yml"
    path.touch(mode=0o600)
    status, output = plays.play(tmp_path, [task(tmp_path)], password=PASSWORD)
    assert (status != 0, "is not encrypted" in output) == (True, True), output
