"""Ansible module: clear up what a run that was cut off has left on the Pi."""

from __future__ import annotations

DOCUMENTATION = r"""
module: leftovers
short_description: Clear up what a run that was cut off has left
description:
  - A run ends in the middle when its controller, its connection or the power goes. What it was doing on the Pi may go
    on without it, so this waits until nothing of it runs any more.
  - Then it completes half-installed packages (or every later installation would be refused) and removes the temporary
    folders of Ansible's modules.
  - After a run that ended by itself there is nothing to do.
options:
  wait_seconds: {description: How long to wait for what still runs., type: int, default: 900}
attributes:
  check_mode: {support: full}
author: [pi-commerce]
"""

EXAMPLES = r"""
- name: Clear up what a run that was cut off has left
  leftovers:
"""

RETURN = r"""
cleared: {description: "What was (or would be) cleared up, in words.", type: list, elements: str, returned: success}
"""

import shutil
import time

from ansible.module_utils import cut_off
from ansible.module_utils.basic import AnsibleModule

APT = {"DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C"}
# A package's own questions are answered with what it ships, unless an admin has edited the file.
ANSWERS = ["-o", "Dpkg::Options::=--force-confdef", "-o", "Dpkg::Options::=--force-confold"]
POLL_SECONDS = 0.2


def wait_for_strangers(module: AnsibleModule) -> None:
    """Return when nothing of another run works here; fail when that takes too long."""
    seconds = module.params["wait_seconds"]
    deadline = time.monotonic() + seconds
    while working := cut_off.strangers():
        if time.monotonic() > deadline:
            shown = "; ".join(f"process {pid}: {command}" for pid, command in working.items())
            module.fail_json(
                msg=f"another run still works on this machine after {seconds} seconds ({shown}); let it end, or end it "
                "with kill, then run again"
            )
        time.sleep(POLL_SECONDS)


def complete_packages(module: AnsibleModule) -> None:
    """Finish what dpkg had begun."""
    configure = ["dpkg", "--force-confdef", "--force-confold", "--configure", "--pending"]
    # What lacks a dependency is left to the next command, which brings it.
    module.run_command(configure, environ_update=APT)
    # dpkg configures none of which it cannot say that all files are there, and apt does not always see that.
    show = ["dpkg-query", "--show", "--showformat", "${binary:Package} ${db:Status-Eflag}\n"]
    lines = module.run_command(show, check_rc=True, environ_update=APT)[1].splitlines()
    unsound = [line.split()[0] for line in lines if line.endswith(" reinstreq")]
    again = ["--reinstall", *unsound] if unsound else []
    mend = ["apt-get", "--yes", "--fix-broken", "-o", "DPkg::Lock::Timeout=600", *ANSWERS, "install", *again]
    module.run_command(mend, check_rc=True, environ_update=APT)


def main() -> None:
    """Entry point of the module."""
    module = AnsibleModule(
        argument_spec={"wait_seconds": {"type": "int", "default": 900}},
        supports_check_mode=True,
    )
    cleared = cut_off.found()
    if not module.check_mode:
        wait_for_strangers(module)
        # Nobody works here at this moment, so these are nobody's. While packages are completed another run may begin.
        abandoned = cut_off.unpacked_modules()
        if cut_off.packages_are_half_installed():
            complete_packages(module)
        for folder in abandoned:
            shutil.rmtree(folder)
    module.exit_json(changed=bool(cleared), cleared=cleared)


if __name__ == "__main__":
    main()
