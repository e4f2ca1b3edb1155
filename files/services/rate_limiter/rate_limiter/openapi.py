"""The OpenAPI document of the service, made from the fields that it reads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from . import __version__, questions
from .questions import Field

Schema = dict[str, Any]
_SECONDS: Schema = {"type": "number", "minimum": 0}
_ERROR = {"type": "object", "required": ["error"], "properties": {"error": {"type": "string"}}}
_DECISION: Schema = {
    "type": "object",
    "required": ["api", "limit", "allowed", "remaining", "reset_in", "retry_after"],
    "properties": {
        "api": {"type": "string"},
        "limit": {"type": "integer", "description": "Of the window with the least left."},
        "allowed": {"type": "boolean", "description": "Whether the units were taken."},
        "remaining": {"type": "integer", "minimum": 0, "description": "Units that would be admitted now."},
        "reset_in": {**_SECONDS, "description": "Seconds until every quota is whole again."},
        "retry_after": {
            "type": ["number", "null"],
            "minimum": 0,
            "description": "Seconds until this cost fits, with a random part from the first `attempt` on; null: never.",
        },
        "degraded": {"type": "boolean", "description": "Redis is away; answered from what this process knows."},
        "shadow": {"type": "boolean", "description": "Would have been denied, but the policy only watches."},
    },
    "additionalProperties": False,
}
_BOOKING: Schema = {
    "type": "object",
    "required": ["api", "reserved", "id", "starts_in", "retry_after"],
    "properties": {
        "api": {"type": "string"},
        "reserved": {"type": "boolean"},
        "id": {"type": ["string", "null"], "description": "Gives the reservation back."},
        "starts_in": {"type": ["number", "null"], "description": "Seconds to wait, then start; null: never."},
        "retry_after": {"type": ["number", "null"]},
    },
    "additionalProperties": False,
}


def document() -> Schema:
    """The whole document."""
    decision = _answer("Judged, allowed or not.", _DECISION)
    denied = _answer("Denied, where `denied_status` asks for it.", _DECISION)
    query = [
        {"name": name, "in": "query", "required": field.default is None, "schema": field.schema}
        for name, field in questions.CHECK.items()
        if name != "scopes"
    ]
    check: Schema = {
        "get": {
            "summary": "Check",
            "parameters": query,
            "responses": {"200": decision, "429": denied, **_errors(body=False)},
        },
        "post": _operation("Check", "Check", {"200": decision, "429": denied}),
    }
    results = {"allowed": {"type": "boolean"}, "results": {"type": "array", "items": _DECISION}}
    units = {"api": {"type": "string"}, "refunded": {"type": "integer", "minimum": 1}}
    blocked = {"api": {"type": "string"}, "blocked_for": _SECONDS}
    paths: Schema = {
        "/api/rate-limit/check": check,
        "/v1/check": check,
        "/v1/checks": {
            "post": _operation("Several checks in one go", "Checks", {"200": _answer("Judged.", _all(results))})
        },
        "/v1/reserve": {
            "post": _operation(
                "Book a start of one's own, first come first served",
                "Reserve",
                {"200": _answer("Booked or not.", _BOOKING)},
            ),
            "delete": _operation("Give a reservation back", "Refund", {"200": _answer("Given back.", _all(units))}),
        },
        "/v1/report": {
            "post": _operation("Tell that the provider refuses", "Report", {"200": _answer("Noted.", _all(blocked))})
        },
        "/v1/policies": {"get": _plain("The policies in force", "application/json")},
        "/health": {
            "get": _plain("200 while Redis answers", "application/json", {"503": _answer("It does not.", _ERROR)})
        },
        "/metrics": {"get": _plain("For Prometheus", "text/plain")},
        "/openapi.json": {"get": _plain("This document", "application/json")},
    }
    bodies = {
        "Check": questions.CHECK,
        "OneOfMany": questions.ONE_OF_MANY,
        "Checks": questions.CHECKS,
        "Reserve": questions.RESERVE,
        "Refund": questions.REFUND,
        "Report": questions.REPORT,
    }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Rate limiter",
            "version": __version__,
            "description": "May I send `cost` more units to `api` now?",
        },
        "paths": paths,
        "components": {
            "schemas": {name: _body(fields) for name, fields in bodies.items()},
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"token": []}],
    }


def _all(properties: Schema) -> Schema:
    return {"type": "object", "required": list(properties), "properties": properties, "additionalProperties": False}


def _body(fields: Mapping[str, Field]) -> Schema:
    properties = {
        name: field.schema if field.default is None else {**field.schema, "default": field.default}
        for name, field in fields.items()
    }
    required = [name for name, field in fields.items() if field.default is None]
    return {"type": "object", "required": required, "properties": properties, "additionalProperties": False}


def _answer(description: str, schema: Schema) -> Schema:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _errors(*, body: bool) -> Schema:
    errors = {
        "401": "A token is needed.",
        "404": "Unknown API.",
        "422": "Bad input; `field` names it.",
        "503": "Redis is away.",
    }
    if body:
        errors |= {"413": "The body is too large."}
    return {status: _answer(description, _ERROR) for status, description in errors.items()}


def _operation(summary: str, body: str, responses: Schema) -> Schema:
    content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{body}"}}}
    return {
        "summary": summary,
        "requestBody": {"required": True, "content": content},
        "responses": {**responses, **_errors(body=True)},
    }


def _plain(summary: str, content_type: str, others: Schema | None = None) -> Schema:
    answer = {"description": summary, "content": {content_type: {}}}
    return {
        "summary": summary,
        "responses": {"200": answer, "401": _answer("A token is needed.", _ERROR), **(others or {})},
    }
