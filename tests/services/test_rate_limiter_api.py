"""The service's own paths, its document, its front under bad clients, and the client for our other services."""

from __future__ import annotations

import contextlib
import hashlib
import json
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from limiter_harness import config_for
from limiter_process import LimiterProcess
from local_redis import LocalRedis
from rate_limiter import http_front, questions
from rate_limiter.api import _MAX_KNOWN, Api
from rate_limiter.client import RateLimiterClient, RateLimiterError
from rate_limiter.http_front import Request
from rate_limiter.limiter import Limiter
from rate_limiter.metrics import Metrics
from rate_limiter.openapi import document
from rate_limiter.policies import read_policies
from rate_limiter_server import POLICIES, Answer, Client
from schemathesis.checks import CheckFunction
from schemathesis.config import SchemathesisConfig
from waiting import wait_until

# What the document has for bad input, and no more: invalid data may be of any size, too.
_REFUSED = {"checks": {"negative_data_rejection": {"expected-statuses": ["404", "405", "413", "422"]}}}
OPENAPI = schemathesis.openapi.from_dict(document(), config=SchemathesisConfig.from_dict(_REFUSED))


@pytest.fixture(scope="module")
def service(local_redis: LocalRedis, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LimiterProcess]:
    """The service, fresh for this file."""
    process = LimiterProcess(local_redis, tmp_path_factory.mktemp("limiter"))
    yield process
    process.stop()


@pytest.fixture
def caller(service: LimiterProcess) -> Iterator[Client]:
    """A connection of one's own."""
    client = service.client()
    yield client
    client.connection.close()


def post(client: Client, path: str, status: int = 200, method: str = "POST", **body: Any) -> dict[str, Any]:
    answer = client.request(method, path, json.dumps(body).encode())
    assert answer.status == status, answer
    return answer.json


def test_the_document_is_served(caller: Client) -> None:
    assert caller.request("GET", "/openapi.json").json == json.loads(json.dumps(document()))


# Content that is neither object nor JSON is sent by the fuzz tests below.
@OPENAPI.parametrize()
@settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_the_service_keeps_to_its_document(case: schemathesis.Case, service: LimiterProcess) -> None:
    # A schema cannot say which APIs there are, nor that of a query only the last value counts.
    unsaid: list[CheckFunction] = [
        schemathesis.checks.positive_data_acceptance,
        schemathesis.checks.unsupported_method,
        schemathesis.checks.missing_required_header,
    ]
    case.call_and_validate(base_url=f"http://127.0.0.1:{service.port}", excluded_checks=unsaid)


def test_headers_of_the_draft_tell_the_quota(caller: Client, tenant: str) -> None:
    answer = caller.request("GET", f"/v1/check?api=five_an_hour&key={tenant}&cost=2")
    assert answer.headers["ratelimit-policy"] == '"five_an_hour";q=5;w=3600'
    assert answer.headers["ratelimit"] == '"five_an_hour";r=3;t=3600'


def test_who_asks_for_it_is_denied_by_429(caller: Client, tenant: str) -> None:
    caller.check("five_an_hour", tenant, 5)
    answer = caller.request("GET", f"/v1/check?api=five_an_hour&key={tenant}&denied_status=429")
    assert (answer.status, answer.json["allowed"]) == (429, False)
    assert int(answer.headers["retry-after"]) in range(3590, 3602)


def test_each_further_attempt_waits_longer_and_never_less_than_it_must(caller: Client, tenant: str) -> None:
    caller.check("five_an_hour", tenant, 5)
    waits = [
        post(caller, "/v1/check", api="five_an_hour", key=tenant, attempt=attempt)["retry_after"]
        for attempt in [0] * 5 + [100] * 30
    ]
    assert max(waits[:5]) <= 3600
    assert min(waits) >= 3590
    assert 3620 < max(waits[5:]) < 3661


def test_many_checks_in_one_call(caller: Client, tenant: str) -> None:
    checks = [{"api": "five_an_hour", "key": tenant, "cost": cost} for cost in (3, 3, 2)]
    each = post(caller, "/v1/checks", checks=checks)
    assert [result["allowed"] for result in each["results"]] == [True, False, True]
    assert each["allowed"] is False
    together = post(caller, "/v1/checks", checks=[{"api": "gemini", "key": tenant}, checks[0]], all_or_none=True)
    assert [result["allowed"] for result in together["results"]] == [False, False]
    assert caller.check("gemini", tenant, 0)["remaining"] == 60


