"""The services that answer for a name: DuckDNS and Cloudflare's DNS."""

from __future__ import annotations

import urllib.parse
from typing import Any

from .errors import DdnsError, Refused
from .web import Answer, Web

TYPES = {4: "A", 6: "AAAA"}
# How long (s) others may remember what we say: the least that both services take.
TTL = 60
CHALLENGE = "_acme-challenge."


class Provider:
    """Sets addresses and text records of names."""

    def __init__(self, web: Web, api: str, token: str) -> None:
        """`api` is the service's base URL."""
        self.web, self.api, self.token = web, api.rstrip("/"), token

    def address(self, name: str, addresses: dict[int, str]) -> None:
        """Have the name lead to the addresses, by family. Raises DdnsError."""
        raise NotImplementedError

    def text(self, name: str, value: str, there: bool) -> None:
        """Have a text record be there, or not. Raises DdnsError."""
        raise NotImplementedError


class DuckDns(Provider):
    """One request for everything, the token in the query; the answer is OK or KO."""

    SUFFIX = ".duckdns.org"

    def address(self, name: str, addresses: dict[int, str]) -> None:
        """Send both families at once: it would forget the one that is left out."""
        self._say(name, **{"ip": addresses.get(4, ""), "ipv6": addresses.get(6, "")})

    def text(self, name: str, value: str, there: bool) -> None:
        """It has one text for each name, which also answers for the challenge below it."""
        self._say(
            name[len(CHALLENGE) :] if name.startswith(CHALLENGE) else name, txt=value, clear=str(not there).lower()
        )

    def _say(self, name: str, **what: str) -> None:
        if not name.endswith(self.SUFFIX):
            raise Refused(f"{name}: is no name of DuckDNS, which end with {self.SUFFIX}; correct ddns_names")
        given = {key: value for key, value in what.items() if value}
        label = name[: -len(self.SUFFIX)].rpartition(".")[2]
        query = urllib.parse.urlencode({"domains": label, "token": self.token, **given})
        answer = self.web.ask(f"{self.api}/update?{query}")
        _understood(answer, "DuckDNS")
        said = answer.text.strip().split("\n")[0]
        if said == "KO":
            raise Refused(f"DuckDNS takes no change of {name}: correct the secret ddns_token, or ddns_names")
        if said != "OK":
            raise DdnsError(f"DuckDNS: answers {said[:40]!r} instead of OK or KO")


class Cloudflare(Provider):
    """Zones and records as JSON; the token is a header."""

    def address(self, name: str, addresses: dict[int, str]) -> None:
        """Set a record for each family; whether the name is proxied stays as it is."""
        for family, address in addresses.items():
            zone, kind = self._zone(name), TYPES[family]
            found = self._records(zone, kind, name)
            if len(found) > 1:
                raise Refused(
                    f"{name}: has {len(found)} {kind} records at Cloudflare; leave one, and it is kept up to date"
                )
            if not found:
                self._call(f"/zones/{zone}/dns_records", "POST", _record(kind, name, address))
            elif found[0]["content"] != address:
                self._call(f"/zones/{zone}/dns_records/{found[0]['id']}", "PATCH", {"content": address})

    def text(self, name: str, value: str, there: bool) -> None:
        """Add or remove a text among others of the name."""
        zone = self._zone(name)
        found = [entry for entry in self._records(zone, "TXT", name) if entry["content"].strip('"') == value]
        if there and not found:
            self._call(f"/zones/{zone}/dns_records", "POST", _record("TXT", name, f'"{value}"'))
        for entry in [] if there else found:
            self._call(f"/zones/{zone}/dns_records/{entry['id']}", "DELETE")

    def _zone(self, name: str) -> str:
        """The id of the zone that a name lies in."""
        labels = name.split(".")
        for start in range(len(labels) - 1):
            zone = ".".join(labels[start:])
            found = self._call(f"/zones?{urllib.parse.urlencode({'name': zone})}")
            if found:
                return str(found[0]["id"])
        raise Refused(
            f"{name}: the token sees no zone of it at Cloudflare; give it Zone:Read and DNS:Edit of that zone"
        )

    def _records(self, zone: str, kind: str, name: str) -> list[dict[str, Any]]:
        query = urllib.parse.urlencode({"type": kind, "name": name})
        found: list[dict[str, Any]] = self._call(f"/zones/{zone}/dns_records?{query}")
        return found

    def _call(self, path: str, method: str = "GET", body: dict[str, Any] | None = None) -> Any:
        answer = self.web.ask(f"{self.api}{path}", {"Authorization": f"Bearer {self.token}"}, method, body)
        if answer.status in (400, 401, 403):
            raise Refused(
                f"Cloudflare: refuses the request ({_errors(answer)}); correct the secret ddns_token, or ddns_names"
            )
        _understood(answer, "Cloudflare")
        document = answer.json()
        if not isinstance(document, dict) or not document.get("success"):
            raise DdnsError(f"Cloudflare: {_errors(answer)}")
        return document["result"]


def _record(kind: str, name: str, content: str) -> dict[str, Any]:
    return {"type": kind, "name": name, "content": content, "ttl": TTL}


def _errors(answer: Answer) -> str:
    """What Cloudflare complains of, without what was sent."""
    try:
        errors = answer.json().get("errors", [])
        told = ", ".join(f"{entry.get('code')} {entry.get('message')}" for entry in errors)
    except (DdnsError, AttributeError):
        told = ""
    return f"{answer.status}{': ' if told else ''}{told}"


def _understood(answer: Answer, service: str) -> None:
    """Raise DdnsError for an answer that is none, with how long to wait."""
    if answer.status != 200:
        raise DdnsError(f"{service}: answers {answer.status}", answer.wait)


def provider(name: str, web: Web, api: str, token: str) -> Provider:
    """The provider of that name."""
    kinds: dict[str, type[Provider]] = {"duckdns": DuckDns, "cloudflare": Cloudflare}
    return kinds[name](web, api, token)
