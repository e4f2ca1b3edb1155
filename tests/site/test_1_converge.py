"""The first run brings everything up, the second changes nothing."""

from __future__ import annotations

import re

import machine
import pytest


@pytest.fixture(scope="module")
def second_run(first_run: machine.Finished) -> machine.Finished:
    """The same line again."""
    return machine.playbook("site.yml", "--diff")


def test_first_run_brings_everything_up(first_run: machine.Finished) -> None:
    assert machine.recap(first_run.output)["failed"] == 0
    for service in ("postgres", "redis", "rate_limiter", "webhook_handler", "posting_queue", "n8n", "proxy"):
        assert any(line.split()[:2] == [service, "ok"] for line in first_run.output.splitlines() if line.strip()), (
            f"{service} is not reported ok:\n{first_run.output[-3000:]}"
        )


def test_first_run_ends_by_telling_where_things_are(first_run: machine.Finished) -> None:
    assert f"https://{machine.ADDRESS}/" in first_run.output
    assert "secrets.vault.yml" in first_run.output


def test_second_run_changes_nothing(second_run: machine.Finished) -> None:
    assert second_run.status == 0, second_run.output[-4000:]
    counters = machine.recap(second_run.output)
    assert counters["changed"] == 0, second_run.output
    assert counters["ok"] > 20


def test_a_second_make_up_builds_nothing() -> None:
    output = machine.make("images").output
    assert "building" not in output, output


def test_preflight_report_shows_every_row_and_changes_nothing() -> None:
    report = machine.make("preflight").output
    assert machine.recap(report)["changed"] == 0
    rows = [line.strip() for line in report.splitlines() if re.match(r"\s+(pass|warn|refuse) ", line)]
    shown = {re.sub(r"^(pass|warn|refuse) +", "", row) for row in rows}
    for check in (
        *("secrets", "connection", "architecture", "board", "memory", "boot medium", "power supply", "throttling"),
        *(
            "firmware settings",
            "watchdog",
            "USB disk",
            "boot program",
            "network socket",
            "clock",
            "clock sync",
            "free disk",
        ),
        # Asked here although nothing has to be fetched any more.
        *("name server", "image registry", "package mirror"),
    ):
        assert any(text.startswith(f"{check} ") for text in shown), f"{check} is missing:\n{report}"
    assert re.search(r"ready.*: \d+ pass, \d+ warn, 0 refuse", report), report


def test_check_mode_sees_no_change() -> None:
    checked = machine.playbook("site.yml", "--check", "--diff")
    assert checked.status == 0, checked.output[-4000:]
    assert machine.recap(checked.output)["changed"] == 0, checked.output
