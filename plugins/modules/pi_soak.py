"""Ansible module: what a board does when all its cores are busy for a while."""

from __future__ import annotations

DOCUMENTATION = r"""
module: pi_soak
short_description: Load every core for a while and watch power, heat and clock
description:
  - Ends early where the firmware says that it slows down. Changes nothing; other programs have the cores first.
options:
  hardware_root:
    description: Folder below which C(sys) and C(usr/bin/vcgencmd) of the board are.
    type: path
    default: /
  minutes:
    description: How long.
    type: int
    required: true
attributes:
  check_mode:
    support: full
"""

RETURN = r"""
soak:
  description: >-
    C(seconds) that it lasted, C(bits) of get_throttled that were ever set, C(celsius) (the hottest), C(mhz) (the
    slowest) and C(nominal_mhz). What cannot be read is C(null).
  type: dict
  returned: always
"""

from ansible.module_utils import board, soak
from ansible.module_utils.basic import AnsibleModule


def main() -> None:
    """Entry point of the module."""
    module = AnsibleModule(
        argument_spec={
            "hardware_root": {"type": "path", "default": "/"},
            "minutes": {"type": "int", "required": True},
        },
        supports_check_mode=True,
    )
    root = module.params["hardware_root"]

    def look() -> tuple:
        return board.throttled(root), board.celsius(root), board.megahertz(root)[0]

    seen = soak.soak(look, board.slowed_down, module.params["minutes"] * 60)
    module.exit_json(changed=False, soak={**seen, "nominal_mhz": board.megahertz(root)[1]})


if __name__ == "__main__":
    main()
