"""What a rebuild's report says of its seconds."""

from __future__ import annotations

from typing import Any

import pytest
import rebuild_report
import rto

CLOCK = [["preflight", 1000.0], ["host", 1010.0], ["images", 1040.5], ["data", 1100.5], ["services", 1160.0]]
STATE: dict[str, Any] = {
    "begun": 998.0,
    "source": {"repository": "far", "reached": {"postgres_data": 900.0}},
    "restored": {
        "seconds": {"preparing postgres postgres_data": 40.0, "preparing redis redis_data": 7.5, "starting n8n": 0.1},
        "stores": {"postgres_data": {"kind": "postgres", "files": 900, "bytes": 1}},
    },
}


def made(**changes: Any) -> dict[str, Any]:
    given = {"clock": CLOCK, "state": STATE, "now": 1260.0, "host": "shop-pi", "machine": "virtual Pi", **changes}
    return rebuild_report.report(**given)


def taken(report: dict[str, Any]) -> dict[str, tuple[float, bool]]:
    return {row["name"]: (row["seconds"], row["met"]) for row in report["objectives"]}


def test_phases_end_where_the_next_begins() -> None:
    report = made()
    assert report["phases"] == {"preflight": 10, "host": 30.5, "images": 60, "data": 59.5, "services": 100}
    assert report["seconds"] == 262
    assert not report["resumed"]


def test_each_objective_is_held_against_what_it_is_about() -> None:
    found = taken(made())
    assert found["services run again"] == (100, True)
    assert found["Redis is back"] == (7.5, True)
    assert found["all data is back"] == (59.5, True)
    assert found["full restore"] == (219.5, True)
    assert found["new Pi"] == (262, True)


def test_missed_objective_is_said() -> None:
    report = made(now=1160.0 + 301)
    assert taken(report)["services run again"] == (301, False)
    page = rebuild_report.markdown(report)
    assert "| services run again | 300 s | 301.0 s | MISSED |" in page
    assert page.count("MISSED") == 1


def test_run_that_went_on_counts_from_the_first_beginning_and_the_data_as_it_was_restored() -> None:
    report = made(state={**STATE, "begun": 400.0})
    assert report["resumed"]
    assert report["seconds"] == 860
    assert taken(report)["all data is back"][0] == 47.6
    assert "was cut off and went on" in rebuild_report.markdown(report)


def test_what_it_took_is_told_in_the_phases_of_the_model() -> None:
    steps = {**STATE["restored"]["seconds"], "replaying postgres postgres_data": 9.5}
    restored = {"seconds": steps, "stores": {"postgres_data": {"bytes": 2_500_000_000}, "n8n": {"bytes": 500_000_000}}}
    found = rto.of_rebuild(made(state={**STATE, "restored": restored}))
    assert found["gb"] == 3
    assert found["seconds"] == {"provision": 140.5, "images": 60, "fetch": 50, "replay": 9.5, "verify": 0}
    went_on = rto.of_rebuild(made(state={**STATE, "begun": 400.0, "restored": restored}))
    assert went_on["seconds"]["fetch"] == pytest.approx(47.6)


def test_page_says_what_kind_of_machine_was_measured_and_how_new_the_data_is() -> None:
    page = rebuild_report.markdown(made())
    assert "Measured on: virtual Pi." in page
    assert "- postgres_data as of 1970-01-01 00:15:00 UTC" in page
    assert "starting n8n" not in page
