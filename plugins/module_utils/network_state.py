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


def read() -> dict:
    """`ssh` (see `sshd` and `login`), `attached` networks, whether the firewall is at work and the guard armed, ..."""
    in_force = rules_in_force()
    return {
        "ssh": {
            **sshd(output("sshd", "-T")),
            **login("/proc", os.getppid()),
            "socket": active("ssh.socket"),
            "problem": complaint("sshd", "-t"),
        },
        "attached": attached(json.loads(output("ip", "-json", "address") or "[]")),
        "guard_armed": os.path.exists(GUARD_MARK),
        "firewall_running": "-N ufw-user-input" in in_force["ip"].splitlines(),
        "firewall_problems": firewall_problems(in_force, rule_files("/etc/ufw")),
        "docker_bypass": active("docker.service") and bypass(in_force["ip"]),
        "legacy_tables": legacy_tables(legacy("ip"), legacy("ip6")),
        "iptables_backend": backend(output("iptables", "--version")),
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
    """The connection by which the process `pid` came in: `client` (address), `port` here, `home`; "", 0, "" for none.

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
            client, _, _, port = known["SSH_CONNECTION"].split()
            return {"client": client, "port": int(port), "home": known.get("HOME", "")}
        pid = parent
    return {"client": "", "port": 0, "home": ""}


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
    """What iptables prints of each family's filter."""
    return {family: output(f"{family}tables", "-w", "-S") for family in ("ip", "ip6")}


def rule_files(folder: str) -> dict:
    """UFW's rules for ports and for Docker's chain, by family, as they are written; nothing where a file is missing."""
    texts = {"ip": "", "ip6": ""}
    for family, six in (("ip", ""), ("ip6", "6")):
        for name in ("user", "after"):
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
        six = "6" if family == "ip6" else ""
        lines = in_force[family].splitlines()
        passing = [line for line in lines if line.startswith("-A FORWARD ") and not line.endswith(ONLY_DROPS)]
        if passing[:1] != ["-A FORWARD -j DOCKER-USER"]:
            problems.append(f"{family}tables: other rules of FORWARD are asked before the chain DOCKER-USER")
        for policy in ("-P INPUT DROP", "-P FORWARD DROP"):
            if policy not in lines:
                problems.append(f"{family}tables: lacks the policy {policy}")
        for chain, last in (
            (f"ufw{six}-user-input", ""),
            ("DOCKER-USER", "-A DOCKER-USER -j DROP"),
            ("pi-containers", ""),
        ):
            wanted, found = (
                [line for line in rules if line.startswith(f"-A {chain} ")] for rules in (text.splitlines(), lines)
            )
            if found[len(wanted) :] == ["-A DOCKER-USER -j RETURN"]:
                found.pop()
            if len(found) != len(wanted) or (last and last != found[-1]):
                problems.append(f"{family}tables: chain {chain} has other rules than UFW's files")
    return problems


def bypass(in_force: str) -> bool:
    """Whether Docker keeps its own rules elsewhere or has none, of what iptables prints."""
    return "-N DOCKER" not in in_force.splitlines()


def backend(version: str) -> str:
    """nf_tables or legacy, of what `iptables --version` prints; empty where there is none."""
    match = re.search(r"\((\w+)\)", version)
    return match[1] if match else ""
