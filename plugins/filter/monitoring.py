"""Jinja filters of the monitoring role."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def scrape_group(target: Mapping[str, Any]) -> dict[str, Any]:
    """One of the catalog's scrape targets as an entry of Prometheus' file_sd format."""
    return {
        "targets": [target["target"]],
        "labels": {"job": target["service"], "__metrics_path__": target["path"]},
    }


def scrape_probe(target: Mapping[str, Any]) -> dict[str, Any]:
    """The same target as a probe of `stack_state`."""
    port = int(target["target"].rpartition(":")[2])
    return {"service": target["service"], "kind": "http", "port": port, "path": target["path"]}


class FilterModule:
    """Registers the filters."""

    def filters(self) -> dict[str, Any]:
        """Name to function."""
        return {"scrape_group": scrape_group, "scrape_probe": scrape_probe}
