"""The webhook handler beside a real PostgreSQL and Redis: what comes in is stored once, and handed on."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import copy
import json
import re
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import asyncpg
import pytest
from intake_bad import KINDS, Bad
from intake_calls import SENDERS, Answer, Call, custom, meta, request, send, shopify, shopify_order, stripe
from intake_parts import ADMIN, PASSWORD, SECRETS, SETTINGS, Parts, revive, running
from waiting import wait_until
from webhook_handler.database import CLAIM

# 20,000 events of 5,000 orders.
WAITING = """
WITH came AS (
    INSERT INTO shop.inbox (store_id, endpoint, event_id, topic, order_key)
    SELECT (SELECT min(id) FROM shop.stores), 'backlog', number::text, 'order', (number % 5000)::text
    FROM generate_series(1, 20000) AS number RETURNING id, store_id, order_key
)
INSERT INTO shop.outbox (store_id, inbox_id, consumer, order_key) SELECT store_id, id, 'nobody', order_key FROM came
"""
BEARER = {"authorization": f"Bearer {ADMIN}"}
# The service with a mistake in what hands events on.
BROKEN = """
import sys
from webhook_handler import delivery
from webhook_handler.__main__ import main

async def run(self):
    raise RuntimeError("planted")

delivery.Delivery.run = run
sys.argv = ["webhook_handler"]
sys.exit(main())
"""
Address = tuple[str, int]


def settings() -> dict[str, Any]:
    """What is shipped, with a second consumer that is Celery, and one that is not there."""
    changed: dict[str, Any] = copy.deepcopy(SETTINGS)
    changed["consumers"]["tasks"] = {"kind": "celery", "task": "shop.event", "queue": "celery-x", "timeout_seconds": 3}
    changed["consumers"]["away"] = {"url": "http://127.0.0.1:9/nobody", "timeout_seconds": 1}
    changed["routes"] += [
        {"endpoint": "meta", "topics": ["*"], "consumers": ["tasks"]},
        {"endpoint": "shipping", "topics": ["tracker.*"], "consumers": ["away"]},
    ]
    changed["consumers"]["shop"]["format"] = "order"
    return changed


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parts]:
    with running(tmp_path_factory.mktemp("intake"), settings=settings()) as made:
        yield made


@pytest.fixture
def address(parts: Parts) -> Address:
    found = parts.parts["handler"].address()
    assert found
    return found


def sql(parts: Parts, query: str, *arguments: object, store: str = "*", user: str = "shop") -> list[Any]:
    """Rows of a query, as a service that sees all stores, or as one of a single store."""

    async def ask() -> list[Any]:
        connection = await asyncpg.connect(parts.dsn(user), server_settings={"shop.store": store})
        try:
            return list(await connection.fetch(query, *arguments))
        finally:
            await connection.close()

    return asyncio.run(ask())


def stored(parts: Parts) -> int:
    return int(sql(parts, "SELECT count(*) FROM inbox")[0][0])


def effect(parts: Parts, key: str, seconds: float = 10) -> Any:
    """What the consumer has made of an event, once it has."""
    found: list[Any] = []

    def looked() -> bool:
        # The consumer makes its tables when it is first asked.
        with contextlib.suppress(asyncpg.UndefinedTableError):
            found[:] = sql(parts, "SELECT * FROM effects WHERE key = $1", key)
        return bool(found)

    wait_until(looked, seconds, f"{key} had its effect")
    return found[0]


def outbox(parts: Parts, number: int) -> Any:
    [row] = sql(parts, "SELECT * FROM outbox WHERE inbox_id = $1", number)
    return row


def event(kind: str, **more: object) -> Call:
    return custom({"type": kind, **more})


@pytest.mark.parametrize("bad", KINDS, ids=lambda bad: bad.name)
def test_what_is_wrong_is_answered_and_not_stored(parts: Parts, address: Address, bad: Bad) -> None:
    before = stored(parts)
    answer = send(address, bad.make(), method=bad.method, kind=bad.kind)
    assert (answer.status, bad.says in str(answer.document)) == (bad.status, True), answer
    assert stored(parts) == before


def test_there_are_sixty_kinds_and_each_has_a_name_of_its_own() -> None:
    assert len({bad.name for bad in KINDS}) == len(KINDS) >= 60


@pytest.mark.parametrize("sender", SENDERS, ids=lambda sender: sender.__name__)
def test_each_provider_is_stored_once(parts: Parts, address: Address, sender: Any) -> None:
    call, before = sender(), stored(parts)
    first, second = send(address, call), send(address, call)
    assert (first.status, first.document["status"]) == (200, "stored")
    assert (second.status, second.document) == (200, {"status": "duplicate"})
    assert stored(parts) == before + 1
    [row] = sql(parts, "SELECT * FROM inbox WHERE id = $1", first.document["id"])
    assert (row["endpoint"], bytes(row["body"])) == (call.endpoint, call.body)


def test_both_secrets_count_while_one_is_being_changed(address: Address) -> None:
    new, old = SECRETS["shopify"]
    assert send(address, shopify(secret=new)).document["status"] == "stored"
    assert send(address, shopify(secret=old)).document["status"] == "stored"
    old_key = base64.b64decode(SECRETS["custom"][1].removeprefix("whsec_"))
    assert send(address, custom(secret=old_key)).document["status"] == "stored"


def test_several_signatures_of_which_one_fits(address: Address) -> None:
    call = custom()
    several = call.headers | {"webhook-signature": f"v1,AAAA v0,BBBB {call.headers['webhook-signature']}"}
    assert send(address, call._replace(headers=several)).status == 200
    paid = stripe()
    wrong_too = paid.headers["stripe-signature"].replace(",v1=", f",v1={'00' * 32},v1=")
    assert send(address, paid._replace(headers={"stripe-signature": wrong_too})).status == 200


def test_the_same_body_with_another_unsigned_id_is_the_same_event(address: Address) -> None:
    call = shopify()
    again = call._replace(headers=call.headers | {"x-shopify-webhook-id": secrets.token_hex(8)})
    assert [send(address, one).document["status"] for one in (call, again)] == ["stored", "duplicate"]


def test_the_same_id_of_two_endpoints_is_two_events(parts: Parts, address: Address) -> None:
    number = f"msg_{secrets.token_hex(8)}"
    first = send(address, custom(number=number))
    second = send(address, custom(number=number, endpoint="custom/second"))
    assert [first.document["status"], second.document["status"]] == ["stored", "stored"]
    rows = sql(
        parts, "SELECT name FROM inbox JOIN stores ON stores.id = store_id WHERE event_id = $1 ORDER BY 1", number
    )
    assert [row["name"] for row in rows] == ["main", "second"]


def test_forty_twins_at_once_are_one_event(parts: Parts, address: Address) -> None:
    call = custom()
    with ThreadPoolExecutor(40) as pool:
        answers = list(pool.map(lambda _: send(address, call), range(40)))
    assert sorted(answer.document["status"] for answer in answers) == ["duplicate"] * 39 + ["stored"]
    effect(parts, f"custom:{call.headers['webhook-id']}")


def test_a_header_given_twice_is_refused(parts: Parts, address: Address) -> None:
    call, before = shopify(), stored(parts)
    lines = "".join(f"{name}: {value}\r\n" for name, value in call.headers.items())
    text = (
        f"POST /webhooks/shopify HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n{lines}"
        f"X-Shopify-Topic: orders/cancelled\r\ncontent-length: {len(call.body)}\r\nconnection: close\r\n\r\n"
    )
    assert "400" in raw(address, text.encode() + call.body).split("\r\n")[0]
    assert stored(parts) == before


def raw(address: Address, sent: bytes, seconds: float = 15) -> str:
    """The answer to bytes as they are; nothing where the connection is closed."""
    with socket.create_connection(address, timeout=seconds) as connection:
        connection.sendall(sent)
        pieces = []
        try:
            while piece := connection.recv(65536):
                pieces.append(piece)
        except ConnectionResetError:
            pass
    return b"".join(pieces).decode()


def head(call: Call, length: int | None) -> bytes:
    lines = "".join(f"{name}: {value}\r\n" for name, value in call.headers.items())
    size = f"content-length: {length}" if length is not None else "transfer-encoding: chunked"
    first = f"POST /webhooks/{call.endpoint} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
    return f"{first}{lines}{size}\r\n\r\n".encode()


def test_a_webhook_that_is_cut_off_is_not_stored(parts: Parts, address: Address) -> None:
    call, before = custom(), stored(parts)
    with socket.create_connection(address, timeout=5) as connection:
        connection.sendall(head(call, len(call.body)) + call.body[:-1])
    time.sleep(0.3)
    assert stored(parts) == before
    assert send(address, call).document["status"] == "stored"


def test_who_sends_a_byte_now_and_then_is_cut_and_delays_nobody(parts: Parts, address: Address) -> None:
    call, before = custom(), stored(parts)
    with socket.create_connection(address, timeout=20) as slow:
        slow.sendall(head(call, len(call.body)))
        began = time.monotonic()
        while time.monotonic() - began < 9:
            slow.sendall(call.body[:1])
            asked = time.monotonic()
            assert request(address, "GET", "/health").status == 200
            assert time.monotonic() - asked < 2
            time.sleep(1)
        assert slow.recv(100).startswith(b"HTTP/1.1 408")
    assert stored(parts) == before


def test_ten_megabytes_in_pieces_without_a_length_are_refused(parts: Parts, address: Address) -> None:
    call, before = custom(), stored(parts)
    piece = b"10000\r\n" + b"x" * 65536 + b"\r\n"
    with socket.create_connection(address, timeout=20) as connection:
        connection.sendall(head(call, None))
        try:
            for _ in range(160):
                connection.sendall(piece)
            answer = connection.recv(100)
        except (BrokenPipeError, ConnectionResetError):
            answer = b"HTTP/1.1 413"
    assert answer.startswith(b"HTTP/1.1 413")
    assert stored(parts) == before


def test_a_length_that_is_a_lie_ends_the_connection(parts: Parts, address: Address) -> None:
    call, before = custom(), stored(parts)
    assert "400" in raw(address, head(call, 5)[:-2] + b"content-length: 7\r\n\r\n" + call.body).split("\r\n")[0]
    assert stored(parts) == before


def test_meta_is_shaken_hands_with(address: Address) -> None:
    asked = "/webhooks/meta?hub.mode=subscribe&hub.challenge=1158201444&hub.verify_token="
    good = request(address, "GET", f"{asked}verify-me")
    assert (good.status, good.document, good.headers["content-type"]) == (200, "1158201444", "text/plain")
    assert request(address, "GET", f"{asked}guessed").status == 401
    script = "/webhooks/meta?hub.mode=subscribe&hub.verify_token=verify-me&hub.challenge=<script>"
    assert request(address, "GET", script).status == 400
    assert request(address, "GET", "/webhooks/shopify").status == 405


def test_an_order_is_handed_over_as_the_shop_takes_it(parts: Parts, address: Address) -> None:
    call = shopify(shopify_order(4711))
    number = send(address, call).document["id"]
    made = effect(parts, f"shopify:{call.headers['x-shopify-webhook-id']}")
    assert json.loads(bytes(made["body"])) == {
        "order_id": "4711",
        "source": "shopify",
        "total_cents": 4990,
        "currency": "EUR",
        "items": [{"sku": "MUG", "quantity": 2, "price_cents": 2495}],
    }
    headers = json.loads(made["headers"])
    said = {name: value for name, value in headers.items() if name.startswith("x-webhook-")}
    received = said.pop("x-webhook-received")
    assert received.startswith("20")
    assert said == {
        "x-webhook-event": str(number),
        "x-webhook-endpoint": "shopify",
        "x-webhook-topic": "orders/create",
        "x-webhook-store": "main",
        "x-webhook-order": "4711",
        "x-webhook-occurred": "2026-11-20T10:00:00.123456+00:00",
        "x-webhook-attempt": "1",
        "x-webhook-replay": "0",
    }


def test_what_no_order_can_be_read_from_is_given_up_and_says_why(parts: Parts, address: Address) -> None:
    number = send(address, shopify({"id": 1, "currency": "JPY", "total_price": "10.5"})).document["id"]
    wait_until(lambda: outbox(parts, number)["state"] == "dead", 10, "it was given up")
    row = outbox(parts, number)
    assert (row["reason"], row["last_error"]) == ("unreadable", "total_price is not an amount of its currency")


def test_a_consumer_that_refuses_is_not_asked_again(parts: Parts, address: Address) -> None:
    number = send(address, event("answer.422")).document["id"]
    wait_until(lambda: outbox(parts, number)["state"] == "dead", 10, "it was given up")
    row = outbox(parts, number)
    assert (row["reason"], row["attempts"], row["last_error"]) == ("refused", 1, "422 ")


@pytest.mark.parametrize("status", [401, 404, 409, 429, 500, 502, 302])
def test_other_answers_are_asked_again(parts: Parts, address: Address, status: int) -> None:
    call = event(f"second.{status}")
    number = send(address, call).document["id"]
    effect(parts, f"custom:{call.headers['webhook-id']}", 20)
    wait_until(lambda: outbox(parts, number)["state"] == "done", 5, "it is noted")
    assert outbox(parts, number)["attempts"] == 2


def test_a_consumer_that_says_when_is_not_asked_before(parts: Parts, address: Address) -> None:
    call = event("second.429")
    send(address, call)
    effect(parts, f"custom:{call.headers['webhook-id']}", 20)
    [first, second] = sql(
        parts, "SELECT at FROM asked WHERE key = $1 ORDER BY at", f"custom:{call.headers['webhook-id']}"
    )
    assert (second["at"] - first["at"]).total_seconds() >= 2


def test_a_consumer_that_takes_too_long_is_asked_again(parts: Parts, address: Address) -> None:
    call = event("slow.5")
    began = time.monotonic()
    send(address, call)
    effect(parts, f"custom:{call.headers['webhook-id']}", 20)
    assert time.monotonic() - began > 3
    assert len(sql(parts, "SELECT FROM asked WHERE key = $1", f"custom:{call.headers['webhook-id']}")) == 2


def test_events_of_one_order_stay_in_sequence_and_delay_no_other(parts: Parts, address: Address) -> None:
    order = f"S-{secrets.token_hex(4)}"
    kinds = ["second.500", "order.paid", "slow.1", "order.shipped", "second.404", "order.delivered"]
    sent = [send(address, event(kind, order_id=order)).document["id"] for kind in kinds]
    other = event("order.other", order_id=f"{order}-other")
    send(address, other)
    effect(parts, f"custom:{other.headers['webhook-id']}", 2)
    wait_until(
        lambda: len(sql(parts, "SELECT FROM effects WHERE order_key = $1", order)) == len(kinds), 30, "all are there"
    )
    assert [
        row["event"] for row in sql(parts, "SELECT event FROM effects WHERE order_key = $1 ORDER BY place", order)
    ] == sent


@pytest.mark.parametrize("counted", [False, True], ids=["never counted", "counted"])
def test_how_much_waits_does_not_slow_who_takes_some_of_it(parts: Parts, counted: bool) -> None:
    """Not even where PostgreSQL does not know yet how much it is: an index says which is an order's first."""

    async def plan() -> str:
        connection = await asyncpg.connect(parts.dsn(), server_settings={"shop.store": "*"})
        try:
            # Never committed: who hands events on does not see it.
            await connection.execute("BEGIN")
            await connection.execute(WAITING)
            if counted:
                await connection.execute("ANALYZE shop.outbox")
            rows = await connection.fetch(f"EXPLAIN (ANALYZE, TIMING OFF) {CLAIM}", "nobody", 8, 60.0)
        finally:
            await connection.close()
        return "\n".join(row[0] for row in rows)

    shown = asyncio.run(plan())
    assert "Index Scan using outbox_due" in shown, shown
    assert re.search(r"using outbox_sequence.*\n +Index Cond: .*order_key = due.order_key.* < due.id", shown), shown
    assert not re.search(r"Rows Removed by \w+ ?\w*: \d{4,}", shown), shown


