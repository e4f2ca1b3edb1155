"""Members of the VPN, their addresses and their configurations. Pure.

A member has a number, which is its address in both networks: a machine runs this project, a device is a phone, a
laptop or the gateway of another site. `docs/decisions/0019-wireguard.md` says who knows whom.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import ipaddress
import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

INTERFACE = "wg0"
KEY_FILE = f"/etc/wireguard/{INTERFACE}.key"
SHAPE_FILE = f"/run/pi-commerce-{INTERFACE}"
# Seconds after which who is behind a router says something, so that the router goes on letting answers in.
KEEPALIVE = 25
# Devices that were not given a number begin here: below is room for machines.
FIRST_DEVICE = 100
NAME = r"[a-z0-9][a-z0-9_-]{0,30}"
HEADER = "# Written by pi-commerce (role wireguard)."


class WireguardError(Exception):
    """The members do not fit together; the text says which, why, and what to change."""


class Networks(NamedTuple):
    """The VPN's networks; `six` is empty where it has none."""

    four: str
    six: str = ""

    def addresses(self, number: int) -> list[str]:
        """The addresses of a member, each with the length that stands for it alone. Raises WireguardError."""
        found = []
        for name, text in zip(("wireguard_network", "wireguard_network6"), self, strict=True):
            if not text:
                continue
            network = ipaddress.ip_network(text)
            # The first one names the network, and IPv4's last speaks to all.
            if not 0 < number < network.num_addresses - (network.version == 4):
                raise WireguardError(f"number {number} does not fit into {name} ({text}): choose a smaller number")
            found.append(f"{network[number]}/{network.max_prefixlen}")
        return found

    def interface(self, number: int) -> list[str]:
        """The same with the lengths of the networks, as an interface takes them."""
        lengths = [ipaddress.ip_network(text).prefixlen for text in self if text]
        alone = [address.partition("/")[0] for address in self.addresses(number)]
        return [f"{address}/{length}" for address, length in zip(alone, lengths, strict=True)]


class Machine(NamedTuple):
    """One that runs this project. Without an `endpoint` (a host) it cannot be dialled, and dials itself."""

    name: str
    number: int
    public_key: str
    endpoint: str = ""
    port: int = 51820

    @property
    def dialled(self) -> str:
        """Where it listens, as WireGuard takes it; empty for one that cannot be dialled."""
        return f"{bracketed(self.endpoint)}:{self.port}" if self.endpoint else ""


class Peer(NamedTuple):
    """A [Peer] section."""

    name: str
    public_key: str
    preshared_key: str
    allowed: Sequence[str]
    endpoint: str = ""
    keepalive: bool = False

    @property
    def named(self) -> bool:
        """Whether its endpoint is a name, which has to be looked up, and again when it has moved."""
        host = self.endpoint.rpartition(":")[0].strip("[]")
        return bool(host) and not is_address(host)


