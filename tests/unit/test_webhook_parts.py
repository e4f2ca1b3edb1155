"""The parts of the webhook handler that need no neighbours: settings, group commit, patience, units."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
from webhook_handler import limits
from webhook_handler.config import read_settings
from webhook_handler.delivery import backoff
from webhook_handler.errors import ConfigError, Unavailable
from webhook_handler.group_commit import GroupCommit

GOOD: dict[str, Any] = {
    "endpoints": {"custom": {}, "shopify/second": {"store": "second", "shop": "corner.myshopify.com"}},
    "consumers": {"shop": {"url": "http://n8n:5678/webhook/x"}, "tasks": {"kind": "celery", "task": "a.b"}},
    "routes": [
        {"endpoint": "custom", "topics": ["order", "order.*"], "consumers": ["shop"]},
        {"endpoint": "custom", "topics": ["order.paid"], "consumers": ["tasks", "shop"]},
    ],
}
SECRETS = {"endpoints": {"custom": {"secrets": ["long enough"]}, "shopify/second": {"secrets": ["also long"]}}}


def settings(folder: Path, given: Any = GOOD, secrets: Any = SECRETS) -> Any:
    for name, content in (("settings.json", given), ("secrets.json", secrets)):
        (folder / name).write_text(content if isinstance(content, str) else json.dumps(content))
    return read_settings(folder / "settings.json", folder / "secrets.json")


def test_settings_say_who_is_handed_what(tmp_path: Path) -> None:
    read = settings(tmp_path)
    assert read.consumers_of("custom", "order") == ["shop"]
    assert read.consumers_of("custom", "order.paid") == ["shop", "tasks"]
    assert read.consumers_of("custom", "cart") == read.consumers_of("shopify/second", "order") == []
    assert "long enough" not in repr(read)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"endpoints": {"amazon": {}}}, "endpoints.amazon: there is no provider 'amazon'; there are shopify"),
        ({"endpoints": {"custom": {"colour": "red"}}}, "endpoints.custom.colour: is unknown"),
        ({"endpoints": {"custom": {"tolerance_seconds": "5"}}}, "tolerance_seconds: must be a whole number from 1"),
        ({"endpoints": {"custom": {"max_body_bytes": True}}}, "max_body_bytes: must be a whole number"),
        ({"endpoints": {"paypal": {}}}, "webhook_id: must be a text"),
        ({"endpoints": {"stripe": {}}}, "endpoints.stripe.secrets: must be a list of texts"),
        ({"consumers": {"shop": {"url": "n8n"}}}, "consumers.shop.url: must start with http"),
        ({"consumers": {"shop": {"kind": "kafka"}}}, "kind: must be one of http, celery, not 'kafka'"),
        ({"consumers": {"shop": {"kind": "celery"}}}, "task: must be a text"),
        ({"consumers": {"shop": {"url": "http://x", "format": "xml"}}}, "format: must be one of raw, order"),
        ({"routes": [{"endpoint": "meta", "topics": ["*"], "consumers": ["shop"]}]}, "endpoint: must be one of custom"),
        ({"routes": [{"endpoint": "custom", "topics": [], "consumers": ["shop"]}]}, "topics: must be a list of texts"),
        (
            {"routes": [{"endpoint": "custom", "topics": ["*"], "consumers": ["x"]}]},
            "'x' is not declared, only shop, tasks",
        ),
        ({"keeping": {"key_days": 0}}, "keeping.key_days: must be a whole number from 4"),
        ({"more": 1}, ".more: is unknown; known are endpoints"),
    ],
)
def test_a_wrong_setting_is_named(tmp_path: Path, change: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError) as refused:
        settings(tmp_path, GOOD | change)
    assert says in str(refused.value)
    assert str(tmp_path) in str(refused.value)


@pytest.mark.parametrize("text", ["", "{", "[]", '"x"'])
def test_files_that_are_none_are_named(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match=r"settings\.json"):
        settings(tmp_path, text)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_settings(tmp_path / "nowhere", tmp_path / "secrets.json")


def together(commit: Any, items: Sequence[int], **options: Any) -> list[Any]:
    """Hand in all at once; results and errors."""

    async def run() -> list[Any]:
        group: GroupCommit[int, int] = GroupCommit(commit, **{"largest": 10, "waiting": 100, "seconds": 5} | options)
        writer = asyncio.create_task(group.run())
        done = await asyncio.gather(*(group.put(item) for item in items), return_exceptions=True)
        writer.cancel()
        return list(done)

    return asyncio.run(run())


def test_who_comes_together_is_committed_together_and_gets_his_own() -> None:
    batches: list[Sequence[int]] = []

    async def commit(items: Sequence[int]) -> list[int]:
        batches.append(items)
        await asyncio.sleep(0)
        return [item * 2 for item in items]

    assert together(commit, range(25)) == [item * 2 for item in range(25)]
    assert [len(batch) for batch in batches] == [10, 10, 5]


def test_a_transaction_that_fails_fails_all_of_it_and_no_other() -> None:
    async def commit(items: Sequence[int]) -> list[int]:
        if 3 in items:
            raise Unavailable("database", "gone")
        return list(items)

    done = together(commit, range(12))
    assert all(isinstance(one, Unavailable) for one in done[:10])
    assert done[10:] == [10, 11]


def test_a_transaction_that_hangs_is_given_up_and_the_next_one_is_made() -> None:
    async def commit(items: Sequence[int]) -> list[int]:
        if 3 in items:
            await asyncio.sleep(60)
        return list(items)

    done = together(commit, range(12), seconds=0.05)
    assert all(isinstance(one, TimeoutError) for one in done[:10])
    assert done[10:] == [10, 11]


def test_more_than_may_wait_are_turned_away_at_once() -> None:
    async def commit(items: Sequence[int]) -> list[int]:
        return list(items)

    done = together(commit, range(12), waiting=5)
    assert [isinstance(one, Unavailable) for one in done] == [False] * 5 + [True] * 7


def test_a_batch_is_bounded_by_its_size() -> None:
    batches: list[int] = []

    async def commit(items: Sequence[int]) -> list[int]:
        batches.append(len(items))
        return list(items)

    together(commit, range(6), size=lambda item: 100, largest_bytes=250)
    assert batches == [3, 3]


def test_patience_doubles_is_spread_and_ends() -> None:
    tries = {attempt: [backoff(attempt) for _ in range(200)] for attempt in (1, 2, 5, 50, 10_000)}
    for attempt, whole in ((1, 1), (2, 2), (5, 16), (50, 900), (10_000, 900)):
        assert whole / 2 <= min(tries[attempt]) < whole * 0.6
        assert whole * 0.9 < max(tries[attempt]) <= whole


class Limiter:
    """Answers like the rate limiter with so many units left."""

    def __init__(self, units: int, status: int = 200) -> None:
        self.units, self.status, self.asked = units, status, []  # type: tuple[int, int, list[int]]

    def __call__(self, request: httpx.Request) -> httpx.Response:
        question = json.loads(request.content)
        assert (question["api"], question["key"]) == ("webhooks", "shopify")
        self.asked.append(question["cost"])
        allowed = question["cost"] <= self.units
        self.units -= question["cost"] if allowed else 0
        return httpx.Response(self.status, json={"allowed": allowed, "retry_after": 0 if allowed else 7.5})


def asked(limiter: Limiter, times: int) -> list[float]:
    async def run() -> list[float]:
        one = limits.Limits("http://rate_limiter:3001")
        one._client = httpx.AsyncClient(transport=httpx.MockTransport(limiter), base_url="http://rate_limiter:3001")
        return [await one.wait_for("shopify") for _ in range(times)]

    return asyncio.run(run())


def test_units_are_fetched_a_stock_at_a_time() -> None:
    limiter = Limiter(1000)
    assert asked(limiter, 120) == [0] * 120
    assert limiter.asked == [50, 50, 50]


def test_what_is_left_is_used_up_and_then_it_says_when() -> None:
    limiter = Limiter(53)
    waits = asked(limiter, 60)
    assert waits[:53] == [0] * 53
    assert all(7 < wait <= 7.5 for wait in waits[53:])
    # Until then nobody is asked again.
    assert limiter.asked == [50, 50, 1, 50, 1, 50, 1, 50, 1]


@pytest.mark.parametrize("status", [404, 500, 503])
def test_a_limiter_that_does_not_answer_holds_nobody_up(status: int) -> None:
    limiter = Limiter(1000, status)
    assert asked(limiter, 20) == [0] * 20
    assert limiter.asked == [50]


def test_without_a_limiter_nothing_is_limited() -> None:
    assert asyncio.run(limits.Limits("").wait_for("shopify")) == 0


def test_the_rate_limiter_is_told_who_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str | None] = []

    def answer(request: httpx.Request) -> httpx.Response:
        told.append(request.headers.get("authorization"))
        return httpx.Response(200, json={"allowed": True, "retry_after": 0})

    def client(**options: Any) -> httpx.AsyncClient:
        return httpx.AsyncClient(transport=httpx.MockTransport(answer), **options)

    monkeypatch.setattr(limits, "client", client)
    for given in (["handler-token"], []):
        assert asyncio.run(limits.Limits("http://rate_limiter:3001", *given).wait_for("shopify")) == 0
    assert told == ["Bearer handler-token", None]
