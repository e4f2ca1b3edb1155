"""UFW's own files, rendered from the doors. What UFW would write itself is written as it writes it, byte by byte."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence

from .doors import Door, Source
from .ways import Ways

HEAD = "# Written by pi-commerce (role firewall) from the catalog; changes by hand are undone by the next run.\n"
ESTABLISHED = "-m conntrack --ctstate RELATED,ESTABLISHED"
# Bridges of Docker's networks; what comes in by one is from a container. No address can pretend to that.
DOCKER_BRIDGES = ("docker0", "br-+")
# The entrance's own, from which nothing is sent on: its name is none of these.
EDGE_BRIDGE = "pi-edge"
# Not worth a line in the log: Windows' names and shares, DHCP.
NOISE = {4: ("udp 137", "udp 138", "tcp 139", "tcp 445", "udp 67", "udp 68"), 6: ("udp 546", "udp 547")}
# Without these IPv6 does not work (RFC 4890): neighbours and routers, of this wire only, and who listens to a group.
NEIGHBOURS = (133, 134, 135, 136, 141, 142, 148, 149)
LISTENERS = (130, 131, 132, 143)
ICMP = {4: ("destination-unreachable", "time-exceeded", "parameter-problem", "echo-request"), 6: (1, 2, 3, 4, 128)}
LOG = "-m limit --limit 3/min --limit-burst 10"
BLOCKED = f'{LOG} -j LOG --log-prefix "[UFW DOCKER BLOCK] "'
# A workflow that is refused shall say so at once.
REFUSED = {4: "icmp-admin-prohibited", 6: "icmp6-adm-prohibited"}


def files(doors: Sequence[Door], ways: Ways) -> dict[str, str]:
    """Content by path below /etc; ufw.conf, which switches UFW on, comes last."""
    return {
        "default/ufw": DEFAULTS,
        "ufw/sysctl.conf": SYSCTL,
        "ufw/before.init": BEFORE_INIT,
        **{f"ufw/before{_suffix(family)}.rules": before(family) for family in (4, 6)},
        **{f"ufw/after{_suffix(family)}.rules": after(family, doors, ways) for family in (4, 6)},
        **{f"ufw/user{_suffix(family)}.rules": user(family, doors) for family in (4, 6)},
        "ufw/ufw.conf": f"{HEAD}ENABLED=yes\nLOGLEVEL=low\n",
    }


def _suffix(family: int) -> str:
    return "6" if family == 6 else ""


def _table(lines: Iterable[str]) -> str:
    return HEAD + "\n".join(["*filter", *lines, "COMMIT"]) + "\n"


def before(family: int) -> str:
    """What is let in or kept out before any rule for a port."""
    ufw = f"ufw{_suffix(family)}"
    chain = f"-A {ufw}-before-input"
    lines = [f":{ufw}-before-{way} - [0:0]" for way in ("input", "output", "forward")]
    lines += [f":{ufw}-not-local - [0:0]", f"{chain} -i lo -j ACCEPT", f"-A {ufw}-before-output -o lo -j ACCEPT"]
    if family == 6:
        lines.append(f"{chain} -m rt --rt-type 0 -j DROP")
    lines += [f"-A {ufw}-before-{way} {ESTABLISHED} -j ACCEPT" for way in ("input", "output", "forward")]
    # A container has no business with the machine, however many may reach it. Docker's resolver is in the container.
    lines += [f"{chain} -i {bridge} -j DROP" for bridge in (*DOCKER_BRIDGES, EDGE_BRIDGE)]
    lines += [f"{chain} -m conntrack --ctstate INVALID -j {target}" for target in (f"{ufw}-logging-deny", "DROP")]
    icmp = "-p icmp --icmp-type" if family == 4 else "-p icmpv6 --icmpv6-type"
    lines += [f"{chain} {icmp} {kind} -j ACCEPT" for kind in ICMP[family]]
    if family == 4:
        lines.append(f"{chain} -p udp --sport 67 --dport 68 -j ACCEPT")
        mdns = "224.0.0.251"
    else:
        lines += [f"{chain} {icmp} {kind} -m hl --hl-eq 255 -j ACCEPT" for kind in NEIGHBOURS]
        lines += [f"{chain} {icmp} {kind} -s fe80::/10 -j ACCEPT" for kind in LISTENERS]
        lines.append(f"{chain} -p udp -s fe80::/10 --sport 547 -d fe80::/10 --dport 546 -j ACCEPT")
        mdns = "ff02::fb"
    kinds = ("LOCAL", "MULTICAST", *(("BROADCAST",) if family == 4 else ()))
    lines.append(f"{chain} -j {ufw}-not-local")
    lines += [f"-A {ufw}-not-local -m addrtype --dst-type {kind} -j RETURN" for kind in kinds]
    lines += [f"-A {ufw}-not-local {LOG} -j {ufw}-logging-deny", f"-A {ufw}-not-local -j DROP"]
    lines.append(f"{chain} -p udp -d {mdns} --dport 5353 -j ACCEPT")
    return _table(lines)


def after(family: int, doors: Sequence[Door], ways: Ways) -> str:
    """What happens to the rest; and Docker's own chain, by which everything passes that is sent on for a container."""
    ufw = f"ufw{_suffix(family)}"
    lines = [f":{ufw}-after-{way} - [0:0]" for way in ("input", "output", "forward")]
    lines += [f":{chain} - [0:0]" for chain in ("DOCKER-USER", "pi-containers", "pi-refused", f"{ufw}-user-forward")]
    for noise in NOISE[family]:
        protocol, port = noise.split()
        lines.append(f"-A {ufw}-after-input -p {protocol} --dport {port} -j {ufw}-skip-to-policy-input")
    if family == 4:
        lines.append(f"-A {ufw}-after-input -m addrtype --dst-type BROADCAST -j {ufw}-skip-to-policy-input")
    lines.append(f"-A DOCKER-USER {ESTABLISHED} -j RETURN")
    # Goes there for good: what returns from there has left Docker's chain, too.
    lines += [f"-A DOCKER-USER -i {bridge} -g pi-containers" for bridge in DOCKER_BRIDGES]
    lines += [
        f"-A DOCKER-USER {_forwarded(door, source)} -j RETURN"
        for door in doors
        if door.host_ip
        for source in door.from_families()
        if source.family == family
    ]
    # Where a person or a role has allowed a route (`ufw route allow`), it is meant.
    lines += [f"-A DOCKER-USER {end}" for end in (f"-j {ufw}-user-forward", BLOCKED, "-j DROP")]
    return _table(lines + _containers(family, ways))


