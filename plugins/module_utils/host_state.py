"""What a converge would otherwise ask the machine task by task, read at once; and what can be concluded from it.

`read()` runs on the Pi (module `pi_facts`), `holds()` on the controller (action plugin `file_tree`). What is not known
looks like something that has to be done: `UNKNOWN` sends every role back to asking for itself.

Long lists are told as texts: Ansible copies facts, part by part, for every template it renders.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
import re
import socket
import stat
import subprocess

# Where roles write, recursively. A file elsewhere is compared on the Pi, in a call of its own.
MANAGED = (
    "/etc/pi-commerce",
    "/etc/*/*pi-commerce*",
    "/etc/*/*/*pi-commerce*",
    "/etc/systemd/system/*.d/*pi-commerce*",
    "/etc/nut/*",
    "/etc/docker/daemon.json",
    "/etc/default/ufw",
    "/etc/ufw/*",
    "/usr/local/*/pi-commerce*",
    "/var/lib/pi-commerce.unapplied-*",
)
# Marks of files that were changed and are not yet in force, and how half-written files begin (module `file_tree`).
UNAPPLIED = "/var/lib/pi-commerce.unapplied-"
HALF_WRITTEN = ".file_tree-"

COMPOSE_PROJECT = "pi-commerce"
COMPOSE_FILES = "/etc/pi-commerce/compose/*.yml"
MEMORY_LIMIT_PROOF = "/run/pi-commerce-memory-limit"
ENGINE_SECONDS = 20

UNKNOWN: dict = {
    "files": {},
    "packages": "",
    "enabled_units": [],
    "hostname": "",
    "hosts_line": "",
    "localtime": "",
    "memory_limit_proven": False,
    "leftovers": ["not known"],
    "images": [],
    "stack_drift": ["not known"],
}


class EngineAway(Exception):
    """There is no engine, or it does not answer."""


def read(root: str = "/") -> dict:
    """The state of this machine, with the keys of UNKNOWN (paths below `root`, for tests)."""
    host = {
        "files": files(root),
        "packages": packages(text(root, "var/lib/dpkg/status")),
        "enabled_units": enabled_units(os.path.join(root, "etc/systemd/system")),
        "hostname": hostname(socket.gethostname(), text(root, "etc/hostname")),
        "hosts_line": last_line(text(root, "etc/hosts"), r"127\.0\.1\.1\s"),
        "localtime": link(os.path.join(root, "etc/localtime")),
        "memory_limit_proven": os.path.exists(os.path.join(root, MEMORY_LIMIT_PROOF.lstrip("/"))),
    }
    try:
        return {**UNKNOWN, **host, **engine()}
    except EngineAway:
        return {**UNKNOWN, **host}


def trusted(state: dict, leftovers: list) -> dict:
    """What may be relied on of a state: nothing, where a run that was cut off may still be at work."""
    return {**(UNKNOWN if leftovers else state), "leftovers": leftovers}


def text(root: str, path: str) -> str:
    """Content of a file, empty where there is none."""
    try:
        with open(os.path.join(root, path), encoding="utf-8", errors="replace") as source:
            return source.read()
    except OSError:
        return ""


def link(path: str) -> str:
    """Where a link points to, empty where there is none."""
    return os.readlink(path) if os.path.islink(path) else ""


def hostname(running: str, written: str) -> str:
    """The machine's name, empty where the one after a restart would be another."""
    return running if running == written.strip() else ""


def last_line(content: str, begin: str) -> str:
    """The last line that begins so, empty where there is none."""
    return ([line for line in content.splitlines() if re.match(begin, line)] or [""])[-1]


def packages(status: str) -> str:
    """Names of the packages that are completely installed, with spaces between, from dpkg's status file."""
    found = r"^Package: (\S+)\n(?:[^\n]+\n)*?Status: (?:install|hold) ok installed$"
    return " ".join(sorted(re.findall(found, status, flags=re.MULTILINE)))


def enabled_units(folder: str) -> list:
    """Names of the systemd units that start by a link in `folder`/*.wants and are not masked."""
    wanted = {os.path.basename(path) for path in glob.glob(os.path.join(folder, "*.wants/*"))}
    return sorted(name for name in wanted if link(os.path.join(folder, name)) != "/dev/null")


def files(root: str) -> dict:
    """Every folder, file and link in MANAGED: {path: "kind mode uid gid digest"}.

    Digests (SHA-256) of what only its owner may read stay here ("-"): whoever saw one could test guesses.
    """
    tops = [path for pattern in MANAGED for path in glob.glob(os.path.join(root, pattern.lstrip("/")))]
    walks = (walk for top in tops if not os.path.islink(top) for walk in os.walk(top))
    inner = [os.path.join(base, name) for base, folders, names in walks for name in folders + names]
    try:
        return {"/" + os.path.relpath(path, root): describe(path) for path in tops + inner}
    except FileNotFoundError:
        # Somebody is at work there right now.
        return {}


