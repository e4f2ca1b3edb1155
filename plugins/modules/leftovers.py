#!/usr/bin/python
"""Ansible module: clear up what a run that was cut off has left on the Pi."""

from __future__ import annotations

DOCUMENTATION = r"""
module: leftovers
short_description: Clear up what a run that was cut off has left
description:
  - A run ends in the middle when its controller, its connection or the power goes. What it was doing on the Pi may go
    on without it, so this waits until nothing of it runs any more.
  - Then it completes half-installed packages (or every later installation would be refused), fetches half-fetched
    package lists again, and removes the temporary folders of Ansible's modules.
  - After a run that ended by itself there is nothing to do.
options:
  wait_seconds: {description: How long to wait for what still runs., type: int, default: 900}
  ansible_homes:
    description: Home folders whose C(.ansible/tmp) is swept; by default root's and that of the user who logs in.
    type: list
    elements: path
  temporary: {description: Folder in which modules unpack themselves., type: path, default: /tmp}
attributes:
  check_mode: {support: full}
author: [pi-commerce]
"""

EXAMPLES = r"""
- name: Clear up what a run that was cut off has left
  leftovers:
"""

RETURN = r"""
cleared: {description: "What was (or would be) cleared up, for people.", type: list, elements: str, returned: success}
"""

import os
import pwd
import shutil
import time
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

# Ansible puts it before every command that it runs as root.
MARK = b"BECOME-SUCCESS-"
APT = {"DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C"}
KEEP_CONFIGURATION = ["-o", "Dpkg::Options::=--force-confdef", "-o", "Dpkg::Options::=--force-confold"]
POLL_SECONDS = 0.2


def parent(pid: int) -> int:
    """Parent of a process; 0 when it has none or is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0
    return int(stat.rpartition(")")[2].split()[1])


def ancestors(pid: int) -> set[int]:
    """The process itself and all above it."""
    found = set()
    while pid:
        found.add(pid)
        pid = parent(pid)
    return found


def strangers() -> dict[int, str]:
    """Commands of other runs that still work here, by process id."""
    own = ancestors(os.getpid())
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) in own:
            continue
        try:
            command = (entry / "cmdline").read_bytes()
        except OSError:
            continue
        if MARK in command:
            found[int(entry.name)] = command.replace(b"\0", b" ").decode(errors="replace").strip()
    return found


def wait_for_strangers(seconds: int) -> dict[int, str]:
    """What still works after at most this time; empty when all is quiet."""
    deadline = time.monotonic() + seconds
    while (working := strangers()) and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
    return working


def half_installed(module: AnsibleModule) -> bool:
    """Whether dpkg was ended in the middle: it kept a journal, or packages that it did not finish."""
    if any(name.isdigit() for name in os.listdir("/var/lib/dpkg/updates")):
        return True
    return bool(module.run_command(["dpkg", "--audit"], check_rc=True)[1].strip())


def half_fetched() -> bool:
    """Whether package lists were on their way; Ansible would take the folder's age for theirs."""
    partial = Path("/var/lib/apt/lists/partial")
    return partial.is_dir() and any(partial.iterdir())


def temporary_folders(place: str, homes: list[str] | None) -> list[Path]:
    """Folders in which a module that was killed had unpacked itself, but not this one's own."""
    if homes is None:
        login = os.environ.get("SUDO_USER", "root")
        homes = [pwd.getpwnam(name).pw_dir for name in sorted({"root", login})]
    found = list(Path(place).glob("ansible_*_payload_*"))
    for home in homes:
        found += Path(home, ".ansible/tmp").glob("ansible-tmp-*")
    own = Path(__file__).parts
    return sorted(path for path in found if path.is_dir() and not path.is_symlink() and path.name not in own)


def main() -> None:
    """Entry point of the module."""
    module = AnsibleModule(
        argument_spec={
            "wait_seconds": {"type": "int", "default": 900},
            "ansible_homes": {"type": "list", "elements": "path"},
            "temporary": {"type": "path", "default": "/tmp"},  # noqa: S108  # Ansible's own choice
        },
        supports_check_mode=True,
    )
    working = strangers() if module.check_mode else wait_for_strangers(module.params["wait_seconds"])
    if working and not module.check_mode:
        shown = "; ".join(f"process {pid}: {command}" for pid, command in working.items())
        module.fail_json(
            msg=f"another run still works on this machine after {module.params['wait_seconds']} seconds ({shown}); "
            "let it end, or end it with kill, then run again"
        )
    cleared = [f"let process {pid} end" for pid in working]
    if half_fetched():
        cleared.append("package lists that were half fetched")
        if not module.check_mode:
            module.run_command(["apt-get", "update"], check_rc=True, environ_update=APT)
    if half_installed(module):
        cleared.append("packages that were half installed")
        if not module.check_mode:
            configure = ["dpkg", "--force-confdef", "--force-confold", "--configure", "--pending"]
            # What lacks a dependency is left to the next command, which brings it.
            module.run_command(configure, environ_update=APT)
            mend = ["apt-get", "--yes", "--fix-broken", *KEEP_CONFIGURATION, "install"]
            module.run_command(mend, check_rc=True, environ_update=APT)
    for folder in temporary_folders(module.params["temporary"], module.params["ansible_homes"]):
        cleared.append(str(folder))
        if not module.check_mode:
            shutil.rmtree(folder)
    module.exit_json(changed=bool(cleared), cleared=cleared)


if __name__ == "__main__":
    main()
