"""The workflows of this project, live as their files say, asked from outside."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from typing import Any

from testinfra.host import Host

Ask = Callable[..., Any]


def rows(host: Host, query: str, database: str = "n8n") -> str:
    """What PostgreSQL answers."""
    found = host.check_output("docker exec pi-commerce-postgres-1 psql -U postgres -XAt -d %s -c %s", database, query)
    return str(found)


def test_older_version_is_replaced(entrance: Ask) -> None:
    answer = entrance("/webhook/health-echo?token=molecule")
    assert answer.status == 200
    assert (json.loads(answer.body)["status"], json.loads(answer.body)["echo"]) == ("ok", "molecule")


def test_what_is_no_longer_declared_answers_no_more_and_is_kept(entrance: Ask, host: Host) -> None:
    assert entrance("/webhook/retired").status == 404
    assert rows(host, "SELECT active FROM workflow_entity WHERE id = 'moleculeRetired1'") == "f"


def test_order_reaches_the_database_with_the_imported_credential(
    entrance: Ask, host: Host, secrets: dict[str, str]
) -> None:
    number = f"M-{uuid.uuid4().hex[:12]}"
    items = [{"sku": "MUG", "quantity": 1, "price_cents": 900}]
    order = {"order_id": number, "source": "facebook", "total_cents": 900, "currency": "EUR", "items": items}
    assert entrance("/webhook/order-intake", order).status == 403
    token = {"X-Webhook-Token": secrets["webhook_consumer_orders"]}
    assert entrance("/webhook/order-intake", order, token).status == 201
    assert rows(host, f"SELECT total_cents FROM shop.orders WHERE order_id = '{number}'", "shop") == "900"


def test_password_is_sealed_in_n8n(host: Host, secrets: dict[str, str]) -> None:
    kept = rows(host, "SELECT data FROM credentials_entity WHERE id = 'piShopPostgres01'")
    assert kept
    assert secrets["shop_db_password"] not in kept


def test_no_key_to_n8n_is_left_behind(host: Host) -> None:
    assert rows(host, "SELECT count(*) FROM user_api_keys") == "0"
