"""The posting queue's calendar, settings, and judgements, and the secrets that follow from who posts."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping
from datetime import UTC, datetime, time
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from posting_queue.config import Config, read_plan
from posting_queue.errors import ConfigError
from posting_queue.publisher import backoff
from posting_queue.schedule import Draft, Plan, assign, slots
from posting_queue.tracking import winner

ROOT = Path(__file__).parents[2]
BERLIN = ZoneInfo("Europe/Berlin")
_SPEC = importlib.util.spec_from_file_location("posting", ROOT / "plugins/filter/posting.py")
assert _SPEC
assert _SPEC.loader
posting: Any = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(posting)


def at(text: str) -> datetime:
    """A moment in Berlin."""
    return datetime.fromisoformat(text).replace(tzinfo=BERLIN).astimezone(UTC)


def test_places_follow_the_clock_on_the_wall() -> None:
    plan = Plan((time(9), time(14), time(19)), 1)
    # The clocks go back in the night to the 25th.
    found = slots(plan, BERLIN, at("2026-10-24T18:00"), 2)
    assert found == [at("2026-10-24T19:00"), at("2026-10-25T09:00"), at("2026-10-25T14:00"), at("2026-10-25T19:00")]
    assert found[1].hour == 8


def test_an_hour_that_does_not_exist_has_its_place_once() -> None:
    plan = read_plan({"every_hours": 1}, "here")
    # From 2 the clocks go to 3.
    assert len(slots(plan, BERLIN, at("2026-03-28T23:59"), 2)) == 23
    assert len(slots(read_plan({"every_hours": 3, "posts": 4}, "here"), BERLIN, at("2026-06-01T23:59"), 2)) == 8


def test_a_place_that_has_begun_is_no_place() -> None:
    plan = Plan((time(9),), 1)
    assert slots(plan, BERLIN, at("2026-06-01T09:00"), 2) == [at("2026-06-02T09:00")]


DAYS = [at(f"2026-06-{day:02}T{hour}:00") for day in (1, 2, 3) for hour in ("09", "14")]


def test_each_draft_takes_the_next_place_with_room() -> None:
    free = {DAYS[0]: 0, DAYS[1]: 2, DAYS[2]: 1}
    places = assign([Draft(7), Draft(3), Draft(9), Draft(11)], free, {}, BERLIN)
    assert places == {7: DAYS[1], 3: DAYS[1], 9: DAYS[2]}


def test_variants_differ_in_the_day_alone() -> None:
    places = assign([Draft(1, 5), Draft(2, 5), Draft(3)], dict.fromkeys(DAYS, 1), {5: [DAYS[1]]}, BERLIN)
    assert places == {1: DAYS[3], 2: DAYS[5], 3: DAYS[0]}


def test_waits_grow_to_a_quarter_of_an_hour_and_differ() -> None:
    assert all(2.5 <= backoff(0) <= 5 for _ in range(50))
    assert all(450 <= backoff(40) <= 900 for _ in range(50))
    assert len({backoff(3) for _ in range(20)}) > 1


@pytest.mark.parametrize(
    ("seen", "place"),
    [
        ([{"reach": 1000, "likes": 50}, {"reach": 1000, "likes": 90}], 1),
        ([{"reach": 1000, "likes": 90}, {"reach": 1000, "likes": 50}, {"reach": 1000, "likes": 2}], 0),
        # Chance would do as much.
        ([{"reach": 100, "likes": 5}, {"reach": 100, "likes": 9}], None),
        ([{"reach": 0, "likes": 0}, {"reach": 1000, "likes": 90}], None),
        ([{}, {}], None),
        # More than one thing each: all of them did something.
        ([{"reach": 10, "likes": 10, "saved": 10}, {"reach": 10, "likes": 10}], None),
    ],
)
def test_a_variant_wins_where_it_is_no_chance(seen: list[Mapping[str, int]], place: int | None) -> None:
    assert winner(seen)[0] == place


ACCOUNTS = {"main": "17841400000000000", "corner-shop": "17841400000000001"}


def environment(folder: Path, settings: object, tokens: object) -> dict[str, str]:
    """Settings as the role and the secrets write them."""
    for name, content in (("settings", json.dumps(settings)), ("tokens", json.dumps(tokens)), ("word", "secret\n")):
        (folder / name).write_text(content)
    word = str(folder / "word")
    return {
        "POSTING_SETTINGS": str(folder / "settings"),
        "POSTING_SECRETS": str(folder / "tokens"),
        "POSTGRES_PASSWORD_FILE": word,
        "REDIS_PASSWORD_FILE": word,
        "RATE_LIMITER_TOKEN_FILE": word,
    }


def test_the_queue_reads_what_the_role_writes(tmp_path: Path) -> None:
    assert posting.posting_token_names(ACCOUNTS) == ["posting_token_corner_shop", "posting_token_main"]
    tokens = posting.posting_secrets(ACCOUNTS, {"posting_token_main": "token-one", "posting_token_corner_shop": "two"})
    config = Config.from_environment(environment(tmp_path, {"accounts": ACCOUNTS}, tokens))
    assert [(one.store, one.token) for one in config.accounts.values()] == [
        ("main", "token-one"),
        ("corner-shop", "two"),
    ]
    assert "token-one" not in repr(config)
    assert "secret" not in repr(config)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"accounts": {"third": "17"}}, "no token for the account of the store third"),
        ({"accounts": {"main": 17}}, "accounts.main"),
        ({"zone": "Europe/Atlantis"}, "zone"),
        ({"graph_url": "graph.facebook.com"}, "graph_url"),
        ({"confidence": True}, "confidence"),
        ({"schedule": {"pinboard": {"times": ["09:00"]}}}, "schedule.pinboard"),
        ({"schedule": {"instagram": {"times": []}}}, "schedule.instagram.times"),
        ({"schedule": {"instagram": {"times": ["25:00"]}}}, "schedule.instagram.times"),
        ({"schedule": {"instagram": {"every_hours": 0}}}, "schedule.instagram.every_hours"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_a_wrong_setting_is_named(tmp_path: Path, settings: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        Config.from_environment(environment(tmp_path, settings, {"main": "one"}))