def test_a_mistake_in_one_of_many_is_named(caller: Client) -> None:
    answer = post(caller, "/v1/checks", 422, checks=[{"api": "gemini"}, {"api": "gemini", "cost": -1}])
    assert answer["field"] == "checks[1].cost"
    assert "checks[1]." in post(caller, "/v1/checks", 404, checks=[{"api": "gemini"}, {"api": "nobody"}])["error"]


def test_a_reservation_is_made_and_given_back_once(caller: Client, tenant: str) -> None:
    made = post(caller, "/v1/reserve", api="five_an_hour", key=tenant, cost=5)
    assert (made["reserved"], made["starts_in"]) == (True, 0)
    late = post(caller, "/v1/reserve", api="five_an_hour", key=tenant)
    assert (late["reserved"], late["id"]) == (False, None)
    assert 3590 < late["retry_after"] <= 3600
    stranger = {"api": "five_an_hour", "key": "another", "id": made["id"]}
    post(caller, "/v1/reserve", 404, "DELETE", **stranger)
    mine = {**stranger, "key": tenant}
    assert post(caller, "/v1/reserve", method="DELETE", **mine)["refunded"] == 5
    post(caller, "/v1/reserve", 404, "DELETE", **mine)
    assert caller.check("five_an_hour", tenant, 5)["allowed"] is True


def test_what_the_provider_says_counts(caller: Client, tenant: str) -> None:
    assert post(caller, "/v1/report", api="telegram", key=tenant, retry_after=37.5)["blocked_for"] == 37.5
    assert post(caller, "/v1/report", api="telegram", key=tenant, retry_after=1)["blocked_for"] > 37
    answer = caller.check("telegram", tenant)
    assert (answer["allowed"], answer["remaining"]) == (False, 0)
    assert 37 < float(str(answer["retry_after"])) <= 37.5
    assert caller.check("telegram", f"{tenant}-2")["allowed"] is True


def test_a_scope_that_nobody_knows_is_refused(caller: Client) -> None:
    assert post(caller, "/v1/check", 422, api="gemini", scopes={"chat": "1"})["field"] == "scopes.chat"


def test_policies_follow_their_file(local_redis: LocalRedis, tmp_path: Path) -> None:
    process = LimiterProcess(local_redis, tmp_path)
    try:
        client = process.client()
        client.check("five_an_hour", "reload", 5)
        assert client.check("five_an_hour", "reload")["allowed"] is False
        assert client.ask("gemini").status == 200
        client.check("five_an_hour", "reload-many", 5)
        many = [{"api": "five_an_hour", "key": "reload-many"}]
        assert post(client, "/v1/checks", checks=many)["allowed"] is False
        process.write({"policies": {"five_an_hour": {"limit": 6, "window_seconds": 3600}, "new": POLICIES["gemini"]}})
        wait_until(lambda: client.ask("new").status == 200, 5, "the new policies are in force")
        assert client.check("five_an_hour", "reload")["allowed"] is True
        assert post(client, "/v1/checks", checks=many)["allowed"] is True
        assert client.ask("gemini").status == 404
        process.write({"policies": {"five_an_hour": {"limit": 0, "window_seconds": 3600}}})
        wait_until(lambda: client.metrics()["rate_limiter_reload_errors_total"] == 1, 5, "bad ones are noticed")
        assert client.check("five_an_hour", "reload", 0)["limit"] == 6
        listed = client.request("GET", "/v1/policies").json["policies"]
        assert isinstance(listed, dict)
        assert listed["five_an_hour"]["windows"] == [{"algorithm": "log", "limit": 6, "window_seconds": 3600}]
    finally:
        process.stop()


def test_of_many_questions_only_so_many_are_kept(local_redis: LocalRedis) -> None:
    policies = read_policies({"policies": POLICIES})
    # Never started: each is answered at once, by 503.
    api = Api(Limiter(config_for(local_redis)), policies, Metrics(policies), {})

    def ask(key: str) -> None:
        body = json.dumps({"api": "gemini", "key": key}).encode()
        api.handle(Request("POST", "/v1/check", b"", b"", body, True))

    ask("short")
    assert api._known_question.cache_info().currsize == 1
    ask("\u00e9" * 100)
    assert api._known_question.cache_info().currsize == 1, "one of more than 512 bytes is kept"
    for number in range(_MAX_KNOWN + 10):
        ask(f"tenant-{number}")
    assert api._known_question.cache_info().currsize == _MAX_KNOWN


