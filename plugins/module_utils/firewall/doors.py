"""Who may reach what: every port that is open for somebody, and for whom."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

VPN = "wg0"
# A neighbour's own address on the wire. No router passes it on, and it stays when the house gets another network.
LINK_LOCAL = "fe80::/10"
EVERYBODY = ("0.0.0.0/0", "::/0")


class FirewallError(ValueError):
    """The rules would be wrong; the message says which, and what to set."""


@dataclass(frozen=True)
class Source:
    """Packets from `network`, or from everybody whose packets come in by `interface` (of one family each)."""

    family: int
    network: str
    interface: str = ""

    @property
    def anywhere(self) -> bool:
        """Whether no address is left out."""
        return self.network in EVERYBODY

    def holds(self, address: str, vpn: Iterable[str] = ()) -> bool:
        """Whether a packet with this sender is meant; `vpn` are the networks whose packets come in by an interface."""
        given = ipaddress.ip_address(address.partition("%")[0])
        networks = vpn if self.interface else (self.network,)
        return any(given in ipaddress.ip_network(network) for network in networks)


@dataclass(frozen=True)
class Door:
    """A port that is open for some. `host_ip` is set where it leads into a container: the address it is bound to."""

    name: str
    protocol: str
    port: int
    sources: tuple[Source, ...]
    host_ip: str = ""

    def who(self) -> list[str]:
        """The sources, as people read them."""
        return [
            source.interface or ("everybody" if source.anywhere else source.network) for source in self.from_families()
        ]

    def from_families(self) -> tuple[Source, ...]:
        """The sources that can get there: a port of a container has one family, that of its address."""
        family = ipaddress.ip_address(self.host_ip).version if self.host_ip else None
        return tuple(source for source in self.sources if family in (None, source.family))


def as_rows(found: Iterable[Door]) -> list[dict[str, Any]]:
    """The doors as plain data; `read_doors` reads them back."""
    return [asdict(door) for door in found]


def read_doors(rows: Iterable[Mapping[str, Any]]) -> list[Door]:
    """The doors of what `as_rows` has made."""
    return [Door(**{**row, "sources": tuple(Source(**source) for source in row["sources"])}) for row in rows]


def doors(settings: Mapping[str, Any]) -> list[Door]:
    """All doors of a machine. Raises FirewallError.

    Args:
        settings: `published` (rows of the catalog's published_ports), `ssh` (`ports`, `exposure`), `lan` (networks),
            `vpn` (`port`, None without peers, and `access`, names of what peers may reach), `sources` (networks by
            name that replace what its exposure says), `rules` (`name`, `port`, `protocol`, `exposure`) and `groups`
            (by name: `ports` such as 2377/tcp, `members`, the other machines' addresses).
    """
    known = {"ssh", *(row["service"] for row in settings["published"])}
    for rule in settings["rules"]:
        if rule["name"] in (*known, "wireguard"):
            raise FirewallError(f"firewall_rules: '{rule['name']}' is the name of another port: choose another one")
    known.update(rule["name"] for rule in settings["rules"])
    for variable, names in (("access_vpn", settings["vpn"]["access"]), ("firewall_sources", settings["sources"])):
        for name in names:
            if name not in known:
                raise FirewallError(f"{variable}: '{name}' has no port here; name one of {', '.join(sorted(known))}")

    def open_to(name: str, exposure: str) -> tuple[Source, ...]:
        return _sources(name, exposure, settings)

    ssh = settings["ssh"]
    found = [Door("ssh", "tcp", port, open_to("ssh", ssh["exposure"])) for port in sorted(set(map(int, ssh["ports"])))]
    found += [
        Door(rule["name"], rule["protocol"], int(rule["port"]), open_to(rule["name"], rule["exposure"]))
        for rule in settings["rules"]
    ]
    if settings["vpn"]["port"]:
        found.append(Door("wireguard", "udp", int(settings["vpn"]["port"]), _networks(EVERYBODY)))
    for name, group in sorted(settings["groups"].items()):
        members = _networks(_member(name, address) for address in group["members"])
        if members:
            found += [Door(name, *_port(port), members) for port in group["ports"]]
    found += [
        Door(
            row["service"],
            row["protocol"],
            int(row["host_port"]),
            open_to(row["service"], row["exposure"]),
            row["host_ip"],
        )
        for row in settings["published"]
        if not ipaddress.ip_address(row["host_ip"]).is_loopback
    ]
    return found


def _sources(name: str, exposure: str, settings: Mapping[str, Any]) -> tuple[Source, ...]:
    """Who may reach something of that name and exposure."""
    if name in settings["sources"]:
        networks: Iterable[str] = settings["sources"][name]
    elif exposure == "public":
        networks = EVERYBODY
    elif exposure == "lan":
        if not settings["lan"]:
            raise FirewallError(
                f"{name}: is for the local network, and the machine is attached to none: name it in lan_networks"
            )
        networks = [*settings["lan"], LINK_LOCAL]
    else:
        networks = ()
    by_vpn = name in settings["vpn"]["access"] or exposure == "vpn"
    peers = tuple(Source(family, network, VPN) for family, network in zip((4, 6), EVERYBODY, strict=True))
    return _networks(networks) + (peers if by_vpn else ())


def _networks(networks: Iterable[str]) -> tuple[Source, ...]:
    """Sources by address, each once, in order."""
    parsed = sorted({ipaddress.ip_network(network) for network in networks}, key=lambda net: (net.version, net))
    return tuple(Source(network.version, _plain(network)) for network in parsed)


def _plain(network: ipaddress.IPv4Network | ipaddress.IPv6Network) -> str:
    """As UFW writes it: a single address without its prefix."""
    return str(network.network_address) if network.num_addresses == 1 else str(network)


def _member(group: str, address: str) -> str:
    try:
        ipaddress.ip_address(address)
    except ValueError:
        raise FirewallError(
            f"group {group}: a member has the address '{address}', a rule needs a number: set its ansible_host to one"
        ) from None
    return address


def _port(text: str) -> tuple[str, int]:
    """Protocol and port of ``2377/tcp``."""
    match = re.fullmatch(r"(\d+)/(tcp|udp)", text)
    if match is None:
        raise FirewallError(f"firewall_group_ports: '{text}' must be a port and tcp or udp, such as 2377/tcp")
    return match[2], int(match[1])


def lockout(found: Sequence[Door], client: str, listening: Iterable[int], vpn: Iterable[str] = ()) -> str:
    """Why whoever runs this could not come back by SSH; empty where nothing speaks against it.

    Args:
        found: all doors.
        client: address from which this run came in; empty where it is not known.
        listening: ports on which the SSH server listens now.
        vpn: networks of the VPN's peers; none where nobody is in it, and its interface is about to go.
    """
    ssh = [door for door in found if door.name == "ssh"]
    if not ssh:
        return "no rule opens a port for SSH: set ssh_port"
    ports = {door.port for door in ssh}
    listening = [int(port) for port in listening]
    if not ports.intersection(listening):
        return (
            f"the rules open {_list(ports)} for SSH, and the server listens on {_list(listening)}: "
            "set ssh_port to a port it listens on, or apply the role ssh first"
        )
    sources = ssh[0].sources
    if client and not any(source.holds(client, vpn) for source in sources):
        allowed = [source.interface or source.network for source in sources if vpn or not source.interface]
        return (
            f"this run comes from {client}, which the rules do not let in by SSH "
            f"(but {', '.join(dict.fromkeys(allowed)) or 'nobody'}): come from there, "
            "add the network of this computer to lan_networks, or set ssh_exposure"
        )
    return ""


def _list(ports: Iterable[int]) -> str:
    return ", ".join(map(str, sorted(ports))) or "no port"


def probe_plan(found: Sequence[Door], addresses: Mapping[str, str]) -> dict[str, list[list[Any]]]:
    """What somebody at each of the addresses must find open: [protocol, port, name], by the address's name."""
    plan: dict[str, list[list[Any]]] = {}
    for place, address in addresses.items():
        open_here = {
            (door.protocol, door.port, door.name)
            for door in found
            if any(source.holds(address) for source in door.from_families())
        }
        plan[place] = [list(entry) for entry in sorted(open_here)]
    return plan