def _containers(family: int, ways: Ways) -> list[str]:
    """What comes from a container. Whom of the others it reaches is for Docker's networks to say."""
    rules = [f"-o {bridge} -j RETURN" for bridge in DOCKER_BRIDGES]
    # Who answers for names is, in most houses, the router.
    rules += [f"-p {protocol} --dport 53 -j RETURN" for protocol in ("udp", "tcp")]
    rules += [
        f"-d {way.network} -p {way.protocol} --dport {way.port} -j RETURN" for way in ways.open if way.family == family
    ]
    rules.append(f"-j ufw{_suffix(family)}-user-forward")
    rules += [f"-d {network} -g pi-refused" for network in ways.closed[family]]
    refused = [BLOCKED, f"-j REJECT --reject-with {REFUSED[family]}"]
    return [f"-A pi-containers {rule}" for rule in rules] + [f"-A pi-refused {rule}" for rule in refused]


def _forwarded(door: Door, source: Source) -> str:
    """The packets that come to a door of a container. Its port was exchanged already: the first one counts."""
    sender = f"-i {source.interface} " if source.interface else "" if source.anywhere else f"-s {source.network} "
    bound = "" if door.host_ip in ("0.0.0.0", "::") else f" --ctorigdst {door.host_ip}"  # noqa: S104 - a comparison
    return f"{sender}-p {door.protocol} -m conntrack --ctstate DNAT --ctdir ORIGINAL{bound} --ctorigdstport {door.port}"


