"""What the network roles need to know of a machine: how this run came in, by what, and from where others may come."""

from __future__ import annotations

import ipaddress
import json
import os
import re
import subprocess

# What is made on the machine itself: nobody's house is behind it.
OWN = re.compile(r"lo$|docker|br-|pi-|veth|virbr|wg|tun|tap|dummy")
# May stand before the chain that is kept for our rules: it lets nothing pass.
ONLY_DROPS = "-j DOCKER-ISOLATION-STAGE-1"
GUARD_MARK = "/var/lib/pi-commerce/guard/armed.json"
PRIVATE6 = ipaddress.ip_network("fc00::/7")
FAMILIES = {"ip": "", "ip6": "6"}
# UFW's chains with the machine's own rules, by the file that holds them.
CHAINS = {
    "before": ("ufw{six}-before-input",),
    "user": ("ufw{six}-user-input",),
    "after": ("DOCKER-USER", "pi-containers", "pi-refused"),
}
NOBODY = {"client": "", "home": ""}
LOOPBACK = {"ip": "127.0.0.0/8", "ip6": "::1/128"}


def read() -> dict:
    """What `state` says, with what only the machine itself can see."""
    in_force = rules_in_force()
    # Without it the server refuses any settings. It goes with ssh.service, where that is stopped for its socket's sake.
    os.makedirs("/run/sshd", mode=0o755, exist_ok=True)
    found = state(output("ip", "-json", "address"), output("sshd", "-T"), active("ssh.socket"))
    return {
        **found,
        "ssh": {**found["ssh"], **login("/proc", os.getppid()), "problem": complaint("sshd", "-t")},
        "guard_armed": os.path.exists(GUARD_MARK),
        "firewall_running": "-N ufw-user-input" in in_force["ip"].splitlines(),
        "firewall_problems": firewall_problems(in_force, rule_files("/etc/ufw")),
        "docker_bypass": active("docker.service") and bypass(in_force["ip"]),
        "legacy_tables": legacy_tables(legacy("ip"), legacy("ip6")),
        "iptables_backends": sorted({backend(output(f"{family}tables", "--version")) for family in FAMILIES} - {""}),
    }


def state(addresses: str, settings: str, socket: bool) -> dict:
    """The network of a machine where nothing is wrong and nobody is connected.

    `ssh` (see `sshd` and `login`; `socket`: systemd owns the port; `problem`: what `sshd -t` says), `attached` and
    `neighbours` (networks), `guard_armed`, `firewall_running`, `firewall_problems` (texts), `docker_bypass`,
    `legacy_tables` and `iptables_backends`. Of what `ip -json address` and `sshd -T` print.
    """
    networks = attached(json.loads(addresses or "[]"))
    return {
        "ssh": {**sshd(settings), **NOBODY, "socket": socket, "problem": ""},
        "attached": networks,
        "neighbours": neighbours(networks),
        "guard_armed": False,
        "firewall_running": True,
        "firewall_problems": [],
        "docker_bypass": False,
        "legacy_tables": False,
        "iptables_backends": ["nf_tables"],
    }


def output(*command: str) -> str:
    """What a program prints; nothing where it is not there or fails."""
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=False)
    except OSError:
        return ""
    return done.stdout if done.returncode == 0 else ""


def complaint(*command: str) -> str:
    """What a program that fails says of it; nothing where it succeeds or is not there."""
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode else ""


def active(unit: str) -> bool:
    """Whether systemd has the unit running."""
    return output("systemctl", "is-active", unit).strip() == "active"


def sshd(settings: str) -> dict:
    """Ports and whether passwords open the door, of what `sshd -T` prints."""
    pairs = [line.split(" ", 1) for line in settings.splitlines() if " " in line]
    return {
        "ports": sorted({int(value) for name, value in pairs if name == "port"}),
        "passwords": any(
            name in ("passwordauthentication", "kbdinteractiveauthentication") and value == "yes"
            for name, value in pairs
        ),
    }


def login(proc: str, pid: int) -> dict:
    """The connection by which the process `pid` came in: `client` (address) and `home`; empty for none.

    sudo does not pass SSH_CONNECTION on, but some process on the way here has it.
    """
    while pid > 1:
        try:
            with open(f"{proc}/{pid}/environ", "rb") as source:
                environment = source.read().decode(errors="replace").split("\0")
            with open(f"{proc}/{pid}/stat", encoding="utf-8", errors="replace") as source:
                # The name, in brackets, may hold anything.
                parent = int(source.read().rpartition(")")[2].split()[1])
        except OSError:
            break
        known = dict(entry.split("=", 1) for entry in environment if "=" in entry)
        if "SSH_CONNECTION" in known:
            return {"client": known["SSH_CONNECTION"].split()[0], "home": known.get("HOME", "")}
        pid = parent
    return dict(NOBODY)


