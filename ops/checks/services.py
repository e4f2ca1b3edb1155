"""The services: containers as the catalog and the Compose files say, answering, within their memory."""

from __future__ import annotations

import json
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

from declared import CannotRead, Step
from gather import Answer
from report import FAILING, WARNING, Finding

from checks.base import Check, drift, words

_COMPOSE = "compose_up"
_CALL_SECONDS = 15
# Share of a container's memory limit at which it is worth a look, and at which the kernel is about to end it.
MEMORY_WARNING, MEMORY_FAILING = 0.90, 0.97

_ROW = (
    '{"service": {{json (index .Config.Labels "com.docker.compose.service")}}, "name": {{json .Name}}, '
    '"status": {{json .State.Status}}, "exit": {{json .State.ExitCode}}, "killed": {{json .State.OOMKilled}}, '
    '"health": {{if .State.Health}}{{json .State.Health.Status}}{{else}}null{{end}}, '
    '"image": {{json .Config.Image}}, "limit": {{json .HostConfig.Memory}}, "pid": {{json .State.Pid}}, '
    '"ports": {{json .HostConfig.PortBindings}}, '
    '"hash": {{json (index .Config.Labels "com.docker.compose.config-hash")}}}'
)
_LIST = "docker ps --all --quiet --filter label=com.docker.compose.project={project}"
# A file that Compose refuses is a file that somebody edited: the check `files` says which.
_CONTAINERS = r"""
set -eu
found=$({listed})
[ -z "$found" ] || docker inspect --format {row} $found
cd {folder} || exit 0
docker compose --project-name {project} {files} config --hash '*' 2>/dev/null | sed 's/^/hash /'
"""
# Memory without the page cache that could be dropped, from the container's cgroup, version 1 or 2.
_MEMORY = r"""
set -eu
found=$(LISTED --filter status=running)
[ -n "$found" ] || exit 0
row='{{.State.Pid}} {{index .Config.Labels "com.docker.compose.service"}} {{.HostConfig.Memory}}'
docker inspect --format "$row" $found | while read -r pid service limit; do
  set -- $(awk -F: '
    $2 ~ /(^|,)memory(,|$)/ { old = "/sys/fs/cgroup/memory" $3 " memory.usage_in_bytes total_inactive_file" }
    $1 == 0 { new = "/sys/fs/cgroup" $3 " memory.current inactive_file" }
    END { print (old ? old : new) }' "/proc/$pid/cgroup")
  idle=$(awk -v key="$3" '$1 == key { print $2 }' "$1/memory.stat")
  echo "$service $(($(cat "$1/$2") - ${idle:-0})) $limit"
done
"""
# In KiB, below the root of the board's own figures.
_MACHINE = "sed -n 's/^Mem\\(Total\\|Available\\): */host \\1 /p' {meminfo}"


class Stack:
    """What the catalog says about the containers of one Compose project."""

    def __init__(self, check: Check) -> None:
        """Read project and files from the step that brings them up, the rest from the catalog."""
        steps = check.of(_COMPOSE)
        if not steps:
            raise CannotRead(f"site.yml has no task {_COMPOSE}: nothing says what should run")
        arguments = steps[-1].arguments
        self.project: str = arguments["project_name"]
        self.folder: str = arguments["project_src"]
        self.files: list[str] = arguments["files"]
        self.catalog: dict[str, Any] = check.value("catalog_data")

    def listed(self) -> str:
        """Shell that prints the ids of the project's containers."""
        return _LIST.format(project=words([self.project]))


class Containers(Check):
    """One container for each service: running, healthy, with the declared image and ports, made from today's files."""

    name = "containers"
    actions = frozenset({_COMPOSE, "stack_state"})

    def __init__(self, steps: list[Step]) -> None:
        """Read the catalog."""
        super().__init__(steps)
        self.stack = Stack(self)

    def question(self) -> str:
        """A line of JSON for each container, and what Compose would make the containers from."""
        stack = self.stack
        files = " ".join(f"--file {words([file])}" for file in stack.files)
        return _CONTAINERS.format(
            listed=stack.listed(), row=words([_ROW]), folder=words([stack.folder]), project=stack.project, files=files
        )

    def judge(self, answer: Answer) -> Iterator[Finding]:
        """Containers that are missing, not well, other than declared, or too many."""
        lines = answer.output.splitlines()
        rows = [json.loads(line) for line in lines if line.startswith("{")]
        hashes = dict(line.split(" ")[1:3] for line in lines if line.startswith("hash "))
        found = {row["service"]: row for row in rows}
        catalog = self.stack.catalog
        images = {entry["service"]: entry["image"] for entry in catalog["images"]}
        for service in catalog["services"]:
            if service not in found:
                yield drift(f"{service}: has no container")
                continue
            row = found[service]
            yield from state(row)
            if row["image"] != images[service]:
                yield drift(f"{service}: runs {row['image']} instead of {images[service]}")
            declared = [entry for entry in catalog["published_ports"] if entry["service"] == service]
            yield from ports(row, declared)
            if service in hashes and hashes[service] != row["hash"]:
                yield drift(f"{service}: was not made from the Compose files as they are now")
        for service in sorted(set(found) - set(catalog["services"])):
            yield drift(f"{service}: container {found[service]['name'].lstrip('/')} is not in the catalog")

    def summary(self, answer: Answer) -> str:
        """Which."""
        return f"{', '.join(self.stack.catalog['services'])} healthy"


