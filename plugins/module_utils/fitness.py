"""What a host says about its kernel and its packages that makes it fit or unfit. Standard library alone, Python 3.9."""

from __future__ import annotations

import ctypes
import os
import re

# What adjtimex(2) returns where nobody keeps the kernel's clock in step.
TIME_ERROR = 5


def memory_cgroup(controllers: str | None, cgroups: str | None) -> bool | None:
    """Whether the kernel enforces memory limits; None where that cannot be read.

    Args:
        controllers: what cgroup v2 shows as `cgroup.controllers`, None where there is no v2.
        cgroups: `/proc/cgroups`, which tells it for v1.
    """
    if controllers is not None:
        return "memory" in controllers.split()
    for line in (cgroups or "").splitlines():
        if line.startswith("memory\t"):
            return line.split()[3] == "1"
    return None


def wireguard_module(root: str, release: str) -> bool:
    """Whether the kernel of that release (`uname -r`) has WireGuard: built in, loaded or to be loaded."""
    if os.path.isdir(os.path.join(root, "sys/module/wireguard")):
        return True
    for name in ("modules.builtin", "modules.dep"):
        try:
            with open(os.path.join(root, "lib/modules", release, name), encoding="utf-8") as source:
                if re.search(r"(^|/)wireguard\.ko", source.read(), re.MULTILINE):
                    return True
        except OSError:
            # No modules are installed for this kernel, as in a container.
            continue
    return False


def apt_proxy(dump: str, mirror: str) -> str | None:
    """The proxy through which apt reaches a mirror, from what `apt-config dump` prints; None for none."""
    setting = f"Acquire::{mirror.partition(':')[0]}::Proxy"
    found = re.search(rf'^{setting} "(http[^"]+)";$', dump, flags=re.MULTILINE | re.IGNORECASE)
    return found[1] if found else None


def clock_synced() -> bool | None:
    """Whether the kernel knows of somebody (timesyncd, chrony) who keeps its clock in step; None if it is silent."""
    # An empty request: nothing is set. The structure is smaller than this everywhere.
    state = ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(1024))
    return None if state < 0 else state != TIME_ERROR