def test_what_was_given_up_lets_the_next_of_its_order_pass(parts: Parts, address: Address) -> None:
    order = f"G-{secrets.token_hex(4)}"
    send(address, event("answer.400", order_id=order))
    after = event("order.paid", order_id=order)
    send(address, after)
    effect(parts, f"custom:{after.headers['webhook-id']}")


def test_nobody_there_is_no_reason_to_lose_anything(parts: Parts, address: Address) -> None:
    from intake_calls import shipping

    for _ in range(6):
        send(address, shipping())
    time.sleep(3)
    rows = sql(parts, "SELECT * FROM outbox WHERE consumer = 'away'")
    assert {row["state"] for row in rows} == {"pending"}
    # One finds out for all; the others' patience is not used up.
    assert sum(row["attempts"] for row in rows) <= len(rows) + 4
    assert any("ConnectError" in (row["last_error"] or "") for row in rows), rows


def test_celery_gets_a_task_that_its_own_library_reads(parts: Parts, address: Address) -> None:
    from kombu.connection import Connection

    call = meta()
    number = send(address, call).document["id"]
    wait_until(lambda: outbox(parts, number)["state"] == "done", 15, "it is noted")
    found: dict[str, tuple[Any, Any]] = {}
    url = parts.redis_url().replace("redis://", f"redis://:{PASSWORD}@")
    with Connection(url) as connection, connection.SimpleQueue("celery-x") as queue:
        while message := _next(queue):
            found[message.headers["id"]] = (message.headers["task"], message.payload[1])
            message.ack()
    task, given = found[f"meta:{sql(parts, 'SELECT event_id FROM inbox WHERE id = $1', number)[0][0]}"]
    assert (task, given["inbox_id"], given["body"].encode()) == ("shop.event", number, call.body)


