"""Ansible module: everything the preflight wants to know about a Pi, read in one call."""

from __future__ import annotations

DOCUMENTATION = r"""
module: pi_facts
short_description: Read what the preflight judges and what roles need to know
description:
  - Reads the board, the operating system, memory, file systems and the clock. Changes nothing.
  - Asks the image registries and the package mirror whether they answer, where something has to be fetched from them.
  - What cannot be read is C(null), never a healthy-looking default.
options:
  hardware_root:
    description: Folder below which C(proc), C(sys) and C(boot) of the board are read.
    type: path
    default: /
  disk_path:
    description: A path on the file system that will hold the data.
    type: path
    default: /var/lib
  data_mount:
    description: A folder on which a file system of its own ought to be mounted; empty for none.
    type: str
    default: ""
  images:
    description: Images the services run; registries of those that are missing here are asked.
    type: list
    elements: str
    default: []
  insecure_registries:
    description: Registries (C(host:port)) that are spoken to without TLS.
    type: list
    elements: str
    default: []
  listen:
    description: What will listen on this machine, as mappings with C(host_ip), C(host_port) and C(protocol).
    type: list
    elements: dict
    default: []
  ask_mirror:
    description: Ask the package mirror if there is no engine yet, because packages will be installed.
    type: bool
    default: false
  ask_all:
    description: Ask all registries and the mirror, also where nothing has to be fetched.
    type: bool
    default: false
attributes:
  check_mode:
    support: full
"""

RETURN = r"""
ansible_facts:
  description: >-
    One fact C(pi): C(architecture), C(userland_bits), C(os_id), C(os_version), C(os_name), C(board), C(ram_mib),
    C(page_bytes), C(kernel), C(disk_free_mib), C(read_only), C(data_mounted), C(memory_cgroup), C(ipv6),
    C(wireguard_module), C(epoch_seconds), C(clock_synced), C(apt_mirror), C(systemd), C(python), C(body) (see
    C(module_utils/board.py)), C(config_txt) (see C(module_utils/config_txt.py)), C(network) (see
    C(module_utils/network_state.py)), and the answers to what was asked: C(servers) (C(kind), C(address), C(problem))
    and C(ports) (C(address), C(problem)). An empty problem is none.
    Another, C(pi_state), holds what a converge would otherwise ask task by task, see C(module_utils/host_state.py).
  type: dict
  returned: always
"""

import os
import platform
import shutil
import struct
import subprocess
import time
from typing import Any

from ansible.module_utils import board, config_txt, cut_off, endpoints, fitness, host_state, network_state
from ansible.module_utils.apt_mirrors import host_mirrors
from ansible.module_utils.basic import AnsibleModule

# Servers that do not answer in this time, in seconds, would only make a run crawl.
PATIENCE = 5
WRITTEN_TO = ("/etc", "/usr/local", "/var/lib")


def read(root: str, path: str) -> str | None:
    """Content of a file below the hardware root, without the NUL that ends device-tree strings; None if absent."""
    try:
        with open(os.path.join(root, path), encoding="utf-8", errors="replace") as source:
            return source.read().rstrip("\0\n")
    except OSError:
        return None


def os_release(text: str) -> dict[str, str]:
    """Parse os-release(5)."""
    pairs = (line.split("=", 1) for line in text.splitlines() if "=" in line and not line.startswith("#"))
    return {key: value.strip("\"'") for key, value in pairs}


def ram_mib(meminfo: str | None) -> int | None:
    """MemTotal in MiB, rounded down."""
    for line in (meminfo or "").splitlines():
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) // 1024
    return None


def read_only(paths: tuple[str, ...]) -> list[str]:
    """Those of the folders that lie on a file system mounted read-only."""
    return [path for path in paths if os.statvfs(path).f_flag & os.ST_RDONLY]


def mirror_endpoint(mirror: str) -> tuple[str, int]:
    """Host and port that apt speaks to for a mirror: its own, or those of the proxy that apt is told to use."""
    dump = subprocess.run(["apt-config", "dump"], stdout=subprocess.PIPE, text=True, check=True).stdout
    return endpoints.url_endpoint(fitness.apt_proxy(dump, mirror) or mirror)


