"""The secrets and the settings that follow from who sends webhooks."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

from webhook_handler.config import read_settings

ROOT = Path(__file__).parents[2]
_SPEC = importlib.util.spec_from_file_location("webhooks", ROOT / "plugins/filter/webhooks.py")
assert _SPEC
assert _SPEC.loader
webhooks: Any = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(webhooks)

ENDPOINTS = {
    "custom": {"changing": True},
    "shopify/the-second": {"store": "second"},
    "paypal": {"webhook_id": "W"},
    "meta": {},
}
CONSUMERS = {"orders": {"url": "http://n8n:5678/x"}, "tasks": {"kind": "celery", "task": "a.b"}}
NAMES = [
    "webhook_admin",
    "webhook_consumer_orders",
    "webhook_custom",
    "webhook_custom_before",
    "webhook_meta",
    "webhook_meta_verify",
    "webhook_shopify_the_second",
]


def test_names_of_all_secrets() -> None:
    assert webhooks.webhook_secret_names(ENDPOINTS, CONSUMERS) == NAMES


def test_what_a_provider_hands_out_is_not_made_up() -> None:
    assert webhooks.webhook_given_names(ENDPOINTS) == [
        "webhook_custom_before",
        "webhook_meta",
        "webhook_shopify_the_second",
    ]


def test_the_handler_reads_what_the_role_writes(tmp_path: Path) -> None:
    secrets = {name: f"value of {name}" for name in NAMES}
    routes = [
        {"endpoint": "custom", "topics": ["*"], "consumers": ["orders"]},
        {"endpoint": "stripe", "topics": ["*"], "consumers": ["orders"]},
    ]
    written = {
        "settings.json": webhooks.webhook_settings(ENDPOINTS, CONSUMERS, routes, {"payload_days": 7}),
        "secrets.json": webhooks.webhook_secrets(ENDPOINTS, CONSUMERS, secrets),
    }
    for name, content in written.items():
        (tmp_path / name).write_text(json.dumps(content))
    read = read_settings(tmp_path / "settings.json", tmp_path / "secrets.json")
    assert read.endpoints["custom"].secrets == ("value of webhook_custom", "value of webhook_custom_before")
    assert read.endpoints["meta"].token == "value of webhook_meta_verify"
    assert read.endpoints["paypal"].secrets == ()
    assert read.consumers["orders"].token == "value of webhook_consumer_orders"
    assert read.admin_token == "value of webhook_admin"
    assert [route.endpoint for route in read.routes] == ["custom"]
    assert read.keeping.payload_days == 7
