"""Ansible's own reading of this project without a remote call: inventory, variables, vault, the tasks of `site.yml`."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
# Read by Ansible while it is imported: where filters, modules and roles are.
os.environ.setdefault("ANSIBLE_CONFIG", str(ROOT / "ansible.cfg"))

import ansible.module_utils
from ansible import constants as C
from ansible import context
from ansible.cli import CLI
from ansible.errors import AnsibleError
from ansible.inventory.host import Host
from ansible.inventory.manager import InventoryManager
from ansible.module_utils.common.collections import ImmutableDict
from ansible.parsing.dataloader import DataLoader
from ansible.playbook import Playbook
from ansible.playbook.block import Block
from ansible.playbook.helpers import load_list_of_blocks
from ansible.playbook.play import Play
from ansible.playbook.task import Task
from ansible.plugins.loader import init_plugin_loader, lookup_loader
from ansible.template import Templar, trust_as_template
from ansible.vars.hostvars import HostVars
from ansible.vars.manager import VariableManager

# The modules of this project can be imported here as they can on a Pi.
ansible.module_utils.__path__.append(str(ROOT / "plugins/module_utils"))
sys.path += [str(ROOT / "plugins" / folder) for folder in ("modules", "module_utils")]

import host_state

# Variables that are registered or set while running carry this prefix; they tell of a run, not of a machine.
RUNNING = "__"
INCLUDE, SET_FACT, TEMPLATE = (f"ansible.builtin.{name}" for name in ("include_tasks", "set_fact", "template"))


class CannotRead(Exception):
    """What is wanted cannot be found out; the text says what is missing and what to do."""


class Step(NamedTuple):
    """One task that a converge would carry out: its action, its arguments as rendered, and where it stands."""

    action: str
    arguments: dict[str, Any]
    place: str
    templar: Templar

    def value(self, name: str) -> Any:
        """A variable as this task sees it. Raises KeyError when it is not set."""
        return plain(self.templar.template(self.templar.available_variables[name]))


class Site:
    """An inventory and the plays of `site.yml`. Everything in here raises CannotRead."""

    def __init__(self, inventory: str, extra_vars: tuple[str, ...] = (), ask: bool = True) -> None:
        """Read inventory and plays.

        `extra_vars` are what ansible-playbook takes after -e; `ask`: for the vault password, where none was given.
        """
        if not Path(inventory).exists():
            raise CannotRead(f"inventory {inventory}: there is no such file or folder")
        self.inventory = inventory
        trusted = tuple(trust_as_template(text) for text in extra_vars)
        context.CLIARGS = ImmutableDict(extra_vars=trusted, tags=("all",), skip_tags=(), check=False, diff=False)
        init_plugin_loader()
        self._loader = DataLoader()
        self._loader.set_basedir(str(ROOT))
        try:
            passwords = [C.DEFAULT_VAULT_PASSWORD_FILE] if C.DEFAULT_VAULT_PASSWORD_FILE else []
            self._passwords = CLI.setup_vault_secrets(
                self._loader, C.DEFAULT_VAULT_IDENTITY_LIST, passwords, auto_prompt=ask
            )
            self._loader.set_vault_secrets(self._passwords)
            self._manager = InventoryManager(loader=self._loader, sources=[inventory])
            self._variables = VariableManager(self._loader, self._manager, CLI.version_info(gitinfo=False))
            # From now on every machine knows the others' variables.
            HostVars(self._manager, self._variables, self._loader)
            self._plays = Playbook.load(str(ROOT / "site.yml"), self._variables, self._loader).get_plays()
        except AnsibleError as error:
            raise CannotRead(str(error)) from error

    def hosts(self) -> dict[str, list[str]]:
        """The machines that the plays are for, each with its groups."""
        found = {host.name: host for play in self._plays for host in self._manager.get_hosts(play.hosts)}
        if not found:
            raise CannotRead(f"inventory {self.inventory}: no host in it is in the group that site.yml is for (pis)")
        return {name: [group.name for group in host.get_groups()] for name, host in found.items()}

    def variables(self, name: str, wanted: list[str]) -> dict[str, Any]:
        """The wanted variables of a machine, rendered; those that are not set are left out."""
        known = self._variables.get_vars(host=self._manager.get_host(name))
        try:
            return plain(Templar(self._loader, known).template({key: known[key] for key in wanted if key in known}))
        except AnsibleError as error:
            raise CannotRead(str(error)) from error

    def secrets(self, name: str) -> dict[str, str]:
        """All secrets that a machine's vault file holds. Raises CannotRead."""
        return self._open({"path": self.variables(name, ["secrets_file"])["secrets_file"], "names": []})

    def steps(self, name: str, facts: Mapping[str, Any]) -> Iterator[Step]:
        """Every task of `site.yml` for a machine whose `ansible_facts.pi` are `facts`, each once.

        Conditions and loops are evaluated, `set_fact` and the reading of the vault are carried out, nothing else is.
        Roles skip what they know to be done already: here they know of nothing.
        """
        host = self._manager.get_host(name)
        self._variables.set_host_facts(name, {"pi": dict(facts), "pi_state": host_state.UNKNOWN})
        seen: set[str] = set()
        try:
            for play in self._plays:
                if host not in self._manager.get_hosts(play.hosts):
                    continue
                for task in self._tasks(play.compile(), play, host):
                    # A role that several others depend on says the same each time.
                    if task.get_path() not in seen:
                        seen.add(task.get_path())
                        yield from self._rounds(task, play, host)
        except AnsibleError as error:
            raise CannotRead(str(error)) from error

    def _tasks(self, blocks: list[Block], play: Play, host: Host) -> Iterator[Task]:
        """The tasks of blocks in their order, with those that are included while running."""
        for block in blocks:
            for entry in [*block.block, *block.always]:
                if isinstance(entry, Block):
                    yield from self._tasks([entry], play, host)
                elif entry.resolved_action == INCLUDE:
                    yield from self._included(entry, play, host)
                # Tasks that Ansible itself adds have no name or no file of their own.
                elif entry.name and not entry.implicit:
                    yield entry

    def _included(self, task: Task, play: Play, host: Host) -> Iterator[Task]:
        templar = self._templar(task, play, host)
        if not applies(task, templar):
            return
        file = Path(task.get_path().rpartition(":")[0]).parent / templar.template(task.args["_raw_params"])
        blocks = load_list_of_blocks(
            self._loader.load_from_file(str(file), trusted_as_template=True),
            play,
            parent_block=task.build_parent_block(),
            role=task._role,
            variable_manager=self._variables,
            loader=self._loader,
        )
        yield from self._tasks(blocks, play, host)

    def _rounds(self, task: Task, play: Play, host: Host) -> Iterator[Step]:
        """A task, or every round of its loop."""
        templar = self._templar(task, play, host)
        if task.loop_with:
            raise CannotRead(f"{task.get_path()}: the audit cannot read with_{task.loop_with}; write it as a loop")
        if task.loop is None:
            yield from self._round(task, templar, host)
            return
        for item in templar.template(task.loop):
            known = {**templar.available_variables, task.loop_control.loop_var or "item": item}
            yield from self._round(task, Templar(self._loader, known), host)

    def _round(self, task: Task, templar: Templar, host: Host) -> Iterator[Step]:
        action = task.resolved_action
        if task.delegate_to == "localhost":
            # Leaves nothing on the machine.
            return
        if action == SET_FACT:
            kept = {name: value for name, value in task.args.items() if not name.startswith(RUNNING)}
            if kept and applies(task, templar):
                self._variables.set_nonpersistent_facts(host.name, plain(templar.template(kept)))
        elif action not in NO_STATE and applies(task, templar):
            defaults = [entry[action] for entry in task.module_defaults if action in entry]
            given = {name: value for part in (*defaults, task.args) for name, value in part.items()}
            arguments = plain(templar.template(given))
            if action == "vault_secrets":
                # A plain name, or in newer versions of Ansible a mapping from names.
                name = task.register if isinstance(task.register, str) else next(iter(task.register))
                self._variables.set_nonpersistent_facts(host.name, {name: {"secrets": self._open(arguments)}})
                return
            if action == TEMPLATE:
                lookup = lookup_loader.get(TEMPLATE, loader=self._loader, templar=templar)
                arguments["content"] = str(lookup.run([arguments["src"]], variables=templar.available_variables)[0])
            yield Step(action, arguments, task.get_path(), templar)

    def _templar(self, task: Task, play: Play, host: Host) -> Templar:
        """Renders with all variables as the task sees them."""
        known = self._variables.get_vars(play=play, host=host, task=task)
        return Templar(self._loader, {**known, "ansible_search_path": [*task.get_search_path(), str(ROOT)]})

    def _open(self, arguments: Mapping[str, Any]) -> dict[str, str]:
        """The secrets that `vault_secrets` hands out, as far as they are made already."""
        path = Path(arguments["path"]).resolve()
        if not self._passwords:
            raise CannotRead(f"{path}: no vault password was given; set ANSIBLE_VAULT_PASSWORD_FILE")
        try:
            stored = plain(self._loader.load_from_file(str(path))) if path.exists() else {}
        except AnsibleError as error:
            raise CannotRead(f"{path}: the vault password does not open this file ({error})") from error
        secrets: dict[str, str] = {**stored, **arguments.get("values", {})}
        if missing := [name for name in arguments["names"] if name not in secrets]:
            raise CannotRead(f"{path}: lacks {', '.join(missing)}; this machine was never set up, run site.yml first")
        return secrets


def applies(task: Task, templar: Templar) -> bool:
    """Whether the task's conditions are met."""
    return all(templar.evaluate_conditional(condition) for condition in task.when)


def plain(value: Any) -> Any:
    """A rendered value without Ansible's own types."""
    return json.loads(json.dumps(value))


# Actions that leave nothing on the Pi, or nothing that another step does not describe: a command's outcome is seen in
# what it is for, Compose's in its files and in what runs.
NO_STATE = {
    *(
        f"ansible.builtin.{name}"
        for name in (
            "assert",
            "command",
            "debug",
            "fail",
            "include_role",
            "meta",
            "shell",
            "wait_for",
            "wait_for_connection",
        )
    ),
    "ansible.builtin.validate_argument_spec",
    "image_built",
    "leftovers",
    "paths_absent",
    "pi_facts",
    "pi_soak",
    "preflight_inventory",
}