def describe(path: str) -> str:
    """One entry of `files`."""
    status = os.lstat(path)
    mode = stat.S_IMODE(status.st_mode)
    kind = "folder" if stat.S_ISDIR(status.st_mode) else "file" if stat.S_ISREG(status.st_mode) else "other"
    digest = "-"
    if kind == "file" and mode & 0o077:
        with open(path, "rb") as source:
            digest = hashlib.sha256(source.read()).hexdigest()
    return f"{kind} {mode:04o} {status.st_uid} {status.st_gid} {digest}"


def docker(*arguments: str) -> str:
    """Output of the docker client. Raises EngineAway."""
    try:
        done = subprocess.run(
            ["docker", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=ENGINE_SECONDS,
            check=True,
            text=True,
        )
    except (OSError, subprocess.SubprocessError) as problem:
        raise EngineAway from problem
    return done.stdout


def engine() -> dict:
    """Images of the engine, and in what the running stack differs from its Compose files. Raises EngineAway."""
    listed = docker("image", "ls", "--no-trunc", "--format", "{{.Repository}}:{{.Tag}} {{.ID}}").splitlines()
    images = dict(line.split(" ", 1) for line in listed)
    paths = sorted(glob.glob(COMPOSE_FILES), key=lambda path: (path.endswith("/overrides.yml"), path))
    if not paths:
        return {"images": sorted(images)}
    chosen = [word for path in paths for word in ("--file", path)]
    hashes = docker("compose", "--project-name", COMPOSE_PROJECT, *chosen, "config", "--hash", "*").splitlines()
    ids = docker("ps", "--all", "--quiet", "--filter", f"label=com.docker.compose.project={COMPOSE_PROJECT}").split()
    containers = json.loads(docker("inspect", *ids)) if ids else []
    return {
        "images": sorted(images),
        "stack_drift": drift(dict(line.split() for line in hashes), containers, images),
    }


def drift(hashes: dict, containers: list, images: dict) -> list:
    """What `docker compose up` would have to do, one text for each service that it would touch.

    Args:
        hashes: digest of each declared service's configuration, as `docker compose config --hash` tells it.
        containers: `docker inspect` documents of the project; Compose keeps that digest and the image in their labels.
        images: image ids by name and tag.
    """
    problems, seen = [], set()
    for container in containers:
        labels = container["Config"]["Labels"]
        service = labels["com.docker.compose.service"]
        state, image = container["State"], container["Config"]["Image"]
        health = state.get("Health", {}).get("Status", "healthy")
        if service in seen:
            problems.append(f"{service}: has two containers")
        elif service not in hashes:
            problems.append(f"{service}: is not declared")
        elif container["Name"] != f"/{COMPOSE_PROJECT}-{service}-1":
            problems.append(f"{service}: is named {container['Name']}, as while it is being replaced")
        elif labels["com.docker.compose.config-hash"] != hashes[service]:
            problems.append(f"{service}: is declared differently")
        elif labels.get("com.docker.compose.image") != images.get(image):
            problems.append(f"{service}: runs another image than {image} is now")
        elif state["Status"] != "running" or health != "healthy":
            problems.append(f"{service}: is {state['Status']}, {health}")
        seen.add(service)
    return problems + [f"{service}: has no container" for service in hashes if service not in seen]


def holds(request: dict, known: dict) -> bool:
    """Whether a `file_tree` request is fulfilled for certain by the files that are `known` (see `files`)."""
    if request.get("apply") and any(path.startswith(UNAPPLIED) for path in known):
        return False
    if any(os.path.basename(path).startswith(HALF_WRITTEN) for path in known):
        return False
    root = os.path.normpath(request["root"])
    declared = set()
    for item in request.get("files") or []:
        path = os.path.normpath(os.path.join(root, item["path"]))
        if item.get("content") is None:
            return False
        digest = hashlib.sha256(item["content"].encode()).hexdigest()
        if known.get(path) != entry("file", item.get("mode", "0644"), item, digest):
            return False
        declared.add(path)
    for item in request.get("directories") or []:
        path = os.path.normpath(os.path.join(root, item["path"]))
        if known.get(path) != entry("folder", item.get("mode", "0755"), item):
            return False
    mode = request.get("root_mode", "0755")
    if (mode != "0755" or not declared) and known.get(root) != entry("folder", mode, {}):
        return False
    return all(
        swept(os.path.normpath(os.path.join(root, folder)), declared, known) for folder in request.get("purge") or []
    )


def entry(kind: str, mode: str, item: dict, digest: str = "-") -> str:
    """What `files` tells of something with the owner and group of `item`; no other name than root ever fits."""
    owner, group = ("0" if name == "root" else name for name in (item.get("owner", "root"), item.get("group", "root")))
    return f"{kind} {mode} {owner} {group} {digest}"


def swept(folder: str, declared: set, known: dict) -> bool:
    """Whether everything in a known folder is declared."""
    below = [path for path, told in known.items() if path.startswith(folder + "/") and not told.startswith("folder ")]
    return folder in known and declared.issuperset(below)
