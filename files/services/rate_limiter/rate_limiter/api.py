"""What each path answers. Over `Limiter`, under `http_front`; knows no sockets."""

from __future__ import annotations

import functools
import hashlib
import hmac
import json
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from . import openapi, questions
from .errors import ConfigError
from .http_front import Answer, Later, Request, Response, error
from .limiter import Ask, Asks, Decision, Limiter, Unavailable
from .metrics import Metrics
from .policies import Policy, Window
from .questions import InvalidInput

# Seconds a caller is told to wait while Redis is away.
UNAVAILABLE_RETRY_AFTER = 1
# A wait grows by a random part of up to base * 2^attempt seconds.
BACKOFF_BASE = 0.5
BACKOFF_CAP = 60.0
# Questions and lists of them that are not read again, and how long each is at most.
_MAX_KNOWN = 4096
_MAX_KNOWN_LISTS = 256
_MAX_KNOWN_BYTES = 512
# What needs no token, because machines ask it: whether it is well, and what it counts.
_OPEN = frozenset({"/health", "/metrics", "/openapi.json"})

_encode = msgspec.json.Encoder().encode


class Refusal(Exception):
    """The request is answered with an error instead."""

    def __init__(self, response: Response) -> None:
        """Answer this."""
        self.response = response


# Ten in a list: Python need not look for what leads back to them.
class _Told(msgspec.Struct, omit_defaults=True, gc=False):
    """What a caller is told of one check; openapi.py describes it."""

    api: str
    limit: int
    allowed: bool
    remaining: int
    reset_in: float | None
    retry_after: float | None
    degraded: bool = False
    shadow: bool = False


