"""An order comes in from outside and is kept exactly once."""

from __future__ import annotations

import time
import uuid
from typing import Any

import machine
import pytest


def order(**changes: Any) -> dict[str, Any]:
    """A valid order; keyword arguments replace fields, None takes one away."""
    document = {
        "order_id": f"T-{uuid.uuid4().hex[:12]}",
        "source": "instagram",
        "total_cents": 4990,
        "currency": "EUR",
        "items": [{"sku": "MUG-1", "quantity": 2, "price_cents": 2495}],
        **changes,
    }
    return {key: value for key, value in document.items() if value is not None}


def rows(order_id: str) -> int:
    """How often the order stands in PostgreSQL."""
    return int(machine.psql("shop", f"SELECT count(*) FROM shop.orders WHERE order_id = '{order_id}'"))


def test_health_echo_answers() -> None:
    answer = machine.request("/webhook/health-echo?token=abc123")
    assert answer.status == 200
    assert answer.json()["echo"] == "abc123"


def test_same_order_twice_is_saved_once() -> None:
    document = order()
    first = machine.order(document)
    second = machine.order(document)
    assert (first.status, first.json()["status"]) == (201, "saved"), first
    assert (second.status, second.json()["status"]) == (200, "duplicate"), second
    assert first.json()["id"] == second.json()["id"]
    assert rows(document["order_id"]) == 1


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("order_id", None),
        ("source", "nobody"),
        ("total_cents", -1),
        ("total_cents", "free"),
        ("currency", "euro"),
        ("items", []),
    ],
)
def test_bad_order_is_refused_with_the_field_named(field: str, value: Any) -> None:
    document = order(**{field: value})
    answer = machine.order(document)
    assert answer.status == 422, answer
    assert field in answer.body
    if "order_id" in document:
        assert rows(document["order_id"]) == 0


def test_more_than_the_limit_is_put_off_not_lost() -> None:
    # Shopify's limit is 2 per second: at least one of ten orders sent at once has to wait.
    answers = []
    for _ in range(10):
        document = order(source="shopify")
        answers.append((document, machine.order(document)))
        if answers[-1][1].status == 429:
            break
    document, refused = answers[-1]
    if refused.status != 429:
        pytest.fail(f"never limited: {[answer.status for _, answer in answers]}")
    assert rows(document["order_id"]) == 0
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        again = machine.order(document)
        if again.status != 429:
            break
        time.sleep(again.json()["retry_after"])
    assert again.status == 201
    assert rows(document["order_id"]) == 1