def state(row: dict[str, Any]) -> Iterator[Finding]:
    """Whether a container runs and is well."""
    service = row["service"]
    logs = f"docker logs {row['name'].lstrip('/')}, on the Pi"
    if row["status"] != "running":
        yield drift(f"{service}: is {row['status']} (exit code {row['exit']})")
    elif row["health"] == "starting":
        yield Finding(WARNING, f"{service}: is starting", "look again in a minute")
    elif row["health"] not in ("healthy", None):
        yield Finding(FAILING, f"{service}: is {row['health']}", logs)
    if row["killed"]:
        yield Finding(WARNING, f"{service}: was ended for want of memory", "raise its limit in services_memory")


def ports(row: dict[str, Any], declared: list[dict[str, Any]]) -> Iterator[Finding]:
    """Ports of the host that lead into a container, against those the catalog declares."""
    actual = {
        (binding["HostIp"] or "0.0.0.0", binding["HostPort"], inside)  # noqa: S104 what Docker leaves out, not what we open
        for inside, bindings in (row["ports"] or {}).items()
        for binding in bindings
    }
    wanted = {
        (entry["host_ip"], str(entry["host_port"]), f"{entry['container_port']}/{entry['protocol']}")
        for entry in declared
    }
    for address, port, inside in sorted(actual - wanted):
        yield drift(f"{row['service']}: port {port} on {address} leads to {inside}, which the catalog does not declare")
    for address, port, inside in sorted(wanted - actual):
        yield drift(f"{row['service']}: port {port} on {address} should lead to {inside} and does not")


class Memory(Check):
    """What the running containers take of their limits, and what the machine has left."""

    name = "memory"

    def __init__(self, steps: list[Step]) -> None:
        """Read the catalog."""
        super().__init__(steps)
        self.stack = Stack(self)

    def question(self) -> str:
        """Service, bytes and limit of each; the machine's own figures."""
        meminfo = words([f"{self.value('hardware_root').rstrip('/')}/proc/meminfo"])
        return _MACHINE.format(meminfo=meminfo) + _MEMORY.replace("LISTED", self.stack.listed())

    def judge(self, answer: Answer) -> Iterator[Finding]:
        """Containers near their limit, a machine that runs out."""
        rows, host = usage(answer.output)
        for service, (used, limit) in rows.items():
            text = f"{service}: takes {used >> 20} of {limit >> 20} MiB"
            if limit and used > limit * MEMORY_WARNING:
                level = FAILING if used > limit * MEMORY_FAILING else WARNING
                yield Finding(level, text, f"raise services_memory.{service}, or give it less to do")
        if host["Available"] < 0.1 * host["Total"]:
            text = f"the Pi has {host['Available'] >> 10} of {host['Total'] >> 10} MiB left"
            yield Finding(WARNING, text, "take a service out of services_enabled, or use a Pi with more memory")

    def summary(self, answer: Answer) -> str:
        """The fullest container and the machine."""
        rows, host = usage(answer.output)
        fullest = max((row for row in rows.items() if row[1][1]), key=lambda row: row[1][0] / row[1][1], default=None)
        text = f"{fullest[0]} {fullest[1][0] >> 20} of {fullest[1][1] >> 20} MiB, " if fullest else ""
        return f"{text}the Pi has {host['Available'] >> 10} of {host['Total'] >> 10} MiB left"


def usage(output: str) -> tuple[dict[str, tuple[int, int]], dict[str, int]]:
    """Bytes and limit by service, and the machine's Total and Available in KiB."""
    lines = [line.split() for line in output.splitlines()]
    rows = {line[0]: (int(line[1]), int(line[2])) for line in lines if line[0] != "host"}
    return rows, {line[1]: int(line[2]) for line in lines if line[0] == "host"}


class Entrance(Check):
    """The call from outside that proves the shop to be open, made from here as the role verify does."""

    name = "entrance"

    def __init__(self, steps: list[Step]) -> None:
        """Take the address from the role verify, the path from the catalog."""
        super().__init__(steps)
        path = next(probe["path"] for probe in self.value("catalog_data")["probes"] if probe.get("tls"))
        self.url: str = self.value("_verify_url") + path if self.value("_verify_outside") else ""
        self.signed: bool = self.value("_verify_signed")

    def question(self) -> str:
        """Nothing is asked of the Pi itself."""
        return ""

    def judge(self, answer: Answer) -> Iterator[Finding]:
        """A call that is not answered as it should be."""
        if self.url and (seen := call(self.url, self.signed)) != "200":
            text = f"GET {self.url}: {seen} instead of 200"
            yield Finding(FAILING, text, "see the check containers, and make status")

    def summary(self, answer: Answer) -> str:
        """What was called."""
        return f"GET {self.url}" if self.url else "not called (verify_from_outside, proxy_exposure)"


def call(url: str, validate: bool) -> str:
    """The status that a GET of `url` is answered with, or why there is none."""
    context = ssl.create_default_context()
    if not validate:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    try:
        with urllib.request.urlopen(url, timeout=_CALL_SECONDS, context=context) as answer:  # noqa: S310 from our own tasks
            return str(answer.status)
    except urllib.error.HTTPError as refused:
        return str(refused.code)
    except OSError as problem:
        return f"no answer ({problem})"