def _next(queue: Any) -> Any:
    try:
        return queue.get(timeout=1)
    except queue.Empty:
        return None


def test_a_replay_by_the_api_goes_with_the_same_key(parts: Parts, address: Address) -> None:
    call = custom()
    number = send(address, call).document["id"]
    key = f"custom:{call.headers['webhook-id']}"
    effect(parts, key)
    again = request(address, "POST", "/api/webhooks/replay", json.dumps({"id": number}).encode(), BEARER)
    assert (again.status, again.document) == (200, {"replayed": [[number, "shop"]]})
    wait_until(lambda: len(sql(parts, "SELECT FROM asked WHERE key = $1", key)) == 2, 10, "it was handed over again")
    assert len(sql(parts, "SELECT FROM effects WHERE key = $1", key)) == 1
    shown = request(address, "GET", f"/api/webhooks/events/{number}", None, BEARER).document
    assert (shown["outbox"][0]["replays"], shown["event_id"]) == (1, call.headers["webhook-id"])


def test_a_replay_by_command_wakes_the_service(parts: Parts, address: Address) -> None:
    number = send(address, event("answer.415")).document["id"]
    wait_until(lambda: outbox(parts, number)["state"] == "dead", 10, "it was given up")
    code, said = parts.parts["handler"].run("dead")
    assert code == 0
    assert any(json.loads(line)["id"] == number for line in said.splitlines())
    code, said = parts.parts["handler"].run("replay", str(number))
    assert (code, said) == (0, f"event {number} goes to shop again\n")
    wait_until(lambda: outbox(parts, number)["state"] == "dead", 10, "it was refused again")
    assert outbox(parts, number)["replays"] == 1
    code, said = parts.parts["handler"].run("replay", "dead")
    assert code == 0
    assert f"event {number} goes to shop again" in said