def user(family: int, doors: Sequence[Door]) -> str:
    """The rules of ``ufw allow``, as ``ufw`` itself writes and rewrites them: any other byte would be a change."""
    ufw, anywhere = f"ufw{_suffix(family)}", "::/0" if family == 6 else "0.0.0.0/0"
    lines = [f":{ufw}-user-{way} - [0:0]" for way in ("input", "output", "forward")]
    lines += [
        f":{ufw}-{which}-logging-{way} - [0:0]"
        for which in ("before", "user", "after")
        for way in ("input", "output", "forward")
    ]
    lines += [
        f":{ufw}-{chain} - [0:0]" for chain in ("logging-deny", "logging-allow", "user-limit", "user-limit-accept")
    ]
    lines.append("### RULES ###")
    for door in doors:
        for source in door.sources if not door.host_ip else ():
            if source.family == family:
                lines += ["", *_allowed(ufw, anywhere, door, source)]
    lines += ["", "### END RULES ###", "", "### LOGGING ###"]
    lines += [f'-A {ufw}-after-logging-{way} -j LOG --log-prefix "[UFW BLOCK] " {LOG}' for way in ("input", "forward")]
    lines.append(f"-I {ufw}-logging-deny -m conntrack --ctstate INVALID -j RETURN {LOG}")
    lines += [
        f'-A {ufw}-logging-{verdict} -j LOG --log-prefix "[UFW {word}] " {LOG}'
        for verdict, word in (("deny", "BLOCK"), ("allow", "ALLOW"))
    ]
    lines += ["### END LOGGING ###", "", "### RATE LIMITING ###"]
    lines.append(f'-A {ufw}-user-limit -m limit --limit 3/minute -j LOG --log-prefix "[UFW LIMIT BLOCK] "')
    lines += [f"-A {ufw}-user-limit -j REJECT", f"-A {ufw}-user-limit-accept -j ACCEPT", "### END RATE LIMITING ###"]
    # No head: UFW would drop it.
    return "\n".join(["*filter", *lines, "COMMIT"]) + "\n"


def _allowed(ufw: str, anywhere: str, door: Door, source: Source) -> list[str]:
    """One rule. None slows anybody down: whoever proves a change knocks often, and fail2ban bans who knocks in vain."""
    way = f"in_{source.interface}" if source.interface else "in"
    sender = "" if source.anywhere else f" -s {source.network}"
    interface = f" -i {source.interface}" if source.interface else ""
    comment = door.name.encode().hex()
    return [
        f"### tuple ### allow {door.protocol} {door.port} {anywhere} any {source.network} {way} comment={comment}",
        f"-A {ufw}-user-input{interface} -p {door.protocol} --dport {door.port}{sender} -j ACCEPT",
    ]


DEFAULTS = HEAD + textwrap.dedent("""\
    IPV6=yes
    DEFAULT_INPUT_POLICY="DROP"
    DEFAULT_OUTPUT_POLICY="ACCEPT"
    DEFAULT_FORWARD_POLICY="DROP"
    DEFAULT_APPLICATION_POLICY="SKIP"
    # Docker has rules of its own in the built-in chains.
    MANAGE_BUILTINS=no
    IPT_SYSCTL=/etc/ufw/sysctl.conf
    IPT_MODULES=""
    """)

# Instead of UFW's own file: in some versions that sets what role base decides (the reverse path filter).
SYSCTL = HEAD + textwrap.dedent("""\
    net/ipv4/conf/all/accept_redirects=0
    net/ipv4/conf/default/accept_redirects=0
    net/ipv4/conf/all/send_redirects=0
    net/ipv4/conf/default/send_redirects=0
    net/ipv6/conf/all/accept_redirects=0
    net/ipv6/conf/default/accept_redirects=0
    net/ipv4/icmp_echo_ignore_broadcasts=1
    net/ipv4/icmp_ignore_bogus_error_responses=1
    """)

# Docker before 28 hands packets that a neighbour sends to 127.0.0.1 to the container that is published there. They are
# dropped before its rules see them. And an engine that comes back to containers that went on without it (live-restore)
# does not look whether its chain for others' rules is still asked first. Here and not in before.rules, where each
# reload would add them once more.
BEFORE_INIT = (
    "#!/bin/sh\n"
    + HEAD
    + textwrap.dedent("""\
    set -eu
    [ "$1" = start ] || exit 0
    closed() {
      "$1" -w -n -L INPUT >/dev/null 2>&1 || return 0
      "$1" -w -t raw -C PREROUTING ! -i lo -d "$2" -j DROP 2>/dev/null ||
        "$1" -w -t raw -I PREROUTING ! -i lo -d "$2" -j DROP
      "$1" -w -n -L DOCKER-USER >/dev/null 2>&1 || "$1" -w -N DOCKER-USER
      first=$("$1" -w -S FORWARD | grep -e -A | grep -v -m 1 -e "-j DOCKER-ISOLATION-STAGE-1") || first=
      [ "$first" = "-A FORWARD -j DOCKER-USER" ] || {
        while "$1" -w -D FORWARD -j DOCKER-USER 2>/dev/null; do :; done
        "$1" -w -I FORWARD -j DOCKER-USER
      }
    }
    closed iptables 127.0.0.0/8
    closed ip6tables ::1
    """)
)
