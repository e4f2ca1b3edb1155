"""Filters that describe the backup: its repositories, their secrets, its recipients."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "module_utils"))

import age_keys


def backup_secret_names(repositories: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The secrets that open the repositories: a password for each, and what their places ask for."""
    asked = {str(secret) for entry in repositories.values() for secret in entry.get("secrets", {}).values()}
    return sorted({_password(name) for name in repositories} | asked)


def backup_secret_files(repositories: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The same as files for root, like the catalog's `secret_files`."""
    return [{"name": name, "uid": 0, "gid": 0, "services": []} for name in backup_secret_names(repositories)]


def backup_targets(repositories: Mapping[str, Mapping[str, Any]], folder: str) -> dict[str, dict[str, Any]]:
    """The repositories as the backup program takes them; their secrets lie in `folder`."""
    return {
        str(name): {
            "url": str(entry["url"]),
            "password_file": f"{folder}/{_password(name)}",
            "environment": {str(key): str(value) for key, value in entry.get("environment", {}).items()},
            "secrets": {str(key): str(value) for key, value in entry.get("secrets", {}).items()},
        }
        for name, entry in repositories.items()
    }


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
            "backup_secret_files": backup_secret_files,
            "backup_secret_names": backup_secret_names,
            "backup_targets": backup_targets,
            "sealed_file": sealed_file,
        }