@pytest.mark.parametrize(
    ("wanted", "code", "says"),
    [("999999", 1, "there is no event 999999"), ("one", 2, "'one' is no event"), ("-1", 2, "")],
)
def test_a_replay_of_nothing_says_so(parts: Parts, wanted: str, code: int, says: str) -> None:
    ended, said = parts.parts["handler"].run("replay", wanted)
    assert (ended, says in said) == (code, True)


def test_what_nobody_was_declared_for_can_be_replayed_to_who_is(parts: Parts, address: Address) -> None:
    number = send(address, shopify(x_shopify_topic="products/update")).document["id"]
    assert sql(parts, "SELECT FROM outbox WHERE inbox_id = $1", number) == []
    assert "no consumer is declared" in parts.parts["handler"].run("replay", str(number))[1]


@pytest.mark.parametrize(
    ("method", "path", "body", "headers", "status"),
    [
        ("GET", "dead", None, {}, 401),
        ("GET", "dead", None, {"authorization": "Bearer guessed"}, 401),
        ("POST", "replay", b'{"id": 1}', {"authorization": ADMIN}, 401),
        ("GET", "events/0x1", None, BEARER, 422),
        ("GET", "events/999999", None, BEARER, 404),
        ("POST", "replay", b'{"id": "all"}', BEARER, 422),
        ("POST", "replay", b"[]", BEARER, 400),
        ("POST", "replay", b"{" + b" " * 2000 + b"}", BEARER, 413),
        ("DELETE", "dead", None, BEARER, 404),
    ],
)
def test_the_api_is_for_who_knows_the_token(
    address: Address, method: str, path: str, body: bytes | None, headers: dict[str, str], status: int
) -> None:
    assert request(address, method, f"/api/webhooks/{path}", body, headers).status == status


