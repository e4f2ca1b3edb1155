"""Ansible module: our block in the firmware's config.txt."""

from __future__ import annotations

DOCUMENTATION = r"""
module: config_txt_block
short_description: Have settings of ours stand in the firmware's config.txt
description:
  - Writes one marked block at the end of the file, with settings for all boards. Everything else stays byte for byte
    as it is.
  - The file is written beside its place and renamed. A file system that cannot be written, marks that somebody has
    broken, and a line that is longer than the firmware reads are refused; then nothing was changed.
  - Settings take effect when the board starts; C(/run/reboot-required) says so.
options:
  root: {description: Folder below which C(boot) of the board lies., type: path, required: true}
  settings:
    description: The lines; none takes the block away.
    type: list
    elements: str
    required: true
attributes:
  check_mode: {support: full}
  diff_mode: {support: full}
author: [pi-commerce]
"""

EXAMPLES = r"""
- name: Have the firmware set up the fan
  config_txt_block:
    root: /
    settings: ["dtoverlay=gpio-fan,gpiopin=14,temp=55000"]
"""

RETURN = r"""
path: {description: Where the file is., type: str, returned: success}
"""

import os

from ansible.module_utils import config_txt
from ansible.module_utils.basic import AnsibleModule

REBOOT = "/run/reboot-required"


def ask_for_reboot() -> None:
    """Say as the distribution's packages do that the machine has to be started again."""
    with open(REBOOT, "w") as mark, open(f"{REBOOT}.pkgs", "a") as packages:
        mark.write("*** System restart required ***\n")
        packages.write("pi-commerce-config-txt\n")


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "root": {"type": "path", "required": True},
            "settings": {"type": "list", "elements": "str", "required": True},
        },
        supports_check_mode=True,
    )
    root, settings = module.params["root"], module.params["settings"]
    path = config_txt.find(root)
    if path is None:
        if not settings:
            module.exit_json(changed=False, path="")
        places = " and ".join(os.path.join(root, place) for place in config_txt.PLACES)
        module.fail_json(msg=f"there is neither {places}: is the boot partition mounted? Nothing was changed")
    try:
        before = config_txt.read(path)
        after = config_txt.merged(before, settings)
        problem = config_txt.read_only(path) if after != before else ""
        if problem:
            module.fail_json(msg=f"{problem}. Nothing was changed")
        if after != before and not module.check_mode:
            config_txt.write(path, after)
            # A recorded board (another root) is not started by this machine's start.
            if root == "/":
                ask_for_reboot()
    except (config_txt.ConfigTxtError, OSError) as refused:
        module.fail_json(msg=f"{path}: {refused}. Nothing was changed")
    diff = {"before_header": path, "after_header": path, "before": before, "after": after}
    module.exit_json(changed=after != before, path=path, **({"diff": diff} if module._diff else {}))


if __name__ == "__main__":
    main()
