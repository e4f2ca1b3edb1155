"""Cloudflare's addresses: fetched, judged, and written for nginx. What cannot be right changes nothing."""

from __future__ import annotations

import http.client
import ipaddress
import ssl
import urllib.error
import urllib.request
from collections.abc import Sequence

from .errors import EntranceError

PATIENCE = 30
LARGEST = 64 * 1024
# No network of theirs is wider: a line that says so would let in half the world.
WIDEST = {4: 8, 6: 19}


def fetch(urls: Sequence[str], authority: str = "") -> list[str]:
    """The networks in the lists at these URLs, judged. Raises EntranceError; no redirect is followed to elsewhere."""
    context = ssl.create_default_context()
    if authority:
        context.load_verify_locations(authority)
    opener = urllib.request.build_opener(_Stay, urllib.request.HTTPSHandler(context=context))
    found: list[str] = []
    for url in urls:
        if not url.startswith("https://"):
            raise EntranceError(f"{url}: is not asked without TLS; correct proxy_cloudflare_lists")
        try:
            with opener.open(url, timeout=PATIENCE) as answer:
                text = answer.read(LARGEST + 1).decode("ascii")
        except urllib.error.HTTPError as error:
            raise EntranceError(f"{url}: answers {error.code}") from error
        except (OSError, UnicodeDecodeError, http.client.HTTPException) as error:
            raise EntranceError(f"{url}: does not answer ({error})") from error
        if len(text) > LARGEST:
            raise EntranceError(f"{url}: is larger than any list of theirs")
        found += parse(text, url)
    return found


class _Stay(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *args: object) -> None:
        return None


def parse(text: str, place: str) -> list[str]:
    """The networks of a list, one a line. Raises EntranceError that names the line."""
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    if not lines:
        raise EntranceError(f"{place}: is empty")
    for line in lines:
        try:
            network = ipaddress.ip_network(line)
        except ValueError as error:
            raise EntranceError(f"{place}: {line[:60]!r} is no network") from error
        if network.prefixlen < WIDEST[network.version]:
            raise EntranceError(f"{place}: {line} is wider than /{WIDEST[network.version]}")
        if not network.is_global:
            raise EntranceError(f"{place}: {line} is no public network")
    return lines


def accept(new: Sequence[str], old: Sequence[str]) -> None:
    """Raise EntranceError where half of what was there is gone: then it is likelier that the list is broken."""
    gone = set(old) - set(new)
    if len(gone) * 2 > len(set(old)):
        raise EntranceError(
            f"{len(gone)} of {len(set(old))} networks are gone at once; if that is right, run with --force"
        )


def nginx(networks: Sequence[str]) -> str:
    """What nginx includes: who is Cloudflare, and from whom the visitor's address is taken."""
    lines = [
        "# Written by pi-commerce-entrance from Cloudflare's lists.",
        "real_ip_header CF-Connecting-IP;",
        *(f"set_real_ip_from {network};" for network in networks),
        "geo $realip_remote_addr $from_cloudflare {",
        "  default 0;",
        *(f"  {network} 1;" for network in networks),
        "}",
    ]
    return "\n".join(lines) + "\n"