def test_metrics_count_what_came(address: Address) -> None:
    def count(result: str) -> float:
        text = request(address, "GET", "/metrics").document
        [line] = [
            line
            for line in text.splitlines()
            if f'webhook_received_total{{endpoint="telegram",result="{result}"}}' in line
        ]
        return float(line.split()[-1])

    from intake_calls import telegram

    before = count("signature")
    send(address, telegram(token="guessed"))
    assert count("signature") == before + 1


def test_a_lock_on_the_inbox_is_a_503_and_later_a_200(parts: Parts, address: Address) -> None:
    """What is not on the disk is not confirmed."""
    held, done = threading.Event(), threading.Event()

    async def hold() -> None:
        connection = await asyncpg.connect(parts.dsn("postgres"))
        async with connection.transaction():
            await connection.execute("LOCK TABLE shop.inbox")
            held.set()
            await asyncio.to_thread(done.wait)
        await connection.close()

    thread = threading.Thread(target=lambda: asyncio.run(hold()))
    thread.start()
    try:
        held.wait(5)
        call = custom()
        answer = send(address, call)
        assert (answer.status, answer.headers["retry-after"]) == (503, "5")
    finally:
        done.set()
        thread.join()
    wait_until(lambda: send(address, call).status == 200, 20, "it is taken")
    assert len(sql(parts, "SELECT FROM inbox WHERE event_id = $1", call.headers["webhook-id"])) == 1


