"""What the scenarios' tests share: the scenario's role and its variables."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]


def load(path: Path) -> dict[str, Any]:
    """A YAML file's mapping, or an empty one where there is no file."""
    return yaml.safe_load(path.read_text()) or {} if path.exists() else {}


@pytest.fixture(scope="session")
def scenario() -> str:
    """The scenario's name, for example `base-alternative`."""
    return os.environ["MOLECULE_SCENARIO_NAME"]


@pytest.fixture(scope="session")
def variables(scenario: str) -> dict[str, Any]:
    """The variables in force, as they are written: the role's defaults, the inventory's, the scenario's own."""
    own = load(ROOT / "molecule" / scenario / "molecule.yml")
    merged = load(ROOT / "roles" / scenario.split("-")[0] / "defaults/main.yml")
    for path in sorted((ROOT / "inventory/virtual/group_vars/all").glob("*.yml")):
        merged |= load(path)
    return {
        **merged,
        **own.get("provisioner", {}).get("inventory", {}).get("group_vars", {}).get("pis", {}),
    }


@pytest.fixture(scope="session")
def facts() -> dict[str, Any]:
    """What the role learned: `pi` (role facts) and `catalog_data` (role catalog), empty where it did not run."""
    found: dict[str, Any] = json.loads((Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"]) / "facts.json").read_text())
    return found
