"""HTTPS questions and their answers. No URL stands in a message: DuckDNS has the token in it."""

from __future__ import annotations

import http.client
import json
import ssl
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from typing import Any, NamedTuple

from .errors import DdnsError, Refused

PATIENCE = 20
# Nobody who is meant here has more to say.
LARGEST = 1024 * 1024


class Answer(NamedTuple):
    """Status and text of an answer, and how long (s) to wait before the next question."""

    status: int
    text: str
    wait: float

    def json(self) -> Any:
        """The text as JSON. Raises DdnsError."""
        try:
            return json.loads(self.text)
        except ValueError as error:
            raise DdnsError(f"answers {self.status} with what is no JSON") from error


class _Stay(urllib.request.HTTPRedirectHandler):
    """Follows nobody: a redirect would take the token elsewhere, or come from a login page."""

    def redirect_request(self, *args: Any) -> None:
        return None


class Web:
    """Asks with TLS; `authority` is a PEM file to trust besides those of the system."""

    def __init__(self, authority: str = "") -> None:
        context = ssl.create_default_context()
        if authority:
            context.load_verify_locations(authority)
        self._opener = urllib.request.build_opener(_Stay, urllib.request.HTTPSHandler(context=context))

    def ask(self, url: str, headers: Mapping[str, str] | None = None, method: str = "GET", body: Any = None) -> Answer:
        """One question; any status is an answer. Raises DdnsError where none comes."""
        scheme, host, *_ = urllib.parse.urlsplit(url)
        if scheme != "https":
            raise Refused(f"{scheme}://{host}: is not asked without TLS; correct ddns_api or ddns_sources")
        data = None if body is None else json.dumps(body).encode()
        named = {"User-Agent": "pi-commerce-ddns", "Content-Type": "application/json", **(headers or {})}
        request = urllib.request.Request(url, data, named, method=method)  # noqa: S310 - of https alone, see above
        try:
            with self._open(request) as answer:
                after = answer.headers.get("Retry-After", "")
                text = answer.read(LARGEST).decode(errors="replace")
                return Answer(answer.status, text, float(after) if after.isdecimal() else 0)
        except http.client.HTTPException as error:
            # Its text may quote the URL.
            raise DdnsError(f"{host}: answers what is no HTTP ({type(error).__name__})") from None
        except OSError as error:
            raise DdnsError(f"{host}: does not answer ({getattr(error, 'reason', error)})") from error

    def _open(self, request: urllib.request.Request) -> Any:
        """An answer of any status, its text still to be read. Raises OSError, http.client.HTTPException."""
        try:
            return self._opener.open(request, timeout=PATIENCE)
        except urllib.error.HTTPError as error:
            return error
