"""Ansible module: everything the preflight wants to know about a Pi, read in one call."""

from __future__ import annotations

DOCUMENTATION = r"""
module: pi_facts
short_description: Read what the preflight judges and what roles need to know
description:
  - Reads the board, the operating system, memory, disk space and the clock. Changes nothing.
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
attributes:
  check_mode:
    support: full
"""

RETURN = r"""
ansible_facts:
  description: >-
    One fact C(pi): C(architecture), C(userland_bits), C(os_id), C(os_version), C(os_name), C(board), C(ram_mib),
    C(page_bytes), C(disk_free_mib), C(epoch_seconds), C(apt_mirror),
    C(systemd), C(python).
    Another, C(pi_state), holds what a converge would otherwise ask task by task, see C(module_utils/host_state.py).
  type: dict
  returned: always
"""

import os
import platform
import shutil
import struct
import time

from ansible.module_utils import host_state
from ansible.module_utils.apt_mirrors import host_mirrors
from ansible.module_utils.basic import AnsibleModule


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


def gather(root: str, disk_path: str) -> dict[str, object]:
    """All facts as one flat dictionary."""
    release = os_release(read("/", "etc/os-release") or "")
    return {
        "architecture": platform.machine(),
        "userland_bits": struct.calcsize("P") * 8,
        "os_id": release.get("ID"),
        "os_version": release.get("VERSION_ID"),
        "os_name": release.get("PRETTY_NAME"),
        "board": read(root, "proc/device-tree/model"),
        "ram_mib": ram_mib(read(root, "proc/meminfo")),
        "page_bytes": os.sysconf("SC_PAGE_SIZE"),
        "disk_free_mib": shutil.disk_usage(disk_path).free // 1024**2,
        "epoch_seconds": int(time.time()),
        "apt_mirror": host_mirrors().main,
        "systemd": os.path.isdir("/run/systemd/system"),
        "python": platform.python_version(),
    }


def main() -> None:
    """Entry point of the module."""
    module = AnsibleModule(
        argument_spec={
            "hardware_root": {"type": "path", "default": "/"},
            "disk_path": {"type": "path", "default": "/var/lib"},
        },
        supports_check_mode=True,
    )
    facts = gather(module.params["hardware_root"], module.params["disk_path"])
    module.exit_json(changed=False, ansible_facts={"pi": facts, "pi_state": host_state.read()})


if __name__ == "__main__":
    main()