def test_with_callers_a_token_is_needed(local_redis: LocalRedis, tmp_path: Path) -> None:
    token = secrets.token_urlsafe(24)
    callers = tmp_path / "callers.json"
    callers.write_text(json.dumps({"callers": {"n8n": hashlib.sha256(token.encode()).hexdigest()}}))
    process = LimiterProcess(local_redis, tmp_path, RATE_LIMITER_CALLERS=str(callers))
    try:
        client = process.client()
        assert client.ask("gemini").status == 401
        for header in ("Bearer wrong", f"Basic {token}", "Bearer"):
            client.connection.request("GET", "/v1/policies", headers={"Authorization": header})
            refused = client.connection.getresponse()
            refused.read()
            assert refused.status == 401
        with RateLimiterClient(f"http://127.0.0.1:{process.port}", token=token) as known:
            assert known.check("gemini")["allowed"] is True
        assert client.metrics()['rate_limiter_requests_total{caller="n8n"}'] == 1
        assert token not in process.log.read_text()
    finally:
        process.stop()


# The client.


def test_the_client_waits_until_it_may(service: LimiterProcess, tenant: str) -> None:
    with RateLimiterClient(f"http://127.0.0.1:{service.port}") as client:
        began = time.monotonic()
        for _ in range(8):
            assert client.acquire("five_a_second", tenant, longest=10)
        assert time.monotonic() - began >= 0.9
        assert not client.acquire("five_an_hour", tenant, cost=6, longest=1), "that never fits"
        client.report("gemini", tenant, 60)
        assert not client.acquire("gemini", tenant, longest=0.2)


def test_the_client_says_what_is_wrong(service: LimiterProcess) -> None:
    with (
        RateLimiterClient(f"http://127.0.0.1:{service.port}") as client,
        pytest.raises(RateLimiterError, match=r"404.*nobody"),
    ):
        client.check("nobody")
    with RateLimiterClient("http://127.0.0.1:1") as client, pytest.raises(RateLimiterError, match=r"127\.0\.0\.1:1"):
        client.check("gemini")


def test_the_client_connects_again(local_redis: LocalRedis, tmp_path: Path) -> None:
    process = LimiterProcess(local_redis, tmp_path)
    with RateLimiterClient(f"http://127.0.0.1:{process.port}") as client:
        client.check("gemini", "again")
        client._connection.sock.close()
        assert client.check("gemini", "again")["remaining"] in (57, 58)
    process.stop()


# The front.


def exchange(service: LimiterProcess, *parts: bytes, pause: float = 0.0) -> bytes:
    """Send raw bytes, part by part; everything that came back until the other side closed, or a second passed."""
    with socket.create_connection(("127.0.0.1", service.port), timeout=1) as connection:
        answer = b""
        try:
            for part in parts:
                connection.sendall(part)
                time.sleep(pause)
            while data := connection.recv(65536):
                answer += data
        except OSError:
            pass
        return answer


HEALTH = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
LAST = b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


def test_requests_sent_ahead_are_answered_in_order(service: LimiterProcess) -> None:
    missing = HEALTH.replace(b"/health", b"/nothing")
    answer = exchange(service, HEALTH + missing + HEALTH + missing + LAST)
    assert [int(part[:3]) for part in answer.split(b"HTTP/1.1 ")[1:]] == [200, 404, 200, 404, 200]


def test_a_request_in_single_bytes_is_one_request(service: LimiterProcess) -> None:
    assert exchange(service, *(LAST[place : place + 1] for place in range(len(LAST)))).startswith(b"HTTP/1.1 200")


def test_chunks_and_expectations_are_understood(service: LimiterProcess) -> None:
    head = b"POST /v1/check HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
    chunked = exchange(
        service, head + b'Transfer-Encoding: chunked\r\n\r\n5\r\n{"api\r\nc\r\n":"gemini"}\n\r\n0\r\n\r\n'
    )
    assert chunked.startswith(b"HTTP/1.1 200")
    expecting = exchange(
        service, head + b"Expect: 100-continue\r\nContent-Length: 16\r\n\r\n", b'{"api":"gemini"}', pause=0.1
    )
    assert expecting.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200")


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"hello\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nX: " + b"x" * 40_000, b"431"),
        (b"GET /" + b"x" * 40_000, b"431"),
        (b"POST /v1/check HTTP/1.1\r\nContent-Length: 99999\r\n\r\n" + b"x" * 20_000, b"413"),
        (b"POST /v1/check HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", b"400"),
        (HEALTH * 200, b"400"),
    ],
    ids=["no HTTP", "upgrade", "endless header", "endless path", "endless body", "two lengths", "too far ahead"],
)
def test_bad_clients_are_told_and_cut_off(service: LimiterProcess, sent: bytes, status: bytes) -> None:
    answer = exchange(service, sent)
    last = answer.split(b"HTTP/1.1 ")[-1]
    assert last[:3] == status, answer[-300:]
    assert b"connection: close" in last
    assert service.healthy()