class Api:
    """Routes and answers."""

    def __init__(
        self, limiter: Limiter, policies: Mapping[str, Policy], metrics: Metrics, callers: Mapping[str, str]
    ) -> None:
        """Serve ``policies`` by API to ``callers`` by the SHA-256 of their token; to everybody where there are none."""
        self._limiter = limiter
        self._policies = policies
        self._metrics = metrics
        self._callers = callers
        self._openapi = _encode(openapi.document())
        check: dict[str, Callable[[Request], Answer]] = {"GET": self._check_query, "POST": self._check_body}
        self.routes: dict[str, dict[str, Callable[[Request], Answer]]] = {
            "/api/rate-limit/check": check,
            "/v1/check": check,
            "/v1/checks": {"POST": self._checks},
            "/v1/reserve": {"POST": self._reserve, "DELETE": self._refund},
            "/v1/report": {"POST": self._report},
            "/v1/policies": {"GET": self._list},
            "/health": {"GET": self._health},
            "/metrics": {"GET": self._render_metrics},
            "/openapi.json": {"GET": self._document},
        }
        # What stands in front of the numbers of each window.
        self._heads: dict[tuple[Window, ...], list[bytes]] = {}
        self._known_question = functools.lru_cache(_MAX_KNOWN)(self._question)
        self._known_questions = functools.lru_cache(_MAX_KNOWN_LISTS)(self._questions)

    def use(self, policies: Mapping[str, Policy]) -> None:
        """Other policies are in force from now on."""
        self._policies = policies
        self._metrics.know(policies)
        self._heads.clear()
        self._known_question.cache_clear()
        self._known_questions.cache_clear()
        self._limiter.changed(policies)

    def handle(self, request: Request) -> Answer:
        """Answer one request."""
        methods = self.routes.get(request.path)
        if methods is None:
            return error(404, "no such path", known=list(self.routes))
        handler = methods.get(request.method)
        if handler is None:
            allow = ", ".join(methods)
            return error(405, f"method not allowed, use {allow}", f"allow: {allow}\r\n".encode())
        if self._callers and request.path not in _OPEN and not self._known(request.authorization):
            return error(401, "a token is needed: Authorization: Bearer <token>", b"www-authenticate: Bearer\r\n")
        try:
            return handler(request)
        except InvalidInput as problem:
            return error(422, str(problem), field=problem.field)
        except Refusal as refusal:
            return refusal.response

    def _known(self, authorization: bytes) -> bool:
        scheme, _, token = authorization.partition(b" ")
        digest = hashlib.sha256(token.strip()).hexdigest()
        name = next((name for known, name in self._callers.items() if hmac.compare_digest(known, digest)), None)
        if scheme.lower() != b"bearer" or name is None:
            return False
        self._metrics.callers[name] += 1
        return True

    def _policy(self, api: str, scopes: Mapping[str, str] | None = None, where: str = "") -> Policy:
        policy = self._policies.get(api)
        if policy is None:
            raise Refusal(error(404, f"{where}unknown api {api!r}", known=list(self._policies)))
        if scopes and not scopes.keys() <= policy.scopes:
            unknown = next(name for name in scopes if name not in policy.scopes)
            known = ", ".join(sorted(policy.scopes)) or "none"
            raise InvalidInput(f"{where}scopes.{unknown}", f"is unknown; known scopes of {api} are: {known}")
        return policy

    # Checks.

    def _check_body(self, request: Request) -> Answer:
        # Callers put the same questions again and again.
        read = self._known_question if len(request.body) <= _MAX_KNOWN_BYTES else self._question
        return self._check(*read(request.body))

    def _question(self, body: bytes) -> tuple[questions.Check, Asks]:
        try:
            asked = questions.check_fast(body)
        except questions.NOT_FAST:
            asked = questions.Check(**questions.from_json(body, questions.CHECK))
        return asked, self._ask(asked)

    def _check_query(self, request: Request) -> Answer:
        asked = questions.Check(**questions.from_query(request.query))
        return self._check(asked, self._ask(asked))

    def _ask(self, asked: questions.Check) -> Asks:
        return Asks([Ask(self._policy(asked.api, asked.scopes), asked.key or "", asked.cost, asked.scopes)])

    def _check(self, asked: questions.Check, asks: Asks) -> Answer:
        later = Later()
        self._limiter.check_soon(asks, lambda decisions: later.give(self._answer(asked, asks.all[0], decisions)))
        return later

    def _answer(self, asked: questions.Check, ask: Ask, decisions: Sequence[Decision] | Unavailable) -> Response:
        if isinstance(decisions, Unavailable):
            self._metrics.checks[ask.policy.api, "error"] += 1
            return self._unavailable()
        [decision] = decisions
        self._count(ask, decision)
        wait = decision.retry_after
        if wait and asked.attempt:
            longest = min(BACKOFF_CAP, BACKOFF_BASE * 2**asked.attempt)
            wait += int(random.uniform(0, longest) * 1e6)  # noqa: S311  # spreads callers, hides nothing
        head = self._head(ask.policy.api, decision)
        status = 200 if decision.allowed else asked.denied_status
        if status == 429 and wait:
            head += b"retry-after: %d\r\n" % -(-wait // 1_000_000)
        return Response(status, _encode(_told(ask.policy.api, decision, wait)), head)

    def _checks(self, request: Request) -> Answer:
        read = self._known_questions if len(request.body) <= _MAX_KNOWN_BYTES else self._questions
        asks, later = read(request.body), Later()
        self._limiter.check_soon(asks, lambda decisions: later.give(self._answer_all(asks, decisions)))
        return later

    def _questions(self, body: bytes) -> Asks:
        try:
            asked = questions.checks_fast(body)
        except questions.NOT_FAST:
            asked = questions.checks_from_json(body)
        asks = [
            Ask(self._policy(one.api, one.scopes, f"checks[{number}]."), one.key or "", one.cost, one.scopes)
            for number, one in enumerate(asked.checks)
        ]
        return Asks(asks, together=asked.all_or_none)

    def _answer_all(self, asks: Asks, decisions: Sequence[Decision] | Unavailable) -> Response:
        if isinstance(decisions, Unavailable):
            for ask in asks.all:
                self._metrics.checks[ask.policy.api, "error"] += 1
            return self._unavailable()
        allowed, results = True, []
        for ask, decision in zip(asks.all, decisions, strict=True):
            self._count(ask, decision)
            allowed = allowed and decision.allowed
            results.append(_told(ask.policy.api, decision, decision.retry_after))
        return Response(200, _encode({"allowed": allowed, "results": results}))

    def _count(self, ask: Ask, decision: Decision) -> None:
        result = "peek" if ask.cost == 0 else "allowed" if decision.allowed else "denied"
        self._metrics.checks[ask.policy.api, result] += 1
        if decision.degraded:
            self._metrics.degraded += 1
        if decision.refused:
            self._metrics.shadow += 1

    def _head(self, api: str, decision: Decision) -> bytes:
        """RateLimit headers of the IETF draft (draft-ietf-httpapi-ratelimit-headers)."""
        fronts = self._heads.get(decision.windows)
        if fronts is None:
            names = [f'"{api}{window.name and "/" + window.name}"' for window in decision.windows]
            policy = ", ".join(
                f"{name};q={window.limit}" + (f";w={window.window_seconds}" if window.window_seconds else "")
                for name, window in zip(names, decision.windows, strict=True)
            )
            fronts = [f", {name};r=".encode() for name in names]
            fronts[0] = f"ratelimit-policy: {policy}\r\nratelimit: {names[0]};r=".encode()
            self._heads[decision.windows] = fronts
        age = decision.age
        if len(fronts) == 1:
            [(free, reset)] = decision.left
            return b"%b%d;t=%d\r\n" % (fronts[0], free, -((age - reset) // 1_000_000))
        parts = [
            b"%b%d;t=%d" % (front, free, max(0, -((age - reset) // 1_000_000)))
            for front, (free, reset) in zip(fronts, decision.left, strict=True)
        ]
        return b"".join(parts) + b"\r\n"

    # Starts, reports.

    def _reserve(self, request: Request) -> Answer:
        asked = questions.from_json(request.body, questions.RESERVE)
        policy = self._policy(asked["api"], asked["scopes"])

        async def reserve() -> Response:
            longest = int(asked["max_wait"] * 1e6)
            booking = await self._limiter.reserve(policy, asked["key"], asked["cost"], asked["scopes"], longest)
            self._metrics.checks[policy.api, "reserved" if booking.id else "denied"] += 1
            reserved = booking.id is not None
            return Response(
                200,
                _encode(
                    {
                        "api": policy.api,
                        "reserved": reserved,
                        "id": booking.id,
                        "starts_in": _seconds(booking.starts_in),
                        "retry_after": 0.0 if reserved else _seconds(booking.starts_in),
                    }
                ),
            )

        return self._or_unavailable(policy.api, reserve())

    def _refund(self, request: Request) -> Answer:
        asked = questions.from_json(request.body, questions.REFUND)
        policy = self._policy(asked["api"], asked["scopes"])

        async def refund() -> Response:
            units = await self._limiter.refund(policy, asked["key"], asked["scopes"], asked["id"])
            if not units:
                return error(404, "no such reservation, or it was given back or used already")
            return Response(200, _encode({"api": policy.api, "refunded": units}))

        return self._or_unavailable(policy.api, refund())

    def _report(self, request: Request) -> Answer:
        asked = questions.from_json(request.body, questions.REPORT)
        policy = self._policy(asked["api"])

        async def report() -> Response:
            blocked = await self._limiter.report(policy, asked["key"], int(asked["retry_after"] * 1e6))
            self._metrics.reports += 1
            return Response(200, _encode({"api": policy.api, "blocked_for": _seconds(blocked)}))

        return report()

    async def _or_unavailable(self, api: str, answer: Awaitable[Response]) -> Response:
        try:
            return await answer
        except Unavailable:
            self._metrics.checks[api, "error"] += 1
            return self._unavailable()

    # The rest.

    def _list(self, request: Request) -> Answer:
        return Response(200, _encode({"policies": {api: _described(policy) for api, policy in self._policies.items()}}))

    async def _health(self, request: Request) -> Response:
        try:
            await self._limiter.ping()
        except Unavailable:
            return self._unavailable()
        return Response(200, b'{"status":"ok"}')

    def _render_metrics(self, request: Request) -> Answer:
        self._metrics.redis_errors = self._limiter.link.errors
        return Response(200, self._metrics.render(), content_type=self._metrics.content_type)

    def _document(self, request: Request) -> Answer:
        return Response(200, self._openapi)

    def _unavailable(self) -> Response:
        return error(
            503,
            "redis is unavailable, nothing is allowed until it answers",
            b"retry-after: %d\r\n" % UNAVAILABLE_RETRY_AFTER,
            retry_after=UNAVAILABLE_RETRY_AFTER,
        )


def load_callers(path: Path) -> dict[str, str]:
    """Read ``{"callers": {"<name>": "<SHA-256 of its token, hex>"}}`` into digest -> name. Raises ConfigError."""
    try:
        callers = json.loads(path.read_bytes())["callers"]
        found = {digest.lower(): name for name, digest in callers.items()}
        whole = found and all(len(bytes.fromhex(digest)) == 32 for digest in found)
    except OSError as problem:
        raise ConfigError(f"{path}: cannot be read: {problem.strerror}. Set RATE_LIMITER_CALLERS.") from problem
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as problem:
        raise ConfigError(f'{path}: expected {{"callers": {{"name": "SHA-256 of its token"}}}}') from problem
    if not whole:
        raise ConfigError(f"{path}: callers: expected 64 hexadecimal digits for each of at least one caller")
    return found


def _told(api: str, decision: Decision, wait: int | None) -> _Told:
    return _Told(
        api,
        decision.limit,
        decision.allowed,
        decision.remaining,
        _seconds(decision.reset_in),
        _seconds(wait),
        decision.degraded,
        decision.refused,
    )


def _seconds(microseconds: int | None) -> float | None:
    """Whole milliseconds, rounded up: who waits that long has waited long enough."""
    return None if microseconds is None else -(-microseconds // 1000) / 1000


def _described(policy: Policy) -> dict[str, Any]:
    windows = []
    for window in policy.windows:
        one: dict[str, Any] = {"algorithm": window.kind, "limit": window.limit}
        if window.calendar:
            one |= {"period": window.calendar.period, "time_zone": window.calendar.zone.key}
        else:
            one["window_seconds"] = window.window_seconds
        if window.per:
            one["per"] = window.per
        windows.append(one)
    return {"windows": windows, "on_failure": policy.on_failure, "shadow": policy.shadow}
