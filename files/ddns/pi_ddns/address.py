"""Which address the line has, by asking others how they see it."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence

from .errors import DdnsError
from .web import Web


def read(text: str, family: int) -> str:
    """The address in an answer: alone, or after `ip=` as in Cloudflare's trace. Raises DdnsError for any other."""
    found = re.search(r"^(?:ip=)?([0-9a-fA-F:.]+)\s*$", text, re.MULTILINE)
    try:
        address = ipaddress.ip_address(found[1] if found else "")
    except ValueError as error:
        raise DdnsError("answers with no address") from error
    if address.version != family:
        raise DdnsError(f"answers with an address of IPv{address.version}, not IPv{family}")
    if not address.is_global:
        raise DdnsError(f"answers with {address}, which nobody can reach from outside")
    return str(address)


def seen(web: Web, sources: Sequence[str], family: int, known: str) -> str:
    """The line's address. A change counts only when two of the sources say so, where there are two.

    Args:
        web: what asks.
        sources: URLs, asked in their order.
        family: 4 or 6.
        known: the address that was sent last, empty for none.

    Raises DdnsError, which says what each source answered.
    """
    told: dict[str, str] = {}
    problems = []
    for url in sources:
        try:
            answer = web.ask(url)
            if answer.status != 200:
                raise DdnsError(f"answers {answer.status}")
            address = read(answer.text, family)
        except DdnsError as error:
            problems.append(f"{url}: {error}")
            continue
        if address == known or address in told or len(sources) == 1:
            return address
        told[address] = url
    problems += [f"{url}: says {address}" for address, url in told.items()]
    text = "no two sources agree" if told else "no source knows it"
    raise DdnsError(f"the line's address (IPv{family}) is not known, {text}: {'; '.join(problems)}")
