"""Filters that turn files of this project into entries for `file_tree`."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleFilterError

# What editors, linters and interpreters leave behind is not source.
IGNORED = {"__pycache__", ".ruff_cache", ".mypy_cache", ".pytest_cache"}
# Whatever folder or configuration file Ansible was started with.
CHECKOUT = Path(__file__).resolve().parents[2]


def source_files(folder: str, prefix: str = "") -> list[dict[str, str]]:
    """Every text file below `folder`, as `{path, content}` with `prefix` before the path, sorted by path.

    A relative `folder` lies in this project; it may be one file, too. Raises AnsibleFilterError where there is no such
    folder: it would look like one without files.
    """
    root = CHECKOUT / folder
    if root.is_file():
        return [{"path": f"{prefix}{root.name}", "content": root.read_text(encoding="utf-8")}]
    if not root.is_dir():
        raise AnsibleFilterError(f"{folder}: there is no such folder on the controller; correct its path")
    files = (path for path in sorted(root.rglob("*")) if path.is_file())
    return [
        {"path": f"{prefix}{path.relative_to(root)}", "content": path.read_text(encoding="utf-8")}
        for path in files
        if not IGNORED.intersection(path.relative_to(root).parts)
    ]


def source_version(files: list[dict[str, str]], *inputs: str) -> str:
    """Twelve hex digits that change with any file or input: the version of what is built from them."""
    digest = hashlib.sha256()
    for text in [part for entry in files for part in (entry["path"], entry["content"])] + list(inputs):
        digest.update(hashlib.sha256(str(text).encode()).digest())
    return digest.hexdigest()[:12]


def secret_file(entry: Mapping[str, Any], contents: Mapping[str, str]) -> dict[str, Any]:
    """One of the catalog's `secret_files` as a file only its service's user can read."""
    return {
        "path": entry["name"],
        "secret_content": contents[entry["name"]],
        "mode": "0400",
        "owner": str(entry["uid"]),
        "group": str(entry["gid"]),
    }


def root_secret(name: str) -> dict[str, Any]:
    """A secret that no service reads, like one of the catalog's `secret_files`, for root."""
    return {"name": str(name), "uid": 0, "gid": 0, "services": []}


def database_login(entry: Mapping[str, Any], secrets: Mapping[str, str]) -> dict[str, str]:
    """One of the catalog's `databases` as `postgres_databases` takes it."""
    return {"name": entry["name"], "owner": entry["owner"], "password": secrets[entry["password_secret"]]}


class FilterModule:
    """Registers the filters."""

    def filters(self) -> dict[str, Any]:
        """Name to function."""
        return {
            "database_login": database_login,
            "root_secret": root_secret,
            "secret_file": secret_file,
            "source_files": source_files,
            "source_version": source_version,
        }
