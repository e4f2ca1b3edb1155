"""Action plugin: the machine's secrets, kept in one vault file on the controller.

Options:
    path (str): the vault file; a relative one lies beside the playbook.
    names (list of str): secrets that must exist; missing ones are made.
    values (dict, optional): secrets somebody chose, by name; they replace what the file holds. Weak ones and other
        names are refused.
    given (list of str, optional): those of the names that only their service can give, such as a bot's token; one
        that is missing is asked for, not made.
    sealed (str, optional): the same file from elsewhere, encrypted with a password of this run. Its secrets replace
        what the file holds; what is replaced is kept beside it.
    bytes (int, optional): entropy of those that are made, 16 to 48, default 24 (192 bits).

Returns `secrets` (dict) and `generated` (names). The result is hidden from every output. In check mode nothing is
written and the values of this run are made up.
"""

from __future__ import annotations

import difflib
import fcntl
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from ansible import constants as C
from ansible.errors import AnsibleActionFail, AnsibleError
from ansible.parsing.vault import VaultLib, VaultSecret, VaultSecretsContext, is_encrypted, match_encrypt_secret
from ansible.plugins.action import ActionBase

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "module_utils"))

import secrets_policy

# A vault identity: its name, and its password.
Key = tuple[str, VaultSecret]

# n8n takes passwords of up to 64 characters, which 48 bytes make.
ENTROPY_BYTES = range(16, 49)
LOCK_SECONDS = 30
OPTIONS = {
    "path": {"type": "path", "required": True},
    "names": {"type": "list", "elements": "str", "required": True},
    # Keeps the values out of messages about wrong options.
    "values": {"type": "dict", "default": {}, "no_log": True},
    "given": {"type": "list", "elements": "str", "default": []},
    "sealed": {"type": "str", "default": "", "no_log": True},
    "bytes": {"type": "int", "default": 24},
}
REMEDY = "give it with --vault-password-file, --ask-vault-pass or ANSIBLE_VAULT_PASSWORD_FILE"


class ActionModule(ActionBase):
    """Runs on the controller, without a connection."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Open the file, make what is missing, write it back if anything is new."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        try:
            return {**result, **self._open(), "_ansible_no_log": True}
        except AnsibleActionFail as refused:
            # An answer rather than an error, so that a task may register it and judge.
            return {**result, "failed": True, "msg": str(refused)}

    def _open(self) -> dict[str, Any]:
        """All of it; raises AnsibleActionFail with what, where and the remedy."""
        arguments = self.validate_argument_spec(argument_spec=OPTIONS)[1]
        path = Path(self._loader.path_dwim(arguments["path"])).resolve()
        chosen = texts(arguments["values"])
        names = [str(name) for name in arguments["names"]]
        if arguments["bytes"] not in ENTROPY_BYTES:
            raise AnsibleActionFail(
                f"bytes: {arguments['bytes']} is not between {min(ENTROPY_BYTES)} and {max(ENTROPY_BYTES)}"
            )
        vault = self._vault(path)
        _refuse_tracked(path)
        refuse_unknown(chosen, names)
        refuse_weak(chosen, "the inventory (secrets_values)")
        if not self._task.check_mode:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with locked(path.parent):
            stored, key = read(vault, path)
            refuse_weak(stored, str(path))
            saved = arguments["sealed"].encode()
            adopted = {**stored, **(opened(vault, saved, "the saved vault file")[0] if saved else {})}
            refuse_missing(set(map(str, arguments["given"])).difference(adopted, chosen), path)
            secrets, generated = complete(adopted, names, chosen, arguments["bytes"])
            if not self._task.check_mode:
                sweep(path)
                if any(adopted[name] != value for name, value in stored.items()):
                    write(vault, replaced(path), stored, key)
                if secrets != stored:
                    write(vault, path, secrets, key)
        return {"changed": secrets != stored, "secrets": secrets, "generated": generated}

    @staticmethod
    def _vault(path: Path) -> VaultLib:
        """Ansible's vault with the passwords of this run."""
        context = VaultSecretsContext.current(optional=True)
        if not context or not context.secrets:
            raise AnsibleActionFail(f"{path}: no vault password was given; {REMEDY}")
        return VaultLib(context.secrets)


def texts(values: dict[str, Any]) -> dict[str, str]:
    """The chosen values as plain texts; refuses numbers, which YAML may have shortened."""
    others = [name for name, value in values.items() if not isinstance(value, str)]
    if others:
        raise AnsibleActionFail(f"values: {', '.join(others)} must be a text; put the value in quotes")
    return {str(name): str(value) for name, value in values.items()}


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """One run at a time, so that two first runs cannot both make secrets."""
    if not folder.exists():
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    deadline = time.monotonic() + LOCK_SECONDS
    try:
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() > deadline:
                    raise AnsibleActionFail(
                        f"{folder}: another run has held its secrets for {LOCK_SECONDS} seconds; end it, then try again"
                    ) from error
                time.sleep(0.05)
        yield
    finally:
        os.close(handle)


