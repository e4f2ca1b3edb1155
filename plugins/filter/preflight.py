"""Jinja filters of the preflight role."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "module_utils"))

import preflight


def preflight_judge(facts: dict[str, Any], **expectations: Any) -> dict[str, Any]:
    """Judge the facts of `pi_facts`; returns `{table: str, refused: [remedy sentence, ...]}`."""
    findings = preflight.judge(facts, **expectations)
    refused = [f"{f.check}: {f.found} -> {f.remedy}" for f in findings if f.level == "refuse"]
    return {"table": preflight.render(findings), "refused": refused}


def role_specs(roles: str) -> list[dict[str, Any]]:
    """Every role below the folder `roles` with its documented options, as `{role, options}`."""
    found = []
    for path in sorted(Path(roles).glob("*/meta/argument_specs.yml")):
        spec = yaml.safe_load(path.read_text(encoding="utf-8"))["argument_specs"]["main"]
        found.append({"role": path.parts[-3], "options": spec["options"]})
    return found


def unknown_variables(names: Iterable[str], specs: list[dict[str, Any]], known: Iterable[str]) -> list[str]:
    """Sentences about variables that carry a role's prefix but are no option of any role.

    Args:
        names: names of all variables of the host.
        specs: what `role_specs` returns.
        known: further names that are in order (facts the roles set).
    """
    options = {option for spec in specs for option in spec["options"]}
    prefixes = tuple(f"{spec['role']}_" for spec in specs)
    unknown = sorted({str(name) for name in names if name.startswith(prefixes)} - options - set(known))
    return [_unknown(name, options) for name in unknown]


def _unknown(name: str, options: set[str]) -> str:
    near = difflib.get_close_matches(name, sorted(options), n=1)
    return f"unknown variable {name}" + (f": did you mean {near[0]}?" if near else ": no role reads it, take it out")


class FilterModule:
    """Registers the filters."""

    def filters(self) -> dict[str, Any]:
        """Name to function."""
        return {
            "preflight_judge": preflight_judge,
            "role_specs": role_specs,
            "unknown_variables": unknown_variables,
        }
