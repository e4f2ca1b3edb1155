"""What the CIS Docker Benchmark (1.6.0, 4 and 5) asks of a container, judged by what the engine has made of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

Document = Mapping[str, Any]
WAIVERS: dict[str, dict[str, str]] = yaml.safe_load((Path(__file__).parent / "waivers.yml").read_text())
# The machine's own are judged by effective_state.py.
WAIVERS.pop("host")
SENSITIVE = ("/", "/boot", "/dev", "/etc", "/lib", "/proc", "/run", "/sys", "/usr", "/var/lib/docker")


def host(document: Document) -> Document:
    """The part of `docker inspect` that says how the host treats a container."""
    found: Document = document["HostConfig"]
    return found


def published(document: Document) -> list[str]:
    """Addresses of the host that ports are bound to."""
    return [binding["HostIp"] for rows in document["NetworkSettings"]["Ports"].values() for binding in rows or ()]


def sources(document: Document) -> list[str]:
    """Folders of the host that are mounted."""
    return [mount["Source"].rstrip("/") or "/" for mount in document["Mounts"] if mount["Type"] == "bind"]


# By number: what is asked, and whether a container does it.
ITEMS: dict[str, tuple[str, Callable[[Document], bool]]] = {
    "4.1": ("not root", lambda one: one["Config"]["User"].split(":")[0] not in ("", "0", "root")),
    "4.6": ("a health check", lambda one: bool((one["Config"].get("Healthcheck") or {}).get("Test"))),
    "5.2": ("AppArmor not switched off", lambda one: "apparmor=unconfined" not in (host(one)["SecurityOpt"] or [])),
    "5.4": ("no capability", lambda one: host(one)["CapDrop"] == ["ALL"] and not host(one)["CapAdd"]),
    "5.5": ("not privileged", lambda one: not host(one)["Privileged"]),
    "5.6": ("no folder of the system", lambda one: not set(sources(one)) & set(SENSITIVE)),
    "5.8": (
        "no port below 1024",
        lambda one: all(int(port.split("/")[0]) >= 1024 for port in one["NetworkSettings"]["Ports"]),
    ),
    "5.10": ("no network of the host", lambda one: host(one)["NetworkMode"] != "host"),
    "5.11": (
        "a memory limit",
        lambda one: 0 < host(one)["MemorySwap"] <= 2 * host(one)["Memory"],
    ),
    "5.12": ("a processor limit", lambda one: host(one)["NanoCpus"] > 0),
    "5.13": ("a root that is read-only", lambda one: host(one)["ReadonlyRootfs"] is True),
    "5.14": ("ports bound to an address", lambda one: not {"", "0.0.0.0", "::"} & set(published(one))),  # noqa: S104 - compared
    "5.15": ("restarts that end", lambda one: host(one)["RestartPolicy"]["Name"] == "on-failure"),
    "5.16": ("no processes of the host", lambda one: host(one)["PidMode"] != "host"),
    "5.17": ("no IPC of the host", lambda one: host(one)["IpcMode"] != "host"),
    "5.18": ("no device of the host", lambda one: not host(one)["Devices"]),
    "5.20": (
        "no mount that reaches others",
        lambda one: not any("shared" in mount["Propagation"] for mount in one["Mounts"]),
    ),
    "5.21": ("no name of the host", lambda one: host(one)["UTSMode"] != "host"),
    "5.22": ("seccomp not switched off", lambda one: "seccomp=unconfined" not in (host(one)["SecurityOpt"] or [])),
    "5.25": ("no control group of its choice", lambda one: host(one)["CgroupParent"] in ("", "system.slice")),
    "5.26": ("no new privileges", lambda one: "no-new-privileges:true" in (host(one)["SecurityOpt"] or [])),
    "5.29": ("a limit of processes", lambda one: 0 < (host(one)["PidsLimit"] or 0) <= 500),
    "5.30": ("not Docker's default network", lambda one: "bridge" not in one["NetworkSettings"]["Networks"]),
    "5.31": ("no users of the host by wish", lambda one: host(one)["UsernsMode"] != "host"),
    "5.32": ("no Docker socket", lambda one: not any("docker.sock" in source for source in sources(one))),
}


def failed(service: str, document: Document) -> list[str]:
    """The items that a container does not meet, without those that are waived for it (or for `all`)."""
    waived = WAIVERS.get("all", {}).keys() | WAIVERS.get(service, {}).keys()
    return [
        f"{number} {text}" for number, (text, meets) in ITEMS.items() if not meets(document) and number not in waived
    ]


def idle(documents: Mapping[str, Document]) -> list[str]:
    """Waivers that nobody needs: their containers meet the item, or are none."""
    found = []
    for service, waived in WAIVERS.items():
        for number in waived:
            of = documents.values() if service == "all" else [documents[service]] if service in documents else []
            if number not in ITEMS or all(ITEMS[number][1](document) for document in of):
                found.append(f"{service}: {number}")
    return found
