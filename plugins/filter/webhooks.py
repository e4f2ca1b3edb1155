"""Filters that describe who sends webhooks and who is handed them, and the secrets of both."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

Entries = Mapping[str, Mapping[str, Any]]
ADMIN = "webhook_admin"
# What these sign with is made by them; PayPal's key is public.
GIVEN = ("shopify", "stripe", "meta")


def webhook_secret_names(endpoints: Entries, consumers: Entries) -> list[str]:
    """The secrets of all endpoints and of the consumers that are asked by HTTP."""
    names = [ADMIN]
    for name in endpoints:
        names += _of(name, endpoints[name])
    names += [_consumer(name) for name, entry in consumers.items() if _is_http(entry)]
    return sorted(names)


def webhook_given_names(endpoints: Entries) -> list[str]:
    """Those that nobody can make here."""
    provided = [name for name in endpoints if _provider(name) in GIVEN]
    changing = [name for name, entry in endpoints.items() if entry.get("changing")]
    return sorted([_endpoint(name) for name in provided] + [f"{_endpoint(name)}_before" for name in changing])


def webhook_secrets(endpoints: Entries, consumers: Entries, secrets: Mapping[str, str]) -> dict[str, Any]:
    """The file of secrets as the webhook handler reads it. One that is not made yet is empty."""
    return {
        "admin": secrets.get(ADMIN, ""),
        "endpoints": {
            name: {
                "secrets": [secrets.get(secret, "") for secret in _of(name, entry) if not secret.endswith("_verify")],
                "token": secrets.get(f"{_endpoint(name)}_verify", ""),
            }
            for name, entry in endpoints.items()
        },
        "consumers": {name: secrets.get(_consumer(name), "") for name, entry in consumers.items() if _is_http(entry)},
    }


def webhook_settings(endpoints: Entries, consumers: Entries, routes: list[Any], keeping: Any) -> dict[str, Any]:
    """The settings file; routes of endpoints that this shop does not have are left out."""
    return {
        "endpoints": {
            name: {key: value for key, value in entry.items() if key != "changing"} for name, entry in endpoints.items()
        },
        "consumers": dict(consumers),
        "routes": [route for route in routes if route["endpoint"] in endpoints],
        "keeping": dict(keeping),
    }


def _of(name: str, entry: Mapping[str, Any]) -> list[str]:
    if _provider(name) == "paypal":
        return []
    names = [_endpoint(name)]
    if entry.get("changing"):
        names.append(f"{_endpoint(name)}_before")
    if _provider(name) == "meta":
        names.append(f"{_endpoint(name)}_verify")
    return names


def _provider(name: str) -> str:
    return name.partition("/")[0]


def _endpoint(name: str) -> str:
    return f"webhook_{name.replace('/', '_').replace('-', '_')}"


def _consumer(name: str) -> str:
    return f"webhook_consumer_{name}"


def _is_http(entry: Mapping[str, Any]) -> bool:
    return entry.get("kind", "http") == "http"


class FilterModule:
    """Registers the filters."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Name to function."""
        return {
            "webhook_given_names": webhook_given_names,
            "webhook_secret_names": webhook_secret_names,
            "webhook_secrets": webhook_secrets,
            "webhook_settings": webhook_settings,
        }