def test_service_that_can_hand_nothing_on_any_more_ends(parts: Parts) -> None:
    """And is started again, rather than taking in what nobody gets."""
    handler = parts.parts["handler"].container
    code, told = handler.exec_run(["timeout", "30", "python", "-c", BROKEN], environment={"WEBHOOK_PORT": "3999"})
    assert code != 124, "it went on"
    assert "stopped by a mistake of its own" in told.decode()
    assert "planted" in told.decode()


def test_memory_stays_small(parts: Parts) -> None:
    assert parts.parts["handler"].resident_mib() < 100


def test_sent_when_nothing_is_there_is_a_503(parts: Parts, address: Address) -> None:
    """Last, because the others want PostgreSQL."""
    parts.parts["postgres"].kill()
    try:
        answers: list[Answer] = [send(address, custom()) for _ in range(3)]
        assert {answer.status for answer in answers} == {503}
        assert request(address, "GET", "/health").status == 503
    finally:
        revive(parts.parts["postgres"])
    wait_until(lambda: request(address, "GET", "/health").status == 200, 60, "it is well again")
    assert send(address, custom()).document["status"] == "stored"


def test_without_redis_everything_comes_in_and_goes_out(parts: Parts, address: Address) -> None:
    parts.parts["redis"].kill()
    try:
        call = custom()
        assert send(address, call).status == 200
        effect(parts, f"custom:{call.headers['webhook-id']}")
    finally:
        revive(parts.parts["redis"])
