#!/usr/bin/env python3
"""Build, list, push and remove the images this project makes for itself (table: molecule/images/images.yml).

An image carries a label with the digest of everything it was made from, so building what is there already
does nothing. Only the Docker Engine API is used; neither the docker command nor a registry has to exist.
"""

from __future__ import annotations

import argparse
import fnmatch
import hashlib
import io
import json
import os
import platform
import re
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

import docker
import requests
import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "plugins/module_utils"))

from apt_mirrors import host_mirrors

REPOSITORY = "pi-commerce"
LABEL = "pi-commerce.inputs"
IMAGES = Path(__file__).resolve().parent.parent / "images"
HOST = Path(__file__).resolve().parent / "host.sh"
# The official image that `base` of each suite starts from; images that follow no suite are made from the first.
SUITES = {
    "trixie": "debian:trixie-slim",
    "bookworm": "debian:bookworm-slim",
    "noble": "ubuntu:24.04",
    "jammy": "ubuntu:22.04",
}
DEFAULT_SUITE = next(iter(SUITES))
MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}
NODE_CPUS = {"amd64": "x64", "arm64": "arm64"}
PULL_SILENCE = 20  # seconds without a word from a registry until it counts as away
BUILD_SILENCE = 1800  # seconds a single build step may stay silent
BINFMT = Path("/proc/sys/fs/binfmt_misc")
DPKG_CONFIG = "root/etc/dpkg/dpkg.cfg.d/image"
# How to reach a package index is the machine's matter and no part of what an image is made from.
BUILD_SETTINGS = (
    *("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "NPM_CONFIG_REGISTRY"),
    *("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"),
)

Tree = dict[str, tuple[int, bytes]]  # path below the image's folder -> (mode, content)


class ImageError(Exception):
    """An image cannot be built or pushed; the text says which one, why, and what to do."""


# --- the table ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Image:
    """One row of the table, for one suite of Debian or Ubuntu and one architecture."""

    name: str
    version: str
    base: Image | None
    suite: str
    arch: str
    served: bool = False
    tools: Image | None = None

    @property
    def tag(self) -> str:
        """The name on this engine; images for another architecture than this machine's say so."""
        foreign = self.arch != host_arch() and not self.version.endswith(self.arch)
        return f"{REPOSITORY}/{self.name}:{self.version}" + (f"-{self.arch}" if foreign else "")


def host_arch() -> str:
    """This machine's architecture as Debian and Docker name it."""
    machine = platform.machine()
    names = {**{kernel: name for name, kernel in MACHINES.items()}, **{name: name for name in MACHINES}}
    if machine not in names:
        raise ImageError(f"this machine is {machine!r}: images are made for {' and '.join(MACHINES)} only")
    return names[machine]


def load_table(text: str, suite: str, arch: str) -> dict[str, Image]:
    """Read the table into images by name; only rows whose version names `{suite}` follow the suite."""
    rows = yaml.safe_load(text)

    def image(name: str, suite: str, arch: str, above: Sequence[str]) -> Image:
        row = rows[name]
        if unknown := set(row) - {"version", "base", "tools", "served"}:
            raise ImageError(f"images.yml: {name}: unknown key {', '.join(sorted(unknown))}")
        if not isinstance(row.get("version"), str):
            raise ImageError(f"images.yml: {name}: version must be a quoted text")
        suite = suite if "{suite}" in row["version"] else DEFAULT_SUITE

        def other(role: str, arch: str) -> Image | None:
            if role in row and row[role] not in above:
                raise ImageError(f"images.yml: {name}: its {role} {row[role]!r} must stand above it in the table")
            return image(row[role], suite, arch, above[: above.index(row[role])]) if role in row else None

        version = row["version"].format(suite=suite, arch=arch)
        base, tools = other("base", arch), other("tools", host_arch())
        return Image(name, version, base, suite, arch, row.get("served", False), tools)

    names = list(rows)
    return {name: image(name, suite, arch, names[:number]) for number, name in enumerate(names)}


def chosen(table: Mapping[str, Image], names: Sequence[str]) -> list[Image]:
    """The named images in the table's order; no names means all."""
    if unknown := set(names) - set(table):
        raise ImageError(f"no image {', '.join(sorted(unknown))} in images.yml; there are: {', '.join(table)}")
    return [image for name, image in table.items() if name in names or not names]


def with_bases(images: Iterable[Image]) -> list[Image]:
    """The images and all they stand on, each once, bases first."""
    order: dict[Image, None] = {}
    for image in images:
        below = [needed for needed in (image.base, image.tools) if needed]
        order |= dict.fromkeys([*with_bases(below), image])
    return list(order)


# --- what an image is made from -------------------------------------------------------------------------


def read_tree(folder: Path) -> Tree:
    """All files below a folder, by relative path, with the modes an image keeps (0755 or 0644)."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        path.relative_to(folder).as_posix(): (0o755 if os.access(path, os.X_OK) else 0o644, path.read_bytes())
        for path in files
    }


def inputs_digest(tree: Tree, *context: str) -> str:
    """sha256 over names, modes and contents of the files and over the words (base or suite, architecture)."""
    digest = hashlib.sha256()
    for path, (mode, content) in sorted(tree.items()):
        digest.update(f"{path}\0{mode:o}\0{len(content)}\0".encode() + content)
    digest.update("\0".join(context).encode())
    return digest.hexdigest()


# --- what this machine trusts ---------------------------------------------------------------------------


def host_trust(suite: str) -> Tree:
    """What `base` takes over from this machine: its package mirrors and its extra certificate authorities."""
    trust: Tree = {}
    if is_debian(suite) and (sources := host_mirrors().sources(suite)):
        trust["root/etc/apt/sources.list.d/debian.sources"] = (0o644, sources.encode())
    extra = Path("usr/local/share/ca-certificates")
    for path, (_, content) in read_tree(Path("/", extra)).items():
        if path.endswith(".crt"):
            trust[f"root/{extra}/{path}"] = (0o644, content)
    return trust


# --- a plain system -------------------------------------------------------------------------------------


def keeps(patterns: Sequence[tuple[str, str]], path: str) -> bool:
    """Whether dpkg's (verb, pattern) list lets a path into the image: the last match decides, as in dpkg."""
    verdicts = [verb == "path-include" for verb, pattern in patterns if fnmatch.fnmatchcase(path, pattern)]
    return verdicts[-1] if verdicts else True


def dpkg_patterns(text: str) -> list[tuple[str, str]]:
    """The path-exclude and path-include lines of a dpkg configuration, in order."""
    return re.findall(r"^(path-(?:in|ex)clude)=(\S+)$", text, flags=re.MULTILINE)


def is_debian(suite: str) -> bool:
    """Whether the suite is Debian's: its mirrors serve it, and debootstrap makes it."""
    return SUITES[suite].startswith("debian:")


def pull_official(image: Image) -> str | None:
    """Get the suite's official image; return its id, or None when no registry answers in time."""
    repository, tag = SUITES[image.suite].split(":")
    client = docker.from_env(timeout=PULL_SILENCE)
    try:
        return str(client.images.pull(repository, tag, platform=f"linux/{image.arch}").id)
    except (docker.errors.APIError, requests.exceptions.RequestException) as error:
        reason = getattr(error, "explanation", None) or str(error)
        print(f"  no registry gives {repository}:{tag} ({last_line(reason)})", flush=True)
        return None
    finally:
        client.close()


def bootstrap_debian(client: docker.DockerClient, image: Image) -> str:
    """Make a minimal Debian with debootstrap; return the id of the image it became. Raises ImageError for Ubuntu."""
    if not is_debian(image.suite):
        raise ImageError(
            f"{SUITES[image.suite]} comes from an image registry only, and none answers: allow `docker pull`, "
            f"or choose a suite of Debian (PI_SUITE={DEFAULT_SUITE})"
        )
    # Installs it where it can; where it cannot, the refusal below tells what to do.
    subprocess.run(["bash", str(HOST), "debootstrap"], check=False)
    require_bootstrap(image.arch)
    mirror = host_mirrors().main
    patterns = dpkg_patterns((IMAGES / "base" / DPKG_CONFIG).read_text())

    def trim(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
        path = member.name.removeprefix(".")
        cache = re.match(r"/(var/cache/apt|var/lib/apt/lists|var/log)/", path) and not member.isdir()
        return member if keeps(patterns, path) and not cache else None

    with tempfile.TemporaryDirectory(prefix="debootstrap-") as scratch:
        root = Path(scratch, "root")
        options = ["--variant=minbase", "--include=ca-certificates", f"--arch={image.arch}"]
        command = ["debootstrap", *options, image.suite, str(root), *([mirror] if mirror else [])]
        result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        if result.returncode:
            log = tail(result.stdout.splitlines())
            raise ImageError(f"debootstrap of {image.suite} for {image.arch} failed:\n{log}")
        archive = Path(scratch, "root.tar")
        with tarfile.open(archive, "w") as tar:
            tar.add(root, arcname=".", filter=trim)
        # An imported file system says nothing about its architecture; a build from scratch does.
        return build_image(client, image, {"Dockerfile": (0o644, b"FROM scratch\nADD root.tar /\n")}, archive)


def require_bootstrap(arch: str) -> None:
    """Refuse early when debootstrap cannot work here, and say what to do."""
    if os.geteuid() != 0:
        raise ImageError("no registry answers, and debootstrap needs root: run this as root, or allow `docker pull`")
    if not any(os.access(Path(folder, "debootstrap"), os.X_OK) for folder in os.get_exec_path()):
        raise ImageError("no registry answers and debootstrap is missing: `apt-get install debootstrap`")
    handler = BINFMT / f"{REPOSITORY}-{MACHINES[arch]}"
    if arch != host_arch() and not (handler.exists() and re.search(r"^flags: .*F", handler.read_text(), re.MULTILINE)):
        raise ImageError(
            f"this machine cannot run {arch} programs ({handler} is missing or lacks flag F): "
            "`bash molecule/shared/host.sh emulation`"
        )


# --- building -------------------------------------------------------------------------------------------


def tail(lines: Sequence[str], count: int = 25) -> str:
    """The last lines of a log, indented."""
    return "\n".join(f"    {line}" for line in lines[-count:])


def last_line(text: str) -> str:
    """The last line of an error text that says anything."""
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "no reason given")


@contextmanager
def step(text: str) -> Iterator[None]:
    """Print what is being done, and how many seconds it took."""
    print(f"{text} ...", flush=True)
    start = time.monotonic()
    yield
    print(f"{text}: done in {time.monotonic() - start:.1f} s", flush=True)


def build_image(
    client: docker.DockerClient,
    image: Image,
    tree: Tree,
    large: Path | None = None,
    **options: str | dict[str, str],
) -> str:
    """Build from small files in memory and possibly a large one on disk; return the image id.

    `options` go to the build as they are. Raises ImageError with the end of the build log.
    """
    with tempfile.TemporaryFile() as context:
        with tarfile.open(fileobj=context, mode="w") as tar:
            for path, (mode, content) in sorted(tree.items()):
                # Every folder explicitly: COPY gives the folders of the image the modes these have.
                for parent in reversed(Path(path).parents[:-1]):
                    tar.addfile(entry(parent.as_posix(), 0o755, tarfile.DIRTYPE))
                info = entry(path, mode, tarfile.REGTYPE)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
            if large:
                tar.add(large, arcname=large.name)
        context.seek(0)
        events = client.api.build(
            fileobj=context,
            custom_context=True,
            # An engine allows a build of two architectures only where it is told of none: each stage has its base's.
            platform=None if image.tools else f"linux/{image.arch}",
            rm=True,
            forcerm=True,
            decode=True,
            **options,
        )
        return follow_build(image.tag, events)


def entry(path: str, mode: int, kind: bytes) -> tarfile.TarInfo:
    """A tar header that is the same on every machine."""
    info = tarfile.TarInfo(path)
    info.mode, info.type = mode, kind
    return info


def follow_build(name: str, events: Iterable[Mapping[str, Any]]) -> str:
    """Read a build's events to the end; return the image id or raise ImageError with the end of its log."""
    log: list[str] = []
    image_id = ""
    for event in events:
        text = re.sub(r"\x1b\[\d*m", "", str(event.get("stream", "")))
        log += [line for line in text.splitlines() if line.strip()]
        image_id = event.get("aux", {}).get("ID", image_id)
        if "error" in event:
            raise ImageError(f"building {name} failed: {last_line(event['error'])}\n{tail(log)}")
    if not image_id:
        raise ImageError(f"building {name} ended without an image:\n{tail(log)}")
    return image_id


@dataclass(frozen=True)
class Plan:
    """An image, the files it is made from, and the digest of all its inputs."""

    image: Image
    tree: Tree
    inputs: str


def plans(images: Iterable[Image]) -> list[Plan]:
    """Digest the inputs of images given bases first; a change in a base reaches all that stand on it."""
    result: dict[Image, Plan] = {}
    for image in images:
        folder = IMAGES / image.name
        tree = read_tree(folder)
        if "Dockerfile" not in tree:
            raise ImageError(f"image {image.name}: {folder}/Dockerfile is missing")
        if image.base is None:
            tree |= host_trust(image.suite)
        below = [result[needed].inputs for needed in (image.base, image.tools) if needed] or [image.suite]
        result[image] = Plan(image, tree, inputs_digest(tree, *below, image.arch))
    return list(result.values())


def existing(client: docker.DockerClient, image: Image) -> tuple[str, str] | None:
    """Id and inputs of the image as it is on this engine; None without one. Foreign images have no inputs."""
    try:
        found = client.images.get(image.tag)
    except docker.errors.ImageNotFound:
        return None
    return str(found.id), str(found.labels.get(LABEL, ""))


def build(client: docker.DockerClient, images: Sequence[Image]) -> None:
    """Build images and their bases, leaving alone what is current."""
    for plan in plans(with_bases(images)):
        image = plan.image
        old = existing(client, image)
        if old and old[1] == plan.inputs:
            print(f"{image.tag}: current, nothing to build", flush=True)
            continue
        if image.base:
            base = image.base.tag
        else:
            with step(f"{image.tag}: get {SUITES[image.suite]} for {image.arch}"):
                base = pull_official(image) or bootstrap_debian(client, image)
        settings = {key: os.environ[key] for key in BUILD_SETTINGS if key in os.environ}
        with step(f"{image.tag}: build"):
            labels = {LABEL: plan.inputs}
            arguments = {**settings, "BASE": base}
            if image.tools:
                machine = {"MACHINE": MACHINES[image.arch], "CPU": NODE_CPUS[image.arch]}
                arguments |= {"TOOLS": image.tools.tag, **machine}
            new = build_image(client, image, plan.tree, tag=image.tag, labels=labels, buildargs=arguments)
        if old and old[0] != new:
            discard(client, old[0])


def discard(client: docker.DockerClient, image_id: str) -> None:
    """Remove an image that its successor made nameless, unless something still needs it."""
    try:
        client.images.remove(image_id)
    except docker.errors.APIError as error:
        if error.status_code != HTTPStatus.CONFLICT:
            raise


# --- the other commands ---------------------------------------------------------------------------------


def show(client: docker.DockerClient, images: Sequence[Image]) -> None:
    """Print images with their size and whether they are current."""
    for plan in plans(with_bases(images)):
        tag, found = plan.image.tag, existing(client, plan.image)
        state = "missing" if found is None else "current" if found[1] == plan.inputs else "outdated"
        size = f"{client.images.get(tag).attrs['Size'] / 1e6:.0f} MB" if found else ""
        print(f"{tag:40}{state:10}{size:>8}")


def pushed_id(registry: str, name: str, version: str) -> str | None:
    """The image id a registry has under that tag, or None. Plain http: meant for a local registry."""
    request = urllib.request.Request(
        f"http://{registry}/v2/{name}/manifests/{version}",
        headers={"Accept": "application/vnd.docker.distribution.manifest.v2+json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=10) as response:  # noqa: S310 - as above
            return str(json.load(response)["config"]["digest"])
    except urllib.error.HTTPError as error:
        if error.code == HTTPStatus.NOT_FOUND:
            return None
        raise ImageError(f"registry {registry} answers {error.code} for {name}:{version}: {error.reason}") from error
    except OSError as error:
        raise ImageError(f"registry {registry} does not answer ({error}): is it running?") from error


def push(client: docker.DockerClient, images: Iterable[Image], registry: str) -> None:
    """Put images into a local registry as `<registry>/<name>:<version>`, skipping those it has already."""
    for image in images:
        try:
            local = client.images.get(image.tag)
        except docker.errors.ImageNotFound as error:
            raise ImageError(f"{image.tag} is not built: run `make images` first") from error
        if pushed_id(registry, image.name, image.version) == local.id:
            print(f"{image.tag}: {registry} has it", flush=True)
            continue
        target = f"{registry}/{image.name}"
        local.tag(target, tag=image.version)
        with step(f"{image.tag}: push to {registry}"):
            events = client.api.push(target, tag=image.version, stream=True, decode=True)
            errors = [event["error"] for event in events if "error" in event]
        client.images.remove(f"{target}:{image.version}")
        if errors:
            raise ImageError(f"pushing {image.tag} to {registry} failed: {errors[0]}")


def clean(client: docker.DockerClient) -> None:
    """Remove every image this program made. What others built on top keeps the layers it needs."""
    for image in client.images.list(filters={"label": LABEL}):
        names = [tag for tag in image.tags if tag.startswith(f"{REPOSITORY}/")]
        for name in names:
            client.images.remove(name)
            print(f"removed {name}", flush=True)
        if not image.tags:
            discard(client, image.id)


def arguments(argv: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    commands = parser.add_subparsers(dest="command", required=True)
    for command, text in {
        "build": "build what is missing or outdated",
        "push": "put the images of services into a registry",
        "list": "show all images and whether they are current",
        "clean": "remove all images made here",
    }.items():
        sub = commands.add_parser(command, help=text, description=text)
        if command == "clean":
            continue
        sub.add_argument("--suite", choices=SUITES, default=DEFAULT_SUITE, help="default: %(default)s")
        sub.add_argument("--arch", choices=MACHINES, default=host_arch(), help="default: %(default)s")
        if command != "list":
            sub.add_argument("names", nargs="*", metavar="NAME", help="default: all")
        if command == "push":
            sub.add_argument("--registry", required=True, metavar="HOST:PORT")
    return parser.parse_args(argv)


def main(argv: Sequence[str]) -> int:
    """Run one command; return the exit status."""
    try:
        options = arguments(argv)
        client = docker.from_env(timeout=BUILD_SILENCE)
        if options.command == "clean":
            clean(client)
            return 0
        table = load_table((IMAGES / "images.yml").read_text(), options.suite, options.arch)
        if options.command == "build":
            build(client, chosen(table, options.names))
        elif options.command == "push":
            served = [image for image in chosen(table, options.names) if image.served or options.names]
            push(client, served, options.registry)
        else:
            show(client, list(table.values()))
    except (ImageError, docker.errors.DockerException) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
