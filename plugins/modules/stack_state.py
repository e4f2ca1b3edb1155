"""Ansible module: what runs, whether it answers, and how much memory it takes. Changes nothing."""

from __future__ import annotations

DOCUMENTATION = r"""
module: stack_state
short_description: Probe every service of the stack and read its memory
description:
  - Runs each service's probe from the catalog and compares the memory of its container with its limit.
options:
  project: {description: Compose project name., type: str, required: true}
  probes:
    description: Probes as the catalog derives them; I(kind) is C(http) or C(exec).
    type: list
    elements: dict
    required: true
    suboptions:
      service: {description: Service name., type: str, required: true}
      kind: {description: How it is probed., type: str, choices: [http, exec], required: true}
      port: {description: Port inside the container., type: int}
      path: {description: Path to get., type: str}
      status: {description: Expected HTTP status., type: int, default: 200}
      tls: {description: Speak TLS; the certificate is not judged here., type: bool, default: false}
      command: {description: Command inside the container., type: list, elements: str}
attributes:
  check_mode:
    support: full
author: [pi-commerce]
"""

EXAMPLES = r"""
- name: Probe the services
  stack_state:
    project: pi-commerce
    probes: [{service: n8n, kind: http, port: 5678, path: /healthz/readiness}]
"""

RETURN = r"""
services:
  description: >-
    One entry per probe: C(service), C(ok), C(detail) (what was seen), C(memory_mib), C(limit_mib), C(restarts).
  type: list
  elements: dict
  returned: always
unexpected:
  description: Containers of the project that no probe names.
  type: list
  elements: str
  returned: always
"""

import http.client
import json
import ssl
import subprocess

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.containers import CommandFailed, ContainerAway, container_address, run_in_container

TIMEOUT_SECONDS = 15


def containers(project: str) -> dict[str, dict[str, object]]:
    """Inspect documents of the project's containers by service name."""
    listed = subprocess.run(
        ["docker", "ps", "--all", "--quiet", "--filter", f"label=com.docker.compose.project={project}"],
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    ).stdout.split()
    if not listed:
        return {}
    documents = json.loads(
        subprocess.run(["docker", "inspect", *listed], stdout=subprocess.PIPE, check=True, text=True).stdout
    )
    return {document["Config"]["Labels"]["com.docker.compose.service"]: document for document in documents}


def memory_mib(pid: int) -> int | None:
    """Memory of the process's cgroup without the page cache it could drop, in MiB; None when it cannot be read."""
    try:
        with open(f"/proc/{pid}/cgroup") as source:
            lines = [line.rstrip("\n").split(":", 2) for line in source]
        unified = next((path for number, names, path in lines if number == "0" and not names), None)
        legacy = next((path for _number, names, path in lines if "memory" in names.split(",")), None)
        if legacy is not None:
            folder, usage, inactive = (
                f"/sys/fs/cgroup/memory{legacy}",
                "memory.usage_in_bytes",
                "total_inactive_file",
            )
        else:
            folder, usage, inactive = f"/sys/fs/cgroup{unified}", "memory.current", "inactive_file"
        with open(f"{folder}/{usage}") as source:
            used = int(source.read())
        with open(f"{folder}/memory.stat") as source:
            stat = dict(line.split() for line in source)
        return (used - int(stat.get(inactive, 0))) // 1024**2
    except (OSError, ValueError):
        return None


def probe_http(container: str, probe: dict[str, object]) -> tuple[bool, str]:
    """GET the probe's path at the container's own address; returns (ok, what was seen)."""
    address, port, path = container_address(container), int(str(probe["port"])), str(probe["path"])
    if probe["tls"]:
        # The certificate may be the self-signed first one; who it names is judged from outside.
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        connection: http.client.HTTPConnection = http.client.HTTPSConnection(
            address, port, timeout=TIMEOUT_SECONDS, context=context
        )
    else:
        connection = http.client.HTTPConnection(address, port, timeout=TIMEOUT_SECONDS)
    try:
        connection.request("GET", path)
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as problem:
        return False, f"port {port}: {problem}"
    finally:
        connection.close()
    return status == probe["status"], f"GET {path} {status}"


def probe_exec(container: str, probe: dict[str, object]) -> tuple[bool, str]:
    """Run the probe's command inside the container; returns (ok, what was seen)."""
    command = [str(word) for word in probe["command"]]  # type: ignore[attr-defined]
    try:
        run_in_container(container, command, timeout=TIMEOUT_SECONDS)
    except CommandFailed as failure:
        return False, f"{command[0]}: {failure}"
    return True, f"{command[0]} ok"


PROBES = {"http": probe_http, "exec": probe_exec}


def look(probe: dict[str, object], document: dict[str, object] | None) -> dict[str, object]:
    """One row of the result."""
    row = {"service": probe["service"], "ok": False, "memory_mib": None, "limit_mib": None, "restarts": None}
    if document is None:
        return {**row, "detail": "has no container"}
    state: dict[str, object] = document["State"]  # type: ignore[assignment]
    host: dict[str, int] = document["HostConfig"]  # type: ignore[assignment]
    row.update(limit_mib=host["Memory"] // 1024**2, restarts=document["RestartCount"])
    if not state["Running"]:
        return {**row, "detail": f"is {state['Status']} (exit code {state['ExitCode']})"}
    row["memory_mib"] = memory_mib(int(str(state["Pid"])))
    try:
        ok, detail = PROBES[str(probe["kind"])](str(document["Name"]).lstrip("/"), probe)
    except ContainerAway as away:
        ok, detail = False, str(away)
    return {**row, "ok": ok, "detail": detail}


def main() -> None:
    """Entry point of the module."""
    probe_options = {
        "service": {"type": "str", "required": True},
        "kind": {"type": "str", "required": True, "choices": sorted(PROBES)},
        "port": {"type": "int"},
        "path": {"type": "str"},
        "status": {"type": "int", "default": 200},
        "tls": {"type": "bool", "default": False},
        "command": {"type": "list", "elements": "str"},
    }
    module = AnsibleModule(
        argument_spec={
            "project": {"type": "str", "required": True},
            "probes": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": probe_options,
                "required_if": [("kind", "http", ["port", "path"]), ("kind", "exec", ["command"])],
            },
        },
        supports_check_mode=True,
    )
    probes = module.params["probes"]
    try:
        found = containers(module.params["project"])
    except (OSError, subprocess.CalledProcessError) as problem:
        found = {}
        module.warn(f"the engine cannot be asked: {problem}")
    rows = [look(probe, found.get(probe["service"])) for probe in probes]
    unexpected = sorted(set(found) - {probe["service"] for probe in probes})
    module.exit_json(changed=False, services=rows, unexpected=unexpected)


if __name__ == "__main__":
    main()