def read(vault: VaultLib, path: Path) -> tuple[dict[str, str], Key]:
    """All secrets in the file, and the vault identity that opened it; for a new file none, and the one to use."""
    if not path.exists():
        return {}, match_encrypt_secret(vault.secrets, C.DEFAULT_VAULT_ENCRYPT_IDENTITY)
    if path.stat().st_mode & 0o077:
        raise AnsibleActionFail(
            f"{path}: other users of this computer may open it (mode {path.stat().st_mode & 0o777:04o}); chmod 600 it"
        )
    return opened(vault, path.read_bytes(), str(path))


def opened(vault: VaultLib, sealed: bytes, place: str) -> tuple[dict[str, str], Key]:
    """All secrets in a sealed text, and the vault identity that opened it."""
    if not is_encrypted(sealed):
        raise AnsibleActionFail(
            f"{place}: is not encrypted; encrypt it with ansible-vault encrypt, or remove it to have new secrets made"
        )
    try:
        plain, *key = vault.decrypt_and_get_vault_id(sealed)
    except AnsibleError as error:
        raise AnsibleActionFail(
            f"{place}: the vault password does not open this file, or the file is damaged; {REMEDY}. "
            "If it is lost, restore both from your backup"
        ) from error
    try:
        content = yaml.safe_load(plain) or {}
    except yaml.YAMLError:
        content = None
    # Raised out here, without its cause: the parser's own message quotes the line, and with it a secret.
    if not isinstance(content, dict) or not all(isinstance(part, str) for pair in content.items() for part in pair):
        raise AnsibleActionFail(f"{place}: must hold one text per name; correct it with ansible-vault edit")
    return content, (key[0], key[1])


def write(vault: VaultLib, path: Path, secrets: dict[str, str], key: Key) -> None:
    """Replace the file in one step; plain text never reaches the disk."""
    identity, password = key
    sealed = vault.encrypt(yaml.safe_dump(secrets), secret=password, vault_id=identity)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=beginning(path))
    try:
        with os.fdopen(handle, "wb") as target:
            target.write(sealed)
            target.flush()
            os.fsync(target.fileno())
        os.rename(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    # Without the folder on disk a power cut could take the only copy of what a machine already uses.
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def replaced(path: Path) -> Path:
    """Where secrets are kept that another state of the file has replaced."""
    return path.with_name(f"{path.name.removesuffix('.vault.yml')}.before-{time.strftime('%Y%m%dT%H%M%S')}.vault.yml")


def beginning(path: Path) -> str:
    """How the file is called while it is being written."""
    return f".{path.name}-"


def sweep(path: Path) -> None:
    """Remove what a run that was killed while it wrote has left; the lock says that nobody writes now."""
    for entry in path.parent.iterdir():
        if entry.name.startswith(beginning(path)):
            entry.unlink()


def complete(
    stored: dict[str, str], names: list[str], chosen: dict[str, str], size: int
) -> tuple[dict[str, str], list[str]]:
    """Stored secrets with the chosen and the missing ones, and the names of those that were made."""
    secrets = {**stored, **chosen}
    missing = [name for name in names if name not in secrets]
    return {**secrets, **{name: secrets_policy.generate(size) for name in missing}}, missing


def refuse_unknown(chosen: dict[str, str], names: list[str]) -> None:
    """Refuse a choice that nobody reads: a slip of the pen, while the secret that was meant is a random one."""
    for name in sorted(set(chosen).difference(names)):
        near = difflib.get_close_matches(name, names, n=1)
        remedy = f"did you mean {near[0]}?" if near else f"take it out, or write one of: {', '.join(names)}"
        raise AnsibleActionFail(f"the inventory (secrets_values): {name} is no secret of this machine; {remedy}")


def refuse_missing(names: set[str], path: Path) -> None:
    """Refuse to make up what somebody else hands out."""
    if names:
        raise AnsibleActionFail(
            f"{path}: lacks {', '.join(sorted(names))}, which cannot be made here because a service gives it; add it "
            "with ansible-vault edit (or create), or for one run with secrets_values"
        )


def refuse_weak(secrets: dict[str, str], place: str) -> None:
    """Refuse values that somebody could guess."""
    weak = [f"{name} {problem}" for name, value in secrets.items() if (problem := secrets_policy.check(name, value))]
    if weak:
        raise AnsibleActionFail(
            f"{place}: {'; '.join(weak)}. Choose another value, or take the entry out to have a random one made"
        )


def _refuse_tracked(path: Path) -> None:
    """Refuse a file that git would publish."""
    try:
        tracked = subprocess.run(
            ["git", "ls-files", "--error-unmatch", "--", path.name], cwd=path.parent, capture_output=True, check=False
        )
    except OSError:
        # No git, or no folder yet: then nothing is tracked.
        return
    if tracked.returncode == 0:
        raise AnsibleActionFail(
            f"{path}: is tracked by git, secrets must not be; take it out with git rm --cached and change the secrets"
        )
