"""Jinja filter of the preflight role."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "module_utils"))

import catalog
import preflight
import preflight_body


def preflight_judge(
    reading: Mapping[str, Any],
    target: str,
    opened: Mapping[str, Any],
    capacity: list[Mapping[str, Any]],
    reserve_mib: int,
    soak: Mapping[str, Any] | None = None,
    allow_low_voltage: bool = False,
    data_disk: str = "",
    watchdog_seconds: int = 0,
    **expectations: Any,
) -> dict[str, Any]:
    """Judge a Pi; returns `{table: str, totals: str, warnings: str, refused: bool}`.

    Args:
        reading: how the call of `pi_facts` ended.
        target: user and address it went to.
        opened: how opening the vault file ended.
        capacity: the catalog's rows of memory limits.
        reserve_mib: memory in MiB that the services must leave to the system.
        soak: what `pi_soak` has seen, if it ran.
        allow_low_voltage, data_disk, watchdog_seconds: what `preflight_body.judge` takes.
        expectations: what `preflight.judge` takes.
    """
    findings = [preflight.judge_secrets(opened), preflight.judge_connection(reading, target)]
    if "ansible_facts" in reading:
        facts = reading["ansible_facts"]["pi"]
        findings += preflight.judge(facts, **expectations)
        findings += preflight_body.judge(
            facts,
            expectations["controller_epoch"],
            allow_low_voltage=allow_low_voltage,
            data_disk=data_disk,
            watchdog_seconds=watchdog_seconds,
        )
        if facts["ram_mib"] is not None:
            plan = catalog.capacity_plan(capacity, facts["ram_mib"], reserve_mib)
            findings.append(preflight.judge_plan({**plan, "table": catalog.render_plan(plan)}))
        if soak:
            findings.append(preflight_body.judge_soak(soak))
    return {
        "table": preflight.render(findings),
        "totals": preflight.totals(findings),
        "warnings": preflight.render(finding for finding in findings if finding.level == "warn"),
        "refused": any(finding.level == "refuse" for finding in findings),
    }


class FilterModule:
    """Registers the filter."""

    def filters(self) -> dict[str, Any]:
        """Name to function."""
        return {"preflight_judge": preflight_judge}
