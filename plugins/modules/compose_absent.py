"""Ansible module: take a Compose project off the machine, also where its files are gone or changed."""

from __future__ import annotations

DOCUMENTATION = r"""
module: compose_absent
short_description: Take a Compose project off the machine
description:
  - Finds what belongs to the project by Compose's own labels, so no file has to be there. Containers are stopped in the
    order of their dependencies, each with the time it was given, and removed with the project's networks. Images stay.
  - Where there is no engine there is nothing to do.
options:
  project: {description: Name of the project., type: str, required: true}
  volumes: {description: Remove the project's volumes too. Their data is lost., type: bool, default: false}
attributes:
  check_mode: {support: full}
  diff_mode: {support: full}
author: [pi-commerce]
"""

EXAMPLES = r"""
- name: Stop the services
  compose_absent:
    project: pi-commerce
"""

RETURN = r"""
removed: {description: "What was (or would be) removed, as C(kind name).", type: list, elements: str, returned: always}
"""

from ansible.module_utils.basic import AnsibleModule

LISTINGS = {
    "container": ["ps", "--all", "--format", "{{.Names}}"],
    "network": ["network", "ls", "--format", "{{.Name}}"],
    "volume": ["volume", "ls", "--format", "{{.Name}}"],
}


def run(module: AnsibleModule, arguments: list[str]) -> str:
    """Output of a docker command that has to succeed."""
    status, output, errors = module.run_command(["docker", *arguments])
    if status != 0:
        module.fail_json(msg=f"docker {' '.join(arguments)} ended with {status}: {errors.strip() or output.strip()}")
    return str(output)


def belongings(module: AnsibleModule, kinds: list[str]) -> list[str]:
    """What carries the project's label, as `kind name`."""
    label = ["--filter", f"label=com.docker.compose.project={module.params['project']}"]
    return [f"{kind} {name}" for kind in kinds for name in sorted(run(module, LISTINGS[kind] + label).split())]


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "project": {"type": "str", "required": True},
            "volumes": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    if module.get_bin_path("docker") is None:
        module.exit_json(changed=False, removed=[])
    kinds = [kind for kind in LISTINGS if kind != "volume" or module.params["volumes"]]
    removed = belongings(module, kinds)
    if removed and not module.check_mode:
        run(module, ["compose", "--project-name", module.params["project"], "down", "--remove-orphans"])
        if volumes := [entry.split()[1] for entry in removed if entry.startswith("volume ")]:
            run(module, ["volume", "rm", *volumes])
        if left := belongings(module, kinds):
            module.fail_json(msg=f"still there after docker compose down: {', '.join(left)}; remove it by hand")
    diff = {"before": "".join(f"{entry}\n" for entry in removed), "after": ""}
    module.exit_json(changed=bool(removed), removed=removed, diff=diff)


if __name__ == "__main__":
    main()
