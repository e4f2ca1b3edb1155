"""The kernel settings of role base, as they should be and as they are."""

from __future__ import annotations

import machine
import yaml


def wanted() -> dict[str, str]:
    """Names and values from the role's defaults."""
    defaults = yaml.safe_load((machine.ROOT / "roles/base/defaults/main.yml").read_text())
    return {name: str(value) for name, value in defaults["base_sysctl"].items()}


def found() -> dict[str, str]:
    """The same names with the values the kernel has."""
    lines = machine.pi(f"sysctl {' '.join(wanted())}").splitlines()
    return dict(line.split(" = ", 1) for line in lines)
