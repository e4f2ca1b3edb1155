"""Filters of rebuild.yml: its report, and the secrets of the repositories as files."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "module_utils"))

import rebuild_report


def rebuild_secret(entry: Mapping[str, Any], secrets: Mapping[str, str]) -> dict[str, Any]:
    """One of `backup_secret_files` as a file below secrets/ that only root can read."""
    return {"path": f"secrets/{entry['name']}", "secret_content": secrets[entry["name"]], "mode": "0400"}


class FilterModule:
    """Registers the filters."""

    def filters(self) -> dict[str, Any]:
        """Name to function."""
        return {
            "rebuild_markdown": rebuild_report.markdown,
            "rebuild_report": rebuild_report.report,
            "rebuild_secret": rebuild_secret,
        }