def is_address(text: str) -> bool:
    """Whether the text is an address and no name."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def bracketed(host: str) -> str:
    """A host as it stands before a port."""
    return f"[{host}]" if ":" in host else host


def is_key(text: Any) -> bool:
    """Whether the text is a key as WireGuard writes it: 32 bytes in base64."""
    try:
        return isinstance(text, str) and len(text) == 44 and len(base64.b64decode(text, validate=True)) == 32
    except binascii.Error:
        return False


def is_peer(name: Any, entry: Any) -> bool:
    """Whether an entry of wireguard_peers has a name, a number and a public key, and nothing that is not known."""
    if not isinstance(entry, Mapping) or not {"number", "public_key"} <= set(entry) <= {
        *("number", "public_key", "endpoint", "networks"),
    }:
        return False
    number = entry["number"]
    return (
        re.fullmatch(NAME, str(name)) is not None
        and isinstance(number, int)
        and not isinstance(number, bool)
        and number > 0
        and is_key(entry["public_key"])
        and re.fullmatch(r"(\[[0-9a-fA-F:]+\]|[A-Za-z0-9.-]+):\d{1,5}", str(entry.get("endpoint", "x:1"))) is not None
        and all(is_network(network) for network in entry.get("networks", []))
    )


def is_network(text: Any) -> bool:
    """Whether the text is a network, with no bit set behind its length, that is not the whole world."""
    try:
        return ipaddress.ip_network(str(text)).prefixlen > 0 and "/" in str(text)
    except ValueError:
        return False


def new_private_key() -> str:
    """A private key, for a device that does not make its own."""
    return base64.b64encode(X25519PrivateKey.generate().private_bytes_raw()).decode()


def public_key(private: str) -> str:
    """The public half of a private key. Raises WireguardError for a text that is none."""
    if not is_key(private):
        raise WireguardError("the private key is none: 32 bytes in base64 are expected")
    half = X25519PrivateKey.from_private_bytes(base64.b64decode(private)).public_key()
    return base64.b64encode(half.public_bytes_raw()).decode()


def preshared_key(secret: str, public: str) -> str:
    """The key that a machine with this secret shares with whoever has this public key, and with nobody else."""
    info = f"pi-commerce wireguard {public}".encode()
    return base64.b64encode(HKDF(algorithm=SHA256(), length=32, salt=None, info=info).derive(secret.encode())).decode()


def overlap(one: str, other: str) -> bool:
    """Whether two networks have an address in common."""
    return ipaddress.ip_network(one).overlaps(ipaddress.ip_network(other))


def refuse_clashes(
    machines: Iterable[Machine],
    devices: Mapping[str, Mapping[str, Any]],
    networks: Networks,
    attached: Iterable[str] = (),
) -> None:
    """Raise WireguardError where two members have one number, one key or one name, or where networks overlap.

    `attached` are the networks in which a machine is anyway: by a second way there it would lose the first.
    """
    rows = [(one.name, one.number, one.public_key, f"wireguard_number or the key of {one.name}") for one in machines]
    rows += [(name, entry["number"], entry["public_key"], f"wireguard_peers.{name}") for name, entry in devices.items()]
    for what, index in (("name", 0), ("number", 1), ("public key", 2)):
        seen: dict[Any, str] = {}
        for row in rows:
            if row[index] and row[index] in seen:
                raise WireguardError(
                    f"{seen[row[index]]} and {row[0]} have the same {what} in the VPN ({row[index]}): change {row[3]}"
                )
            seen[row[index]] = row[0]
    places = [("this machine", network, "") for network in attached]
    names = ("wireguard_network", "wireguard_network6")
    places += [("the VPN", text, name) for name, text in zip(names, networks, strict=True) if text]
    for name, entry in devices.items():
        places += [(name, str(network), f"wireguard_peers.{name}.networks") for network in entry.get("networks", [])]
    for (one, first, _), (other, second, place) in itertools.combinations(places, 2):
        if one != other and overlap(first, second):
            raise WireguardError(f"{one} and {other} have addresses in common ({first}, {second}): change {place}")


def next_number(machines: Iterable[Machine], devices: Mapping[str, Mapping[str, Any]]) -> int:
    """The lowest number for a new device that nobody has."""
    taken = {one.number for one in machines} | {entry["number"] for entry in devices.values()}
    return next(number for number in range(FIRST_DEVICE, FIRST_DEVICE + len(taken) + 1) if number not in taken)


def peers_of(
    own: Machine,
    machines: Sequence[Machine],
    devices: Mapping[str, Mapping[str, Any]],
    secrets: Mapping[str, str],
    networks: Networks,
) -> list[Peer]:
    """Whom a machine knows: the other machines whose keys are known, then every device.

    Args:
        own: the machine; its public key may still be unknown (empty) in a check of a bare one.
        machines: all machines of the VPN.
        devices: `wireguard_peers`.
        secrets: what preshared keys follow from, by machine: its own and those of machines with lower numbers.

    Raises WireguardError.
    """
    refuse_clashes(machines, devices, networks)
    found = []
    for other in machines:
        first, second = sorted((own, other), key=lambda one: one.number)
        if other.name == own.name or not other.public_key or first.name not in secrets:
            continue
        shared = preshared_key(secrets[first.name], second.public_key)
        # Who is behind a router keeps its own line open.
        keepalive = bool(other.dialled) and not own.endpoint
        allowed = networks.addresses(other.number)
        found.append(Peer(other.name, other.public_key, shared, allowed, other.dialled, keepalive))
    for name, entry in sorted(devices.items()):
        shared = preshared_key(secrets[own.name], entry["public_key"])
        allowed = [*networks.addresses(entry["number"]), *map(str, entry.get("networks", []))]
        endpoint = str(entry.get("endpoint", ""))
        found.append(Peer(name, entry["public_key"], shared, allowed, endpoint, bool(endpoint)))
    return found


def machine_config(own: Machine, peers: Sequence[Peer], networks: Networks) -> str:
    """`wg0.conf` of a machine. Its own key is not in it: wg-quick takes it from its file.

    The interface notes its shape when it comes up: what `wg syncconf` cannot change. Names of endpoints are left out,
    because a name that cannot be looked up would keep the whole interface from coming up (see `endpoints`).
    """
    # What lies in the VPN's own networks has a way already.
    inside = [text for text in networks if text]
    routes = [text for peer in peers for text in peer.allowed if not any(overlap(text, network) for network in inside)]
    interface = [*(f"Address = {address}" for address in networks.interface(own.number)), f"ListenPort = {own.port}"]
    shape = hashlib.sha256("\n".join(interface + sorted(routes)).encode()).hexdigest()[:16]
    lines = [
        HEADER,
        f"# shape {shape}",
        "[Interface]",
        *interface,
        f"PostUp = wg set %i private-key {KEY_FILE}",
        f"PostUp = echo {shape} > {SHAPE_FILE}",
    ]
    for peer in peers:
        lines += section(peer._replace(endpoint="") if peer.named else peer)
    return "\n".join(lines) + "\n"


def endpoints(peers: Iterable[Peer]) -> str:
    """Peers that are dialled by name, a line each: public key, endpoint."""
    return "".join(f"{peer.public_key} {peer.endpoint}\n" for peer in peers if peer.named)


def client_config(
    name: str,
    entry: Mapping[str, Any],
    private: str,
    machines: Iterable[Machine],
    secrets: Mapping[str, str],
    networks: Networks,
) -> str:
    """The file that a device imports: the private key (or, empty, a line to fill in) and every machine.

    Raises WireguardError.
    """
    lines = [
        f"# {name}: import this into WireGuard. Whoever has it is {name}: delete it when the device has it.",
        "[Interface]",
        f"PrivateKey = {private}" if private else "# PrivateKey = (the one that the device has made)",
        f"Address = {', '.join(networks.addresses(entry['number']))}",
        # A site that is dialled listens there.
        *([f"ListenPort = {entry['endpoint'].rpartition(':')[2]}"] if entry.get("endpoint") else []),
    ]
    for machine in machines:
        if not machine.public_key:
            raise WireguardError(f"the public key of {machine.name} is not known here: run site.yml for it first")
        # A site that is dialled itself takes calls; another device has to know whom to call.
        if not machine.dialled and not entry.get("endpoint"):
            continue
        shared = preshared_key(secrets[machine.name], entry["public_key"])
        allowed = networks.addresses(machine.number)
        lines += section(
            Peer(machine.name, machine.public_key, shared, allowed, machine.dialled, bool(machine.dialled))
        )
    if "[Peer]" not in lines:
        raise WireguardError("no machine of the VPN can be dialled: set wireguard_endpoint for one of them")
    return "\n".join(lines) + "\n"


def private_key_in(config: str) -> str:
    """The private key of a client file, empty where it has none."""
    found = re.search(r"^PrivateKey = (\S+)$", config, re.MULTILINE)
    return found[1] if found else ""


def section(peer: Peer) -> list[str]:
    """The lines of a [Peer]."""
    return [
        "",
        f"# {peer.name}",
        "[Peer]",
        f"PublicKey = {peer.public_key}",
        f"PresharedKey = {peer.preshared_key}",
        f"AllowedIPs = {', '.join(peer.allowed)}",
        *([f"Endpoint = {peer.endpoint}"] if peer.endpoint else []),
        *([f"PersistentKeepalive = {KEEPALIVE}"] if peer.keepalive else []),
    ]
