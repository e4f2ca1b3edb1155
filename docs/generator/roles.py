"""Roles and playbooks, read from their own files and held against what they say of themselves."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .source import DocsError, fill, load, read_names, shared_variables

# Where a task names the one file it writes.
_PATH_OF = {"template": "dest", "copy": "dest", "lineinfile": "path", "file": "dest"}


@dataclass(frozen=True)
class Variable:
    """One variable of a role; `name` is `outer[].inner` for a key of a list's entries."""

    name: str
    type: str
    description: str
    required: bool
    default: Any
    choices: list[Any]


@dataclass(frozen=True)
class Uninstall:
    """How a role's work is taken away: what is done, and the note at the top of its task file (may be empty)."""

    steps: list[str]
    note: str


@dataclass(frozen=True)
class Role:
    """One role. `reads` are variables and facts from elsewhere, `facts` those that it leaves to later roles."""

    name: str
    summary: str
    description: list[str]
    variables: list[Variable]
    needs: list[str]
    reads: list[str]
    facts: list[str]
    files: list[str]
    uninstall: Uninstall | None


@dataclass(frozen=True)
class Playbook:
    """A playbook and its roles in the order in which they run, those that others depend on included."""

    name: str
    stage: str
    hosts: str
    roles: list[str]


class _Files:
    """What the files of one role say."""

    def __init__(self, folder: Path) -> None:
        self.name = folder.name
        self.spec_file = f"roles/{folder.name}/meta/argument_specs.yml"
        try:
            entries = load(folder / "meta/argument_specs.yml")["argument_specs"]
            self.spec = entries["main"]
            self.options: dict[str, Any] = {
                name: option for entry in entries.values() for name, option in entry["options"].items()
            }
        except KeyError as error:
            raise DocsError(f"{self.spec_file}: {error} is missing: every role has it") from error
        self.defaults = load(folder / "defaults/main.yml")
        self.constants = load(folder / "vars/main.yml")
        self.needs = [entry["role"] for entry in load(folder / "meta/main.yml").get("dependencies", [])]
        self.tasks = [task for path in sorted(folder.glob("tasks/**/*.yml")) for task in _flat(load(path))]
        # What starts with __ a role sets for itself.
        facts = [name for task in self.tasks for name in task.get("ansible.builtin.set_fact", {})]
        self.facts = {name for name in facts if not name.startswith("__")}
        code = [path for kind in ("tasks", "handlers", "vars") for path in folder.glob(f"{kind}/**/*.yml")]
        self.uninstall = _uninstall(folder / "tasks/uninstall.yml")
        self.reads = set().union(*map(read_names, [*code, *folder.glob("templates/**/*.j2")]))


def _programs(root: Path) -> set[str]:
    """What programs on the controller may ask an inventory for: every quoted name in them."""
    texts = (path.read_text(encoding="utf-8") for path in root.glob("ops/*.py"))
    return {name for text in texts for name in re.findall(r'"([a-z]\w+)"', text)}


def roles(root: Path) -> list[Role]:
    """All roles by name. Raises DocsError where one does not describe itself, or something that is not there."""
    shared = shared_variables(root)
    found = [_Files(path) for path in sorted((root / "roles").iterdir()) if path.is_dir()]
    read = set().union(*(files.reads for files in found), *_services(root).values(), _programs(root))
    for files in found:
        _check(files)
        if idle := sorted(set(files.options) - read):
            raise DocsError(f"{files.spec_file}: nothing reads {', '.join(idle)}: use it or take it out")
    known = set(shared).union(*(files.options for files in found), *(files.facts for files in found))
    return [
        Role(
            name=files.name,
            summary=files.spec["short_description"],
            description=_texts(files.spec.get("description", [])),
            variables=list(_variables(files.options, files.spec_file, shared)),
            needs=files.needs,
            reads=sorted((files.reads & known) - files.facts - (set(files.options) - set(shared))),
            facts=sorted(files.facts),
            uninstall=files.uninstall,
            files=sorted(_written(files.tasks, {**shared, **files.defaults, **files.constants})),
        )
        for files in found
    ]


def readers(root: Path, found: Sequence[Role]) -> dict[str, list[str]]:
    """For each variable, the roles and the service files that read it although it is not theirs."""
    reads = {**{role.name: set(role.reads) for role in found}, **_services(root)}
    names = {variable.name for role in found for variable in role.variables}
    return {variable: [reader for reader, read in reads.items() if variable in read] for variable in names}


