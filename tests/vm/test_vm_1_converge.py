"""The whole site on a kernel of its own: the first run brings everything up, the second changes nothing."""

from __future__ import annotations

import os

import machine
import pytest


def test_first_run_brings_everything_up(first_run: machine.Finished) -> None:
    assert machine.recap(first_run.output)["failed"] == 0
    for service in ("postgres", "redis", "rate_limiter", "webhook_handler", "posting_queue", "n8n", "proxy"):
        assert any(line.split()[:2] == [service, "ok"] for line in first_run.output.splitlines() if line.strip()), (
            f"{service} is not reported ok:\n{first_run.output[-3000:]}"
        )


def test_second_run_changes_nothing() -> None:
    second = machine.playbook("site.yml", "--diff")
    assert second.status == 0, second.output[-4000:]
    assert machine.recap(second.output)["changed"] == 0, second.output


@pytest.mark.skipif(os.environ.get("ARCH") != "arm64", reason="a PC has no device tree")
def test_device_tree_says_raspberry_pi() -> None:
    assert machine.pi("uname -m").strip() == "aarch64"
    assert machine.pi("tr -d '\\0' </proc/device-tree/model") == "Raspberry Pi 4 Model B Rev 1.4"