def ask_servers(parameters: dict[str, Any], mirror: str | None) -> list[dict[str, Any]]:
    """Whether the servers answer from which something has to be fetched."""
    everything = parameters["ask_all"]
    missing = parameters["images"] if everything else endpoints.missing_images(parameters["images"], PATIENCE)
    named = [endpoints.registry_endpoint(image, parameters["insecure_registries"]) for image in missing]
    registries = [endpoint for endpoint in named if endpoint]
    bare = parameters["ask_mirror"] and not endpoints.engine_is_there()
    mirrors = [mirror_endpoint(mirror)] if (bare or everything) and mirror else []
    if not registries and not mirrors:
        return []
    answers = endpoints.reach([*registries, *mirrors], PATIENCE)
    return endpoints.asked("image registry", registries, answers) + endpoints.asked("package mirror", mirrors, answers)


def listen_problems(wanted: list[dict[str, Any]]) -> list[dict[str, str]]:
    """Each address that something of ours will listen on, with what is in the way."""
    return [
        {
            "address": f"{one['host_ip']}:{one['host_port']}/{one['protocol']}",
            "problem": endpoints.bind_problem(one["host_ip"], int(one["host_port"]), one["protocol"]),
        }
        for one in wanted
    ]


def gather(parameters: dict[str, Any]) -> dict[str, object]:
    """All facts as one flat dictionary."""
    root, mount = parameters["hardware_root"], parameters["data_mount"]
    release = os_release(read("/", "etc/os-release") or "")
    mirror = host_mirrors().main
    return {
        "architecture": platform.machine(),
        "userland_bits": struct.calcsize("P") * 8,
        "os_id": release.get("ID"),
        "os_version": release.get("VERSION_ID"),
        "os_name": release.get("PRETTY_NAME"),
        "board": read(root, "proc/device-tree/model"),
        "body": board.read(root),
        "ram_mib": ram_mib(read(root, "proc/meminfo")),
        "page_bytes": os.sysconf("SC_PAGE_SIZE"),
        "kernel": platform.release(),
        "disk_free_mib": shutil.disk_usage(parameters["disk_path"]).free // 1024**2,
        "read_only": read_only(WRITTEN_TO),
        "data_mounted": os.path.ismount(mount) if mount else None,
        # The kernel that runs, whatever board is shown: a limit is enforced by this one.
        "memory_cgroup": fitness.memory_cgroup(
            read("/", "sys/fs/cgroup/cgroup.controllers"), read("/", "proc/cgroups")
        ),
        # What a new interface begins with.
        "ipv6": read("/", "proc/sys/net/ipv6/conf/default/disable_ipv6") == "0",
        "wireguard_module": fitness.wireguard_module("/", platform.release()),
        "epoch_seconds": int(time.time()),
        "clock_synced": fitness.clock_synced(),
        "apt_mirror": mirror,
        "systemd": os.path.isdir("/run/systemd/system"),
        "python": platform.python_version(),
        "network": network_state.read(),
        "config_txt": config_txt.facts(root),
        "servers": ask_servers(parameters, mirror),
        "ports": listen_problems(parameters["listen"]),
    }


def main() -> None:
    """Entry point of the module."""
    module = AnsibleModule(
        argument_spec={
            "hardware_root": {"type": "path", "default": "/"},
            "disk_path": {"type": "path", "default": "/var/lib"},
            "data_mount": {"type": "str", "default": ""},
            "images": {"type": "list", "elements": "str", "default": []},
            "insecure_registries": {"type": "list", "elements": "str", "default": []},
            "listen": {"type": "list", "elements": "dict", "default": []},
            "ask_mirror": {"type": "bool", "default": False},
            "ask_all": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    # Looked for first: what is read after a run was seen to have ended is what it has left.
    leftovers = cut_off.found()
    facts = {"pi": gather(module.params), "pi_state": host_state.trusted(host_state.read(), leftovers)}
    module.exit_json(changed=False, ansible_facts=facts)


if __name__ == "__main__":
    main()
