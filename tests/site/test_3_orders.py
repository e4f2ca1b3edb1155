"""An order comes in from outside and is kept exactly once."""

from __future__ import annotations

import base64
import hmac
import json
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


def webhook(document: dict[str, Any]) -> machine.Answer:
    """Send an order as a shop of somebody else's does, signed with the secret that he was given."""
    body, name, seconds = json.dumps(document).encode(), f"msg_{document['order_id']}", str(int(time.time()))
    message = b".".join((name.encode(), seconds.encode(), body))
    signature = base64.b64encode(hmac.digest(machine.secrets()["webhook_custom"].encode(), message, "sha256")).decode()
    headers = {"webhook-id": name, "webhook-timestamp": seconds, "webhook-signature": f"v1,{signature}"}
    return machine.request("/webhooks/custom", body, headers)


def test_a_signed_webhook_becomes_an_order_once() -> None:
    document = order()
    first, second = webhook(document), webhook(document)
    assert (first.status, first.json()["status"]) == (200, "stored"), first
    assert (second.status, second.json()) == (200, {"status": "duplicate"}), second
    deadline = time.monotonic() + 60
    while rows(document["order_id"]) == 0:
        assert time.monotonic() < deadline, machine.pi("docker logs --tail 20 pi-commerce-webhook_handler-1 2>&1")
        time.sleep(0.5)
    assert rows(document["order_id"]) == 1
    state = f"SELECT state, attempts FROM shop.outbox WHERE inbox_id = {first.json()['id']}"
    while machine.psql("shop", state).split("|")[0] != "done":
        assert time.monotonic() < deadline, machine.psql("shop", state)
        time.sleep(0.5)


def test_nobody_hands_in_an_order_who_cannot_prove_himself() -> None:
    document = order()
    assert machine.request("/webhooks/custom", document).status == 401
    assert machine.request("/webhook/order-intake", document).status == 403
    assert machine.request("/api/webhooks/dead").status == 401
    assert rows(document["order_id"]) == 0


def test_a_post_that_its_author_is_not_sure_of_waits_for_a_person() -> None:
    """Once around: the scheduler says so by Redis, the worker looks into PostgreSQL."""
    caption = uuid.uuid4().hex
    machine.psql(
        "shop",
        "INSERT INTO shop.posts (channel, caption, media_url, confidence)"
        f" VALUES ('instagram', '{caption}', 'https://shop.example.com/mug.jpg', 0.4)",
    )
    deadline = time.monotonic() + 150
    while machine.psql("shop", f"SELECT status FROM shop.posts WHERE caption = '{caption}'") != "approval":
        assert time.monotonic() < deadline, machine.pi("docker logs --tail 20 pi-commerce-posting_queue-1 2>&1")
        time.sleep(2)
    queue = "docker exec pi-commerce-posting_queue-1 python -m posting_queue"
    shown = [json.loads(line) for line in machine.pi(f"{queue} calendar").splitlines()]
    [post] = [row for row in shown if row["caption"] == caption]
    machine.pi(f"{queue} reject {post['id']}")
    assert machine.psql("shop", f"SELECT status FROM shop.posts WHERE caption = '{caption}'") == "cancelled"


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
