"""Filters that describe the backup: its repositories, their secrets, its recipients."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "module_utils"))

import age_keys

REST_PASSWORD = "RESTIC_REST_PASSWORD"  # noqa: S105 - the name of a variable


def backup_secret_names(repositories: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The secrets that open the repositories: a password for each, and what their places ask for."""
    return sorted({secret for name, entry in repositories.items() for secret in _names(name, entry)})


def backup_given_names(repositories: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Those of the secrets that only their place can give, such as a bucket's key; a rest-server takes ours."""
    return sorted(
        {
            str(secret)
            for entry in repositories.values()
            for variable, secret in entry.get("secrets", {}).items()
            if variable != REST_PASSWORD
        }
    )


def backup_secret_files(repositories: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The same as files for root, like the catalog's `secret_files`."""
    return [{"name": name, "uid": 0, "gid": 0, "services": []} for name in backup_secret_names(repositories)]


def backup_targets(
    repositories: Mapping[str, Mapping[str, Any]], secrets: str, authorities: str
) -> dict[str, dict[str, Any]]:
    """The repositories as the backup program takes them; `secrets` and `authorities` are folders on the machine."""
    return {
        str(name): {
            "url": str(entry["url"]),
            "password_file": f"{secrets}/{_password(name)}",
            "environment": {
                **({"RESTIC_CACERT": f"{authorities}/{name}.pem"} if entry.get("ca") else {}),
                **{str(key): str(value) for key, value in entry.get("environment", {}).items()},
            },
            "secrets": {str(key): str(value) for key, value in entry.get("secrets", {}).items()},
        }
        for name, entry in repositories.items()
    }


def backup_authorities(repositories: Mapping[str, Mapping[str, Any]], folder: str) -> list[dict[str, str]]:
    """The authorities behind the repositories' certificates as files for `file_tree`, in `folder`."""
    return [
        {"path": f"{folder}/{name}.pem", "content": str(entry["ca"]).strip() + "\n"}
        for name, entry in repositories.items()
        if entry.get("ca")
    ]


def backup_opened(
    repositories: Mapping[str, Mapping[str, Any]], secrets: Mapping[str, str]
) -> dict[str, Mapping[str, Any]]:
    """Those of the repositories for which all secrets are there."""
    return {str(name): entry for name, entry in repositories.items() if set(_names(name, entry)) <= set(secrets)}


def _names(name: str, entry: Mapping[str, Any]) -> list[str]:
    return [_password(name), *map(str, entry.get("secrets", {}).values())]


def _password(name: str) -> str:
    return f"backup_{name}_password"


def sealed_file(path: str) -> str:
    """A vault file as it is, encrypted; empty where there is none yet. A lookup would decrypt it."""
    file = Path(str(path))
    return file.read_text(encoding="utf-8") if file.exists() else ""


class FilterModule:
    """Registers the filters."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Name to function."""
        return {
            "age_identity": lambda secret: age_keys.identity(str(secret)),
            "age_recipient": lambda secret: age_keys.recipient(str(secret)),
            "backup_authorities": backup_authorities,
            "backup_given_names": backup_given_names,
            "backup_opened": backup_opened,
            "backup_secret_files": backup_secret_files,
            "backup_secret_names": backup_secret_names,
            "backup_targets": backup_targets,
            "sealed_file": sealed_file,
        }
