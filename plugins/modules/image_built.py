"""Ansible module: an image of our own, built on the Pi where this version of it is missing."""

from __future__ import annotations

DOCUMENTATION = r"""
module: image_built
short_description: Build an image of our own where this version of it is missing
description:
  - The tag tells the version, so an image that is there is never built again.
  - A build that was cut off leaves a container without a project; those are removed before the next one.
options:
  image: {description: Name and tag., type: str, required: true}
  base: {description: "Image it is made from, the Dockerfile's argument C(BASE).", type: str, required: true}
  folder: {description: Folder on the Pi with the Dockerfile and the source., type: path, required: true}
attributes:
  check_mode: {support: full}
  diff_mode: {support: full}
author: [pi-commerce]
"""

EXAMPLES = r"""
- name: Build the image where this version is missing
  image_built:
    image: pi-commerce/rate_limiter:54a3f273e995
    base: python:3.13.7-slim-bookworm
    folder: /etc/pi-commerce/build/rate_limiter
"""


from ansible.module_utils.basic import AnsibleModule

# The label stands at the head of each of our Dockerfiles; containers of a Compose project inherit it.
PRUNE = ["container", "prune", "--force", "--filter", "label=pi-commerce.build"]
PRUNE += ["--filter", "label!=com.docker.compose.project"]


def run(module: AnsibleModule, *arguments: str) -> None:
    """A docker command that has to succeed."""
    status, output, errors = module.run_command(["docker", *arguments])
    if status != 0:
        said = "\n".join((errors.strip() or output.strip()).splitlines()[-20:])
        module.fail_json(msg=f"{module.params['image']}: docker {arguments[0]} ended with {status}:\n{said}")


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "image": {"type": "str", "required": True},
            "base": {"type": "str", "required": True},
            "folder": {"type": "path", "required": True},
        },
        supports_check_mode=True,
    )
    image = module.params["image"]
    there = module.get_bin_path("docker") and module.run_command(["docker", "image", "inspect", image])[0] == 0
    if not there and not module.check_mode:
        run(module, *PRUNE)
        build = ["--quiet", "--build-arg", f"BASE={module.params['base']}", "--tag", image]
        run(module, "build", *build, module.params["folder"])
    module.exit_json(changed=not there, diff={"before": "", "after": "" if there else f"image {image}\n"})


if __name__ == "__main__":
    main()
