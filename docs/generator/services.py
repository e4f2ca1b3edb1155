"""The service catalog of the production inventory, as `plugins/module_utils/catalog` derives it."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2

from .source import DocsError, load, shared_variables

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "plugins/module_utils"))

import catalog

# Recorded boards that the capacity plan is shown for.
BOARDS = ("pi4-4gb", "pi4-8gb")


def derived(root: Path) -> dict[str, Any]:
    """Everything that follows from the catalog with every service enabled. Raises DocsError."""
    variables = {name: _literal(item) for name, item in shared_variables(root).items()}
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined)  # noqa: S701 - Compose files, no HTML
    texts = {}
    for path in sorted((root / "templates/services").glob("*.yml.j2")):
        try:
            texts[path.name.removesuffix(".yml.j2")] = environment.from_string(path.read_text()).render(variables)
        except jinja2.TemplateError as error:
            raise DocsError(
                f"templates/services/{path.name}: {error}: set it in inventory/group_vars/all.yml"
            ) from error
    secrets = [path.stem for path in sorted((root / "templates/secrets").glob("*.j2"))]
    try:
        return catalog.as_dict(catalog.load(texts, list(texts), variables["edition"]), secrets)
    except catalog.CatalogError as error:
        raise DocsError(str(error)) from error


def plans(root: Path, capacity: list[dict[str, Any]]) -> dict[str, str]:
    """The capacity plan of the services that are enabled by default, for each recorded board, as a text table."""
    enabled = shared_variables(root)["services_enabled"]
    reserve = load(root / "roles/preflight/defaults/main.yml")["preflight_reserve_mib"]
    rows = [row for row in capacity if row["service"] in enabled]
    return {board: catalog.render_plan(catalog.capacity_plan(rows, _ram_mib(root, board), reserve)) for board in BOARDS}


def rows_of(table: list[Mapping[str, Any]], service: str) -> list[Mapping[str, Any]]:
    """The rows of one service in one of the catalog's tables."""
    return [row for row in table if row.get("service") == service or service in row.get("services", ())]


def _literal(item: Any) -> Any:
    """A variable's value; what the run computes stands there as a word that any field of a Compose file takes."""
    return re.sub(r"\{\{.*?\}\}", "computed", item, flags=re.DOTALL) if isinstance(item, str) else item


def _ram_mib(root: Path, board: str) -> int:
    meminfo = (root / "molecule/images/virtual-pi/hardware" / board / "proc/meminfo").read_text()
    total = re.search(r"^MemTotal:\s+(\d+) kB$", meminfo, re.MULTILINE)
    if total is None:
        raise DocsError(f"molecule/images/virtual-pi/hardware/{board}/proc/meminfo: no line MemTotal: record it again")
    return int(total[1]) // 1024