def test_slow_clients_are_cut_off(service: LimiterProcess) -> None:
    """Neither the whole of a head nor of a body may take long; who says nothing at all may stay."""
    silent = socket.create_connection(("127.0.0.1", service.port))
    slow = [
        socket.create_connection(("127.0.0.1", service.port), timeout=http_front.REQUEST_SECONDS + 3) for _ in range(2)
    ]
    slow[0].sendall(b"GET /health HT")
    slow[1].sendall(b"POST /v1/check HTTP/1.1\r\nContent-Length: 16\r\n\r\n{")
    stop = time.monotonic() + http_front.REQUEST_SECONDS + 2
    open_still = set(slow)
    while open_still and time.monotonic() < stop:
        for one in list(open_still):
            try:
                one.sendall(b"x") if one is slow[1] and time.monotonic() < stop - 6 else None
                one.settimeout(0.3)
                if one.recv(100) == b"":
                    open_still.discard(one)
            except TimeoutError:
                continue
            except OSError:
                open_still.discard(one)
    assert not open_still
    silent.sendall(LAST)
    assert silent.recv(100).startswith(b"HTTP/1.1 200")
    for one in (silent, *slow):
        one.close()


def test_two_thousand_callers_at_once_get_exactly_the_limit(service: LimiterProcess, tenant: str) -> None:
    callers, answers = 2048, list[Answer]()
    body = json.dumps({"api": "instagram", "key": tenant}).encode()
    request = b"POST /v1/check HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%b" % (
        len(body),
        body,
    )
    connections = []
    try:
        for _ in range(callers):
            connections.append(socket.create_connection(("127.0.0.1", service.port), timeout=30))
        for connection in connections:
            connection.sendall(request)
        allowed = 0
        for connection in connections:
            answer = b""
            while data := connection.recv(4096):
                answer += data
            assert answer.startswith(b"HTTP/1.1 200"), answer
            allowed += b'"allowed":true' in answer
    finally:
        for connection in connections:
            connection.close()
    assert not answers
    assert allowed == POLICIES["instagram"]["limit"]


def test_who_stops_reading_does_not_stop_others(service: LimiterProcess) -> None:
    request = b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n"
    with socket.create_connection(("127.0.0.1", service.port), timeout=1) as greedy:
        greedy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)

        def send() -> None:
            try:
                for _ in range(3000):
                    greedy.sendall(request)
                    time.sleep(0.0005)
            except OSError:
                return

        thread = threading.Thread(target=send)
        thread.start()
        assert all(service.healthy() for _ in range(20))
        thread.join()
    assert service.healthy()


def test_it_ends_in_time_and_answers_what_was_asked(local_redis: LocalRedis, tmp_path: Path) -> None:
    process = LimiterProcess(local_redis, tmp_path)
    idle = socket.create_connection(("127.0.0.1", process.port))
    began = time.monotonic()
    process.process.terminate()
    assert process.process.wait(10) == 0
    assert time.monotonic() - began < 3
    idle.close()
    assert not [line for line in process.log.read_text().splitlines() if json.loads(line)["level"] == "error"]


# What is parsed, fuzzed.

FUZZ = settings(max_examples=400, deadline=None, derandomize=True)
PIECES = st.sampled_from(
    [
        *(
            b"GET ",
            b"POST ",
            b"/v1/check",
            b"/v1/checks",
            b"?api=gemini",
            b" HTTP/1.1\r\n",
            b"\r\n",
            b"\r\n\r\n",
            b"\n",
        ),
        *(b"Host: x\r\n", b"Content-Length: 16\r\n", b"Content-Length: -1\r\n", b"Transfer-Encoding: chunked\r\n"),
        *(b"Connection: upgrade\r\n", b"Expect: 100-continue\r\n", b"Authorization: Bearer x\r\n", b'{"api":"gemini"}'),
        *(b"0\r\n\r\n", b"10\r\n", b"\x00", b"PRI * HTTP/2.0"),
    ]
)


