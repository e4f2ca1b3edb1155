"""Filters that describe who is told: the targets of messages, and their secrets."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

Targets = Mapping[str, Mapping[str, Any]]


def notify_secret_names(targets: Targets) -> list[str]:
    """The secrets that hold the targets' URLs."""
    return sorted({str(entry["url_secret"]) for entry in targets.values()})


def notify_secret_files(targets: Targets) -> list[dict[str, Any]]:
    """The same as files for root, like the catalog's `secret_files`."""
    return [{"name": name, "uid": 0, "gid": 0, "services": []} for name in notify_secret_names(targets)]


def notify_entries(targets: Targets, folder: str) -> dict[str, dict[str, str]]:
    """The targets as the notify program takes them; their secrets lie in `folder`."""
    return {
        str(name): {"url_file": f"{folder}/{entry['url_secret']}", "level": str(entry.get("level", "info"))}
        for name, entry in targets.items()
    }


class FilterModule:
    """Registers the filters."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Name to function."""
        return {
            "notify_entries": notify_entries,
            "notify_secret_files": notify_secret_files,
            "notify_secret_names": notify_secret_names,
        }
