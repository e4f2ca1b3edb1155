"""Where containers may go: the internet and what is named, not the house that the machine stands in."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# Nobody's on the internet: houses, providers' own nets, VPNs, a wire's own addresses, groups of listeners.
PRIVATE = (
    *("10.0.0.0/8", "100.64.0.0/10", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16", "224.0.0.0/4"),
    *("fc00::/7", "fe80::/10", "ff00::/8"),
)


@dataclass(frozen=True)
class Way:
    """A port in the house that containers may call."""

    family: int
    network: str
    protocol: str
    port: int


@dataclass(frozen=True)
class Ways:
    """What is closed for containers (networks by family), and what is open all the same."""

    closed: Mapping[int, tuple[str, ...]]
    open: tuple[Way, ...]


def ways(settings: Mapping[str, Any]) -> Ways:
    """Where containers may go.

    Args:
        settings: `house` (networks that are closed besides the private ones: what the machine is attached to may have
            public addresses) and `reach` (rows of `network`, `port`, `protocol` that are open all the same).
    """
    closed = [ipaddress.ip_network(network) for network in (*PRIVATE, *settings["house"])]
    # Those that lie in another are left out.
    four = ipaddress.collapse_addresses(net for net in closed if isinstance(net, ipaddress.IPv4Network))
    six = ipaddress.collapse_addresses(net for net in closed if isinstance(net, ipaddress.IPv6Network))
    return Ways(
        {4: tuple(map(str, four)), 6: tuple(map(str, six))},
        tuple(
            Way(ipaddress.ip_network(row["network"]).version, str(row["network"]), row["protocol"], int(row["port"]))
            for row in settings["reach"]
        ),
    )