class FakeTransport:
    """Keeps what is written."""

    def __init__(self) -> None:
        self.written = b""
        self.closed = False

    def write(self, data: bytes) -> None:
        assert not self.closed, "written after it was closed"
        self.written += data

    def close(self) -> None:
        self.closed = True

    abort = write_eof = close


@FUZZ
@given(parts=st.lists(st.one_of(PIECES, st.binary(max_size=60)), max_size=30), cuts=st.integers(1, 7))
def test_no_bytes_break_the_front(parts: list[bytes], cuts: int) -> None:
    asked: list[http_front.Request] = []

    def handle(request: http_front.Request) -> http_front.Response:
        asked.append(request)
        assert len(request.body) <= http_front.MAX_BODY_BYTES
        return http_front.Response(200, b"{}")

    front = http_front.Front(handle)
    connection, transport = http_front.Connection(front), FakeTransport()
    connection.connection_made(transport)  # type: ignore[arg-type]
    whole = b"".join(parts)
    for place in range(0, len(whole), cuts * 11):
        connection.data_received(whole[place : place + cuts * 11])
    connection.connection_lost(None)
    assert transport.written.count(b"HTTP/1.1 200 OK\r\n") == len(asked)
    assert front.connections == set()


def test_blank_lines_between_requests_count_as_head() -> None:
    """They begin no request, so nothing else would bound them."""
    front = http_front.Front(lambda request: http_front.Response(200, b"{}"))
    connection, transport = http_front.Connection(front), FakeTransport()
    connection.connection_made(transport)  # type: ignore[arg-type]
    connection.data_received(b"GET /health HTTP/1.1\r\n\r\n")
    most = http_front.MAX_HEAD_BYTES + http_front.MAX_BODY_BYTES
    for _ in range(most // 2000 + 1):
        connection.data_received(b"\r\n" * 1000)
    assert transport.written.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"HTTP/1.1 431 " in transport.written


JSON = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        st.text(max_size=140),
        st.sampled_from([0, 1, 200, 429, "x"]),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=6,
)
FIELDS = st.dictionaries(st.sampled_from([*questions.CHECK, "other"]), JSON, max_size=6)


@FUZZ
@given(fields=FIELDS, plain=st.booleans())
def test_the_fast_reading_and_the_slow_one_agree(fields: dict[str, Any], plain: bool) -> None:
    if plain:
        fields = {"api": "gemini", **{name: value for name, value in fields.items() if name != "api"}}
    body = json.dumps(fields).encode()
    try:
        slow = questions.Check(**questions.from_json(body, questions.CHECK))
    except questions.InvalidInput:
        with pytest.raises(questions.NOT_FAST):
            questions.check_fast(body)
        return
    fast = questions.check_fast(body)
    assert (fast.api, fast.key or "", fast.cost, fast.scopes) == (slow.api, slow.key, slow.cost, slow.scopes)
    assert (fast.attempt, fast.denied_status) == (slow.attempt, slow.denied_status)


@FUZZ
@given(many=st.lists(FIELDS, max_size=3), more=FIELDS)
def test_many_are_read_alike_too(many: list[dict[str, Any]], more: dict[str, Any]) -> None:
    body = json.dumps({"checks": [{"api": "gemini"}, *many], **({} if more else {"all_or_none": True})}).encode()
    try:
        slow = questions.checks_from_json(body)
    except questions.InvalidInput:
        with pytest.raises(questions.NOT_FAST):
            questions.checks_fast(body)
        return
    fast = questions.checks_fast(body)
    assert fast.all_or_none == slow.all_or_none
    for one, other in zip(fast.checks, slow.checks, strict=True):
        assert (one.api, one.key or "", one.cost, one.scopes) == (other.api, other.key, other.cost, other.scopes)


@FUZZ
@given(body=st.one_of(st.binary(max_size=80), FIELDS.map(lambda fields: json.dumps(fields).encode()[:-2])))
def test_no_body_breaks_the_reading(body: bytes) -> None:
    for fields in (questions.CHECK, questions.CHECKS, questions.RESERVE, questions.REFUND, questions.REPORT):
        with contextlib.suppress(questions.InvalidInput):
            assert questions.from_json(body, fields).keys() == fields.keys()


@FUZZ
@given(query=st.one_of(st.binary(max_size=60), st.text("apikeycost=&%19 +", max_size=60).map(str.encode)))
def test_no_query_breaks_the_reading(query: bytes) -> None:
    with contextlib.suppress(questions.InvalidInput):
        assert questions.from_query(query)["api"]
