"""Ansible module: have packages of the distribution installed or removed."""

from __future__ import annotations

DOCUMENTATION = r"""
module: apt_packages
short_description: Have packages installed or removed
description:
  - Asks dpkg what is there and calls apt-get only where something has to be done, after reading the package lists anew.
  - Needs nothing but the two. C(ansible.builtin.apt) cannot check a machine without python3-apt, which a bare one
    lacks, and opens apt's whole cache to find out that nothing is missing.
options:
  names: {description: Names of the packages., type: list, elements: str, required: true}
  state:
    description:
      - What is wanted. C(absent) removes what had come only for these packages too, and nothing that was not needed
        before either. Data of removed packages stays.
    type: str
    choices: [present, absent]
    default: present
  purge: {description: Whether configuration files of removed packages go too., type: bool, default: false}
  lock_seconds: {description: How long to wait for another apt or dpkg., type: int, default: 600}
attributes:
  check_mode: {support: full}
  diff_mode: {support: full}
author: [pi-commerce]
"""

EXAMPLES = r"""
- name: Install the clock's keeper
  apt_packages:
    names: [systemd-timesyncd]
"""

RETURN = r"""
packages: {description: What was or would be installed or removed., type: list, elements: str, returned: always}
"""

from ansible.module_utils.basic import AnsibleModule

# A package's own questions are answered with what it ships, unless an admin has edited the file.
ANSWERS = ["-o", "Dpkg::Options::=--force-confdef", "-o", "Dpkg::Options::=--force-confold"]
QUIET = {"DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C"}


def installed(status: str) -> set[str]:
    """Names of the installed packages in what `dpkg-query --show` prints as `name status` lines."""
    lines = (line.split(" ", 1) for line in status.splitlines())
    return {name for name, state in lines if state.startswith(("ii", "hi"))}


def to_change(names: list[str], state: str, present: set[str]) -> list[str]:
    """Those of the packages that are not in the wanted state."""
    return [name for name in names if (name in present) != (state == "present")]


def removals(simulation: str) -> set[str]:
    """Names of the packages that go in what `apt-get --simulate` prints."""
    return {line.split()[1] for line in simulation.splitlines() if line.startswith("Remv ")}


def run(module: AnsibleModule, command: list[str], doing: str) -> str:
    """Standard output of a command that has to succeed."""
    status, output, errors = module.run_command(command, environ_update=QUIET)
    if status != 0:
        module.fail_json(msg=f"{doing}: {' '.join(command)} ended with {status}: {errors.strip() or output.strip()}")
    return str(output)


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "names": {"type": "list", "elements": "str", "required": True},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "purge": {"type": "bool", "default": False},
            "lock_seconds": {"type": "int", "default": 600},
        },
        supports_check_mode=True,
    )
    names, state = module.params["names"], module.params["state"]
    query = ["dpkg-query", "--show", "--showformat", "${Package} ${db:Status-Abbrev}\n"]
    packages = to_change(names, state, installed(run(module, query, "reading which packages are installed")))
    apt = ["apt-get", "-q", "-y", "-o", f"DPkg::Lock::Timeout={module.params['lock_seconds']}", *ANSWERS]
    if packages and state == "absent":
        simulate, doing = [*apt, "--simulate", "--auto-remove"], "reading which packages nobody else needs"
        unneeded = removals(run(module, [*simulate, "install"], doing))
        packages = sorted(removals(run(module, [*simulate, "remove", *packages], doing)) - unneeded)
    if packages and not module.check_mode:
        if state == "present":
            run(module, [*apt, "update"], "reading the package lists")
            run(module, [*apt, "install", "--no-install-recommends", *packages], f"installing {', '.join(packages)}")
        else:
            purge = ["--purge"] if module.params["purge"] else []
            run(module, [*apt, "remove", *purge, *packages], f"removing {', '.join(packages)}")
    text = "".join(f"{name}\n" for name in packages)
    diff = {"before": "", "after": text} if state == "present" else {"before": text, "after": ""}
    module.exit_json(changed=bool(packages), packages=packages, diff=diff)


if __name__ == "__main__":
    main()
