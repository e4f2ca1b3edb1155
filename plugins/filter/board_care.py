"""Jinja filters of the roles thermal and power."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "module_utils"))

import board_care
import config_txt


def fan_address(name: str) -> int:
    """Address of a fan's controller on the I2C bus, 0 for none."""
    return board_care.FANS[str(name)].address


class FilterModule:
    """Registers the filters."""

    def filters(self) -> dict[str, Any]:
        """Name to function."""
        return {
            "config_txt_block": config_txt.block,
            "fan_address": fan_address,
            "fan_problem": board_care.fan_problem,
            "fan_settings": board_care.fan_settings,
            "shed_problem": board_care.shed_problem,
            "stop_order": board_care.stop_order,
            "watchdog_problem": board_care.watchdog_problem,
            "watchdog_seconds": board_care.watchdog_seconds,
        }
