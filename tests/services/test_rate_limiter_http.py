"""The HTTP face: what it answers to right and wrong requests, and what it tells Prometheus."""

from __future__ import annotations

import json
from typing import NamedTuple

import pytest
from rate_limiter_server import CHECK, POLICIES, Client


class Wrong(NamedTuple):
    """A request that must be refused with ``status`` and an error that contains ``says``."""

    status: int
    says: str
    method: str = "POST"
    path: str = CHECK
    body: bytes | None = None


WRONG = {
    "unknown path": Wrong(404, "no such path", "GET", "/"),
    "unknown api": Wrong(404, "'insta'", body=b'{"api": "insta"}'),
    "unknown api in a query": Wrong(404, "'insta'", "GET", f"{CHECK}?api=insta"),
    "wrong method": Wrong(405, "use GET, POST", "PUT"),
    "wrong method for health": Wrong(405, "use GET", "POST", "/health"),
    "body too large": Wrong(413, "16384 bytes", body=b" " * 16_385),
    "no body": Wrong(422, "valid JSON"),
    "no JSON": Wrong(422, "valid JSON", body=b"api=instagram"),
    "no UTF-8": Wrong(422, "valid JSON", body=b'{"api": "\xff"}'),
    "deep nesting": Wrong(422, "valid JSON", body=b"[" * 16_000),
    "a number of thousands of digits": Wrong(422, "valid JSON", body=b'{"cost": ' + b"9" * 9000 + b"}"),
    "no object": Wrong(422, "JSON object", body=b"[]"),
    "no api": Wrong(422, "api: is required", body=b"{}"),
    "no api in a query": Wrong(422, "api: is required", "GET", CHECK),
    "api of a wrong type": Wrong(422, "api: is required", body=b'{"api": ["instagram"]}'),
    "unknown field": Wrong(422, "costs: is unknown", body=b'{"api": "instagram", "costs": 2}'),
    "unknown field in a query": Wrong(422, "costs: is unknown", "GET", f"{CHECK}?api=instagram&costs=2"),
    "field given twice": Wrong(422, "cost: is given twice", "GET", f"{CHECK}?cost=1&cost=2"),
    "too many fields": Wrong(422, "5 fields", "GET", f"{CHECK}?{'cost=1&' * 9}"),
    "query not UTF-8": Wrong(422, "UTF-8", "GET", f"{CHECK}?api=%ff"),
    "key of a wrong type": Wrong(422, "key: is text", body=b'{"api": "instagram", "key": 7}'),
    "key too long": Wrong(422, "key: is text of at most 128", body=b'{"api": "a", "key": "%s"}' % (b"k" * 129)),
    "key with a line break": Wrong(422, "key: has a character", body=b'{"api": "a", "key": "a\\n"}'),
    "key with half a surrogate": Wrong(422, "valid JSON", body=b'{"api": "a", "key": "\\ud800"}'),
    "cost below 0": Wrong(422, "cost: is a whole", body=b'{"api": "instagram", "cost": -1}'),
    "cost with a fraction": Wrong(422, "cost: is a whole", body=b'{"api": "instagram", "cost": 1.5}'),
    "cost true": Wrong(422, "cost: is a whole", body=b'{"api": "instagram", "cost": true}'),
    "cost null": Wrong(422, "cost: is a whole", body=b'{"api": "instagram", "cost": null}'),
    "cost as text": Wrong(422, "cost: is a whole", body=b'{"api": "instagram", "cost": "1"}'),
    "cost too high": Wrong(422, "cost: is a whole", body=b'{"api": "instagram", "cost": 1000000001}'),
    "cost of thousands of digits in a query": Wrong(422, "cost: is a", "GET", f"{CHECK}?cost={'9' * 5000}&api=a"),
    "cost no number in a query": Wrong(422, "cost: is a whole", "GET", f"{CHECK}?api=instagram&cost=-1"),
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG.keys())
def test_a_wrong_request_is_refused_and_told_why(client: Client, wrong: Wrong) -> None:
    answer = client.request(wrong.method, wrong.path, wrong.body)
    assert answer.status == wrong.status, answer
    assert answer.headers["content-type"] == "application/json"
    assert wrong.says in str(answer.json["error"])
    if wrong.status == 422:
        field, colon, _ = wrong.says.partition(":")
        assert answer.json["field"] == (field if colon else None)
    # The connection still serves.
    assert client.request("GET", "/health").status == 200


def test_an_unknown_api_is_told_the_known_ones(client: Client) -> None:
    assert client.ask("insta").json["known"] == list(POLICIES)


def test_a_wrong_method_is_told_the_right_ones(client: Client) -> None:
    assert client.request("DELETE", CHECK).headers["allow"] == "GET, POST"


def test_query_and_body_ask_the_same(client: Client, tenant: str) -> None:
    by_query = client.request("GET", f"{CHECK}?api=five_an_hour&key={tenant}&cost=2")
    assert by_query.json["remaining"] == 3
    assert client.check("five_an_hour", tenant, 2)["remaining"] == 1
    assert by_query.json.keys() == {"allowed", "api", "limit", "remaining", "reset_in", "retry_after"}


def test_empty_parameters_and_a_null_key_count_as_not_given(client: Client) -> None:
    empty = client.request("GET", f"{CHECK}?api=gemini&key=&cost=")
    absent = client.request("POST", CHECK, json.dumps({"api": "gemini", "key": None}).encode())
    assert (empty.json["remaining"], absent.json["remaining"]) == (59, 58)


def test_a_key_may_be_any_text(client: Client, tenant: str) -> None:
    key = f"{tenant} läden:*{{}}\\'\""
    assert client.check("five_an_hour", key, 5)["remaining"] == 0
    assert client.check("five_an_hour", f"{tenant} läden:", 0)["remaining"] == 5


def test_metrics_count_every_result(client: Client, tenant: str) -> None:
    before = client.metrics()
    for cost in (5, 0, 1, 1):
        client.check("five_an_hour", tenant, cost)
    after = client.metrics()
    for result, times in {"allowed": 1, "peek": 1, "denied": 2, "error": 0}.items():
        name = f'rate_limiter_checks_total{{api="five_an_hour",result="{result}"}}'
        assert after[name] - before[name] == times, result
    content_type = client.request("GET", "/metrics").headers["content-type"]
    assert content_type.startswith("text/plain; version=0.0.4")
    assert "rate_limiter_redis_errors_total" in after
    assert any(name.startswith("rate_limiter_build_info{") for name in after)
    assert not any(name.endswith("_created") for name in after)