def attached(interfaces: list) -> list:
    """Networks (CIDR) that begin at this machine's own sockets, of what `ip -json address` prints.

    Of IPv6 only those that stay: a provider gives a house other public ones any day.
    """
    found = set()
    for interface in interfaces:
        if OWN.match(interface["ifname"]):
            continue
        for address in interface["addr_info"]:
            network = ipaddress.ip_network(f"{address['local']}/{address['prefixlen']}", strict=False)
            if address["scope"] == "global" and (network.version == 4 or network.network_address in PRIVATE6):
                found.add(str(network))
    return sorted(found)


def neighbours(networks: list) -> list:
    """Those of the attached networks in which only the house is: in a public one are a provider's other customers."""
    return [network for network in networks if ipaddress.ip_network(network).is_private]


def legacy(family: str) -> str:
    """Rules in the kernel's older tables of ip or ip6. Where it has none, asking the program would make some."""
    try:
        with open(f"/proc/net/{family}_tables_names", encoding="utf-8") as source:
            names = source.read()
    except OSError:
        return ""
    return output(f"{family}tables-legacy-save") if names else ""


def legacy_tables(*saved: str) -> bool:
    """Whether rules lie in the kernel's older tables, of what `iptables-legacy-save` prints."""
    return any(line.startswith("-A ") for text in saved for line in text.splitlines())


def rules_in_force() -> dict:
    """What iptables prints of each family: its filter, and what is dropped before anybody looks at it."""
    return {family: "".join(output(*command) for command in asked(family)) for family in FAMILIES}


def asked(family: str) -> tuple:
    """The commands that print a family's rules."""
    return (f"{family}tables", "-w", "-S"), (f"{family}tables", "-w", "-t", "raw", "-S", "PREROUTING")


def rule_files(folder: str) -> dict:
    """UFW's rules by family, as they are written; nothing where a file is missing."""
    texts = {"ip": "", "ip6": ""}
    for family, six in FAMILIES.items():
        for name in CHAINS:
            try:
                with open(f"{folder}/{name}{six}.rules", encoding="utf-8") as source:
                    texts[family] += source.read()
            except OSError:
                return {}
    return texts


def firewall_problems(in_force: dict, written: dict) -> list:
    """In what the rules in force differ from those that are written, as texts. Pure; iptables' own spelling differs.

    An older engine puts a last RETURN behind Docker's chain, where nothing comes any more.
    """
    problems = []
    for family, text in written.items():
        six = FAMILIES[family]
        lines = in_force[family].splitlines()
        incoming = next((line for line in lines if line.startswith("-A INPUT ")), "")
        if not incoming.startswith(f"-A INPUT -j ufw{six}-"):
            problems.append(f"{family}tables: other rules of INPUT are asked before UFW's")
        if f"-A PREROUTING -d {LOOPBACK[family]} ! -i lo -j DROP" not in lines:
            problems.append(f"{family}tables: lets packets from outside in to {LOOPBACK[family]} (table raw)")
        passing = [line for line in lines if line.startswith("-A FORWARD ") and not line.endswith(ONLY_DROPS)]
        if passing[:1] != ["-A FORWARD -j DOCKER-USER"]:
            problems.append(f"{family}tables: other rules of FORWARD are asked before the chain DOCKER-USER")
        for policy in ("-P INPUT DROP", "-P FORWARD DROP"):
            if policy not in lines:
                problems.append(f"{family}tables: lacks the policy {policy}")
        for chain in (name.format(six=six) for names in CHAINS.values() for name in names):
            wanted, found = (
                [line for line in rules if line.startswith(f"-A {chain} ")] for rules in (text.splitlines(), lines)
            )
            if chain == f"ufw{six}-before-input":
                # Written nowhere: UFW asks the rules for ports by itself.
                wanted.append(f"-A {chain} -j ufw{six}-user-input")
            last = wanted[-1:] if chain in ("DOCKER-USER", f"ufw{six}-before-input") else found[-1:]
            if found[len(wanted) :] == ["-A DOCKER-USER -j RETURN"]:
                found.pop()
            if len(found) != len(wanted) or last != found[-1:]:
                problems.append(f"{family}tables: chain {chain} has other rules than UFW's files")
    return problems


def bypass(in_force: str) -> bool:
    """Whether Docker keeps its own rules elsewhere or has none, of what iptables prints."""
    return "-N DOCKER" not in in_force.splitlines()


def backend(version: str) -> str:
    """nf_tables or legacy, of what `iptables --version` prints; empty where there is none."""
    match = re.search(r"\((\w+)\)", version)
    return match[1] if match else ""
