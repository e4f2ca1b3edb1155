"""Looks at the virtual Pi from outside: `probe.py` compares every open port with what its firewall has declared.

Somebody in the same house and somebody far away are one container with addresses of both, on the Pi's network: IPv4,
IPv6 and, of the neighbour, the one that is valid on the wire only. What is open and not declared is named with its
culprit.
"""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import docker
import virtual_pi
from docker.models.containers import Container
from virtual_pi import Settings, inside

sys.path.append(str(Path(__file__).resolve().parents[2] / "plugins/module_utils"))

import firewall

SCAN = (Path(__file__).parent / "scan.py").read_text()
FAR, FAR6 = "198.51.100", "2001:db8:51"
SECONDS = 300


class Outside:
    """The container outside, and the Pi it looks at."""

    def __init__(self, settings: Settings, prober: Container, pi: Container) -> None:
        """Where each place is: its own address, and that of the Pi as it is seen from there."""
        self.settings, self.prober, self.pi = settings, prober, pi
        self.places = {
            "neighbour": (f"{settings.network}.30", settings.address),
            "stranger": (f"{FAR}.30", settings.address),
            "neighbour, IPv6": (f"{link_local(prober)}%eth0", f"{link_local(pi)}%eth0"),
            "stranger, IPv6": (f"{FAR6}::30", f"{FAR6}::10"),
        }

    def scan(self, place: str, *more: str, target: str = "") -> dict[str, list[int]]:
        """The ports that answer there."""
        source, address = self.places[place]
        found: dict[str, list[int]] = json.loads(
            inside(self.prober, "timeout", str(SECONDS), "python3", "-c", SCAN, source, target or address, *more)
        )
        return found

    def declared(self) -> list[firewall.Door]:
        """The doors that the machine was given by its last run."""
        try:
            written = inside(self.pi, "cat", "/etc/pi-commerce/firewall/doors.json")
        except virtual_pi.VirtualPiError as error:
            raise virtual_pi.VirtualPiError(
                f"{error}; the first run of site.yml declares what is open: `make up`"
            ) from error
        return firewall.read_doors(json.loads(written))

    def differences(self) -> list[str]:
        """What is open and should not be, with who opened it; and what should be and is not. Empty: all is well."""
        plan = firewall.probe_plan(self.declared(), {place: own for place, (own, _) in self.places.items()})
        problems = []
        # All at once: most of it is waiting for answers that do not come.
        with ThreadPoolExecutor() as pool:
            scans = dict(zip(self.places, pool.map(self.scan, self.places), strict=True))
        for place, scan in scans.items():
            found = {(kind, port) for kind, ports in scan.items() for port in ports}
            wanted = {(kind, port): name for kind, port, name in plan[place]}
            for kind, port in sorted(found - set(wanted)):
                problems.append(f"{place}: {port}/{kind} is open and not declared: {self.culprit(kind, port)}")
            # A UDP service need not answer a question that it does not understand.
            silent = [
                (port, name)
                for (kind, port), name in sorted(wanted.items())
                if (kind, port) not in found and kind == "tcp"
            ]
            problems += [f"{place}: {port}/tcp ({name}) is declared and does not answer" for port, name in silent]
        return problems

    def culprit(self, kind: str, port: int) -> str:
        """Who has opened a port: a container that publishes it, or a process that listens."""
        rows = inside(self.pi, "docker", "ps", "--format", "{{.Names}} {{.Ports}}").splitlines()
        containers = [row.split(" ", 1)[0] for row in rows if f":{port}->" in row]
        listed = inside(self.pi, "ss", "-Hlnp", f"--{kind}", f"sport = :{port}")
        listening = sorted(set(re.findall(r'"([^"]+)",pid=', listed)))
        return " and ".join([f"container {name}" for name in containers] + [f"process {one}" for one in listening]) or (
            "nobody listens; look at `ufw status verbose` on the Pi"
        )


def link_local(container: Container) -> str:
    """The address of a container that is valid on its wire only."""
    rows: list[dict[str, Any]] = json.loads(inside(container, "ip", "-json", "-6", "address", "show", "dev", "eth0"))
    return str(next(entry["local"] for row in rows for entry in row["addr_info"] if entry["scope"] == "link"))


def connect(pi: Container) -> None:
    """Have the Pi know the way to the far places; a restart forgets it."""
    inside(pi, "sysctl", "-qw", "net.ipv6.conf.eth0.disable_ipv6=0", "net.ipv6.conf.eth0.accept_dad=0")
    inside(pi, "ip", "-6", "address", "replace", f"{FAR6}::10/64", "dev", "eth0", "nodad")
    inside(pi, "ip", "route", "replace", f"{FAR}.0/24", "dev", "eth0")


@contextlib.contextmanager
def outside(settings: Settings) -> Iterator[Outside]:
    """Somebody outside, for as long as it is needed."""
    client = docker.from_env()
    pi = virtual_pi.existing(client, settings.container, settings)
    if pi is None:
        raise virtual_pi.VirtualPiError(f"{settings.container} is not there: run `make up`")
    name = f"{settings.name}-outside"
    virtual_pi.remove(client, settings, name)
    virtual_pi.create(
        client,
        settings,
        virtual_pi.built(client, settings, "virtual-pi"),
        name,
        f"{settings.network}.30",
        command=["sleep", "infinity"],
        host_config=client.api.create_host_config(
            network_mode=settings.name,
            cap_add=["NET_ADMIN", "NET_RAW"],
            sysctls={"net.ipv6.conf.all.disable_ipv6": "0", "net.ipv6.conf.default.accept_dad": "0"},
            init=True,
        ),
    )
    try:
        prober = client.containers.get(name)
        inside(prober, "ip", "address", "replace", f"{FAR}.30/24", "dev", "eth0")
        inside(prober, "ip", "-6", "address", "replace", f"{FAR6}::30/64", "dev", "eth0", "nodad")
        connect(pi)
        yield Outside(settings, prober, pi)
    finally:
        virtual_pi.remove(client, settings, name)


def main() -> int:
    """Entry point."""
    try:
        with outside(Settings.from_environment()) as there:
            for door in there.declared():
                print(f"declared: {door.port}/{door.protocol} {door.name} for {', '.join(door.who())}")
            problems = there.differences()
    except (virtual_pi.VirtualPiError, docker.errors.APIError, subprocess.SubprocessError) as problem:
        print(f"error: {problem}", file=sys.stderr)
        return 2
    for line in problems:
        print(line, file=sys.stderr)
    print(f"{len(problems)} differences" if problems else "exactly what is declared is open")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