def playbooks(root: Path, found: Sequence[Role]) -> list[Playbook]:
    """The stages of `site.yml` in their order, then the playbooks that are run on their own (without a stage).

    Raises DocsError for a role that is not there, and for one that no playbook uses.
    """
    needs = {role.name: role.needs for role in found}
    stages = {Path(play["ansible.builtin.import_playbook"]).name: play["name"] for play in load(root / "site.yml")}
    others = sorted(path.name for path in (root / "playbooks").glob("*.yml") if path.name not in stages)
    books = []
    for name in [*stages, *others]:
        plays = load(root / "playbooks" / name)
        order: list[str] = []
        for role in (role for play in plays for role in _roles_of(play)):
            _add(role, needs, order, f"playbooks/{name}")
        hosts = ", ".join(dict.fromkeys(str(play.get("hosts", "-")) for play in plays))
        books.append(Playbook(name, stages.get(name, ""), hosts, order))
    if idle := set(needs).difference(*(book.roles for book in books)):
        raise DocsError(f"playbooks/: no playbook uses role {', '.join(sorted(idle))}: use it or remove it")
    return books


def _services(root: Path) -> dict[str, set[str]]:
    """The names that each service file reads."""
    return {path.name: read_names(path) for path in sorted((root / "templates/services").glob("*.yml.j2"))}


def _check(files: _Files) -> None:
    """Refuse a role whose specification is not whole, or not what its defaults say."""
    if not files.spec.get("short_description"):
        raise DocsError(f"{files.spec_file}: short_description is missing: say what the role is for")
    for name in files.defaults:
        if name not in files.options:
            raise DocsError(
                f"roles/{files.name}/defaults/main.yml: {name} is not specified: describe it in {files.spec_file}"
            )
    for name, option in files.options.items():
        if ("default" in option) == bool(option.get("required")):
            raise DocsError(f"{files.spec_file}: {name} must have either a default or required: true")
        if option.get("default") != files.defaults.get(name):
            raise DocsError(
                f"{files.spec_file}: {name} has the default {option.get('default')!r}, "
                f"but defaults/main.yml says {files.defaults.get(name)!r}: make them equal"
            )


def _variables(
    options: Mapping[str, Any], file: str, values: Mapping[str, Any], prefix: str = ""
) -> Iterator[Variable]:
    """Options and the options inside them; `values` has those that are set elsewhere."""
    for name, option in options.items():
        full = f"{prefix}{name}"
        if not option.get("description"):
            raise DocsError(f"{file}: {full} has no description: say what it is for")
        elements = option.get("elements")
        yield Variable(
            name=full,
            type=option.get("type", "str") + (f" of {elements}" if elements else ""),
            description=" ".join(_texts(option["description"])),
            required=option.get("required", False),
            default=option.get("default", values.get(full)),
            choices=option.get("choices", []),
        )
        yield from _variables(option.get("options", {}), file, {}, f"{full}[]." if elements else f"{full}.")


def _texts(text: str | list[str]) -> list[str]:
    return [text] if isinstance(text, str) else text


def _flat(tasks: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Every task, those inside blocks included."""
    for task in tasks:
        yield task
        for part in ("block", "rescue", "always"):
            yield from _flat(task.get(part, []))


def _written(tasks: Sequence[Mapping[str, Any]], variables: Mapping[str, Any]) -> set[str]:
    """What tasks write on the Pi, as far as they name it; a folder ends with /."""
    paths: list[str] = []
    for task in tasks:
        for module, arguments in task.items():
            key = _PATH_OF.get(module.rpartition(".")[2])
            if module == "file_tree":
                paths += _tree(arguments)
            elif key and arguments.get("state") != "absent":
                paths.append(arguments.get(key) or arguments["path"])
    return {fill(path, variables) for path in paths}


def _uninstall(path: Path) -> Uninstall | None:
    if not path.exists():
        return None
    lines = path.read_text(encoding="utf-8").splitlines()[1:]
    note = [line.removeprefix("#").strip() for line in itertools.takewhile(lambda line: line.startswith("#"), lines)]
    return Uninstall([task["name"] for task in _flat(load(path))], " ".join(note))


def _tree(arguments: Mapping[str, Any]) -> Iterator[str]:
    root = str(arguments["root"]).rstrip("/")
    purged = [f"{root}/{folder}".removesuffix("/.").rstrip("/") + "/" for folder in arguments.get("purge", [])]
    yield from purged
    files = arguments.get("files", [])
    if isinstance(files, list):
        yield from (f"{root}/{entry['path']}" for entry in files)
    elif not purged:
        yield f"{root}/"


def _roles_of(play: Mapping[str, Any]) -> Iterator[str]:
    for entry in play.get("roles", []):
        yield entry if isinstance(entry, str) else entry["role"]
    tasks = [task for part in ("pre_tasks", "tasks", "post_tasks") for task in _flat(play.get(part, []))]
    for task in tasks:
        for module in ("ansible.builtin.include_role", "ansible.builtin.import_role"):
            # One entry point of a role, like its uninstall, is not the role.
            if module in task and "tasks_from" not in task[module]:
                yield task[module]["name"]


def _add(role: str, needs: Mapping[str, Sequence[str]], order: list[str], where: str) -> None:
    if role not in needs:
        raise DocsError(f"{where}: there is no role {role}: roles/{role} is missing")
    for needed in needs[role]:
        _add(needed, needs, order, where)
    if role not in order:
        order.append(role)
