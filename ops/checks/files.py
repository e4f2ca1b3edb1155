"""Every file that the roles write: there, with the content, mode and owner it was written with, and none beside it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import file_tree
from declared import TEMPLATE, Step
from gather import Answer
from report import UNKNOWN, Finding

from checks.base import Check, complete, drift, words


class Wanted(NamedTuple):
    """A file (`sha256` of its content) or a folder (None) as it shall be."""

    sha256: str | None
    mode: int
    owner: str
    group: str


class Found(NamedTuple):
    """What `stat` says of a path."""

    kind: str
    mode: int
    owners: tuple[str, str]
    groups: tuple[str, str]


# The root folder is asked for too: it is there on every machine that `stat` works on.
_QUESTION = r"""
set -eu
set -- {paths}
for path do shift; if [ -e "$path" ] || [ -L "$path" ]; then set -- "$@" "$path"; fi; done
stat --format '%F|%a|%u|%U|%g|%G|%n' -- / "$@"
for path do shift; if [ -f "$path" ] && [ ! -L "$path" ]; then set -- "$@" "$path"; fi; done
[ $# -eq 0 ] || sha256sum -- "$@"
set -- {swept}
for path do shift; if [ -d "$path" ]; then set -- "$@" "$path"; fi; done
[ $# -eq 0 ] || find "$@" ! -type d -printf 'swept|%p\0' | tr '\n\0' '?\n'
"""


class Files(Check):
    """Reads `file_tree` and `template`."""

    name = "files"
    actions = frozenset({"file_tree", TEMPLATE})

    def __init__(self, steps: list[Step]) -> None:
        """Collect files, folders that say how they shall be, and folders that hold nothing else."""
        super().__init__(steps)
        self.wanted: dict[str, Wanted] = {}
        self.swept: set[str] = set()
        for step in self.of("file_tree"):
            arguments = complete(file_tree.DOCUMENTATION, step.arguments)
            root = arguments["root"]
            self.wanted.update(_tree(root, arguments))
            self.swept.update(os.path.normpath(os.path.join(root, folder)) for folder in arguments["purge"])
        for step in self.of(TEMPLATE):
            self.wanted[step.arguments["dest"]] = _wanted(step.arguments, step.arguments["content"])

    def question(self) -> str:
        """Kind, mode and owners of all paths, digests of the files, and what lies in the swept folders."""
        return _QUESTION.format(paths=words(self.wanted), swept=words(sorted(self.swept)))

    def judge(self, answer: Answer) -> Iterator[Finding]:
        """Paths that are missing, other or too many."""
        found, digests, lying = parse(answer.output)
        if "/" not in found:
            yield Finding(UNKNOWN, "stat does not tell about /", "look at the Pi's coreutils")
            return
        for path, wanted in self.wanted.items():
            yield from compare(path, wanted, found.get(path), digests.get(path))
        for path in sorted(lying - set(self.wanted)):
            yield drift(f"{path}: does not belong there")

    def summary(self, answer: Answer) -> str:
        """How many there are."""
        return f"{len(self.wanted)} files and folders as declared, nothing beside them"


def written(steps: Iterable[Step]) -> Iterator[tuple[str, str]]:
    """Path and content of every file of `file_tree` steps that is no secret."""
    for step in steps:
        for file in step.arguments["files"]:
            if "content" in file:
                yield os.path.normpath(os.path.join(step.arguments["root"], file["path"])), file["content"]


def _tree(root: str, arguments: dict) -> Iterator[tuple[str, Wanted]]:
    # As file_tree does: a folder whose mode nobody set belongs to others.
    if arguments["root_mode"] != "0755":
        yield root, _wanted({"mode": arguments["root_mode"], "owner": "root", "group": "root"}, None)
    for folder in arguments["directories"]:
        yield os.path.normpath(os.path.join(root, folder["path"])), _wanted(folder, None)
    for file in arguments["files"]:
        content = file["secret_content"] if file.get("secret_content") is not None else file["content"]
        yield os.path.normpath(os.path.join(root, file["path"])), _wanted(file, content)


def _wanted(rights: dict, content: str | None) -> Wanted:
    sha256 = None if content is None else hashlib.sha256(content.encode()).hexdigest()
    return Wanted(sha256, int(rights["mode"], 8), rights["owner"], rights["group"])


def parse(output: str) -> tuple[dict[str, Found], dict[str, str], set[str]]:
    """What the question printed: paths, digests of files, and the paths in swept folders."""
    found, digests, lying = {}, {}, set()
    for line in output.splitlines():
        kind, _, rest = line.partition("|")
        if kind == "swept":
            lying.add(rest)
        elif rest:
            mode, uid, user, gid, group, path = rest.split("|", 5)
            found[path] = Found(kind, int(mode, 8), (uid, user), (gid, group))
        else:
            digest, _, path = line.partition("  ")
            digests[path] = digest
    return found, digests, lying


def compare(path: str, wanted: Wanted, found: Found | None, digest: str | None) -> Iterable[Finding]:
    """What separates a path from how it shall be."""
    if found is None:
        return [drift(f"{path}: is missing")]
    kinds = ("directory",) if wanted.sha256 is None else ("regular file", "regular empty file")
    if found.kind not in kinds:
        return [drift(f"{path}: is a {found.kind}, not a {kinds[0]}", "remove it, then converge")]
    findings = []
    if wanted.sha256 and digest is None:
        findings.append(Finding(UNKNOWN, f"{path}: its content could not be read", "look at the Pi's disk"))
    elif wanted.sha256 != digest:
        findings.append(drift(f"{path}: has other content"))
    if found.mode != wanted.mode:
        findings.append(drift(f"{path}: has mode {found.mode:04o} instead of {wanted.mode:04o}"))
    for what, name, names in (("owner", wanted.owner, found.owners), ("group", wanted.group, found.groups)):
        if name not in names:
            findings.append(drift(f"{path}: has {what} {names[1]} instead of {name}"))
    return findings
