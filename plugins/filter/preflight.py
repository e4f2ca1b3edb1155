"""Jinja filter of the preflight role."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "module_utils"))

import catalog
import preflight


def preflight_judge(
    reading: Mapping[str, Any],
    target: str,
    opened: Mapping[str, Any],
    capacity: list[Mapping[str, Any]],
    reserve_mib: int,
    **expectations: Any,
) -> dict[str, Any]:
    """Judge a Pi; returns `{table: str, refused: bool}`.

    Args:
        reading: how the call of `pi_facts` ended.
        target: user and address it went to.
        opened: how opening the vault file ended.
        capacity: the catalog's rows of memory limits.
        reserve_mib: memory in MiB that the services must leave to the system.
        expectations: what `preflight.judge` takes.
    """
    findings = [preflight.judge_secrets(opened), preflight.judge_connection(reading, target)]
    if "ansible_facts" in reading:
        facts = reading["ansible_facts"]["pi"]
        findings += preflight.judge(facts, **expectations)
        if facts["ram_mib"] is not None:
            plan = catalog.capacity_plan(capacity, facts["ram_mib"], reserve_mib)
            findings.append(preflight.judge_plan({**plan, "table": catalog.render_plan(plan)}))
    return {"table": preflight.render(findings), "refused": any(f.level == "refuse" for f in findings)}


class FilterModule:
    """Registers the filter."""

    def filters(self) -> dict[str, Any]:
        """Name to function."""
        return {"preflight_judge": preflight_judge}
