"""Ansible module: take files and folders away, all in one call."""

from __future__ import annotations

DOCUMENTATION = r"""
module: paths_absent
short_description: Take files and folders away
description:
  - Removes files, links (not what they point to) and folders with all that is in them, in one remote call.
options:
  paths:
    description: Absolute paths. A folder directly below C(/) is refused.
    type: list
    elements: path
    required: true
  if_empty:
    description: Folders that go too where nothing is left in them, in this order.
    type: list
    elements: path
    default: []
attributes:
  check_mode: {support: full}
  diff_mode: {support: full}
author: [pi-commerce]
"""

EXAMPLES = r"""
- name: Remove the configuration
  paths_absent:
    paths: [/etc/shop/proxy]
    if_empty: [/etc/shop]
"""

RETURN = r"""
removed: {description: What was (or would be) taken away., type: list, elements: str, returned: always}
"""

import os
import shutil

from ansible.module_utils.basic import AnsibleModule


class Refused(Exception):
    """The request cannot be carried out; nothing was changed."""


def refuse_system(paths: list[str]) -> None:
    """Raise Refused for a path that is not absolute, or that belongs to the system as a whole."""
    for path in paths:
        if not os.path.isabs(path) or len(os.path.normpath(path).split("/")) < 3:
            raise Refused(f"{path!r}: must be absolute and lie at least two folders deep; name what is to go itself")


def left_empty(folders: list[str], removed: list[str]) -> list[str]:
    """Those of the folders that hold nothing once `removed` is gone."""
    gone = [os.path.normpath(path) for path in removed]
    found = []
    for folder in map(os.path.normpath, folders):
        if os.path.isdir(folder) and all(os.path.join(folder, name) in gone for name in os.listdir(folder)):
            found.append(folder)
            gone.append(folder)
    return found


def remove(path: str) -> None:
    """Take one away, whatever it is."""
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    else:
        os.unlink(path)


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "paths": {"type": "list", "elements": "path", "required": True},
            "if_empty": {"type": "list", "elements": "path", "default": []},
        },
        supports_check_mode=True,
    )
    paths, folders = module.params["paths"], module.params["if_empty"]
    try:
        refuse_system([*paths, *folders])
        removed = [path for path in paths if os.path.lexists(path)]
        removed += left_empty(folders, removed)
        if not module.check_mode:
            for path in removed:
                remove(path)
    except (Refused, OSError) as problem:
        module.fail_json(msg=str(problem))
    diff = {"before": "".join(f"{path}\n" for path in removed), "after": ""}
    module.exit_json(changed=bool(removed), removed=removed, diff=diff)


if __name__ == "__main__":
    main()
