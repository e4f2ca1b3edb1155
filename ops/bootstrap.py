#!/usr/bin/env python3
"""A key and Python for a machine that lets in by a password: what Ansible needs to go on, and nothing else.

`bootstrap.py INVENTORY HOST` comes in as `ansible_user` with pyinfra. The password is asked for, or taken from the file
that BOOTSTRAP_PASSWORD_FILE names; where the key opens and Python is there already, none is needed. Ends with 0, or 1
where the machine cannot be brought that far.
"""

from __future__ import annotations

import os

# Ansible tries out, while it is imported, a call that may fail; gevent's own resolver would complain about it.
os.environ.setdefault("GEVENT_RESOLVER", "block")

from gevent import monkey

# pyinfra waits for answers in greenlets: without this no time limit would hold.
monkey.patch_all()

import argparse
import getpass
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

from ansible_connector import connection
from declared import ROOT, CannotRead, Site
from first_boot import Machine
from pyinfra.api.config import Config
from pyinfra.api.exceptions import ConnectError, PyinfraError
from pyinfra.api.host import Host
from pyinfra.api.inventory import Inventory
from pyinfra.api.operation import add_op
from pyinfra.api.operations import run_ops
from pyinfra.api.state import State
from pyinfra.context import ctx_host, ctx_state
from pyinfra.facts.server import Command, Which
from pyinfra.operations import apt, server

CONNECT_SECONDS = 20
CONNECTION = [
    *("ansible_host", "ansible_port", "ansible_user", "ansible_ssh_private_key_file"),
    *("ansible_ssh_common_args", "ansible_ssh_extra_args"),
]


class Reached(NamedTuple):
    """How far a connection by the key came: `problem` is empty where it opened."""

    problem: str
    python: str = ""
    sudo: bool = False


def by_key(inventory: str, host: str) -> Reached:
    """Come in as Ansible will, by the key alone, and look for what it needs."""
    look = "command -v python3; sudo --non-interactive true 2>/dev/null && echo sudo"
    done = subprocess.run(
        [
            *("ansible", host, "--inventory", inventory, "--module-name", "ansible.builtin.raw"),
            *("--args", f"{look}; true", "--ssh-common-args=-o StrictHostKeyChecking=yes"),
        ],
        cwd=ROOT,
        env={**os.environ, "ANSIBLE_SSH_RETRIES": "0", "ANSIBLE_NOCOLOR": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        return Reached(" ".join(done.stdout.split())[-400:])
    words = done.stdout.partition(">>")[2].split()
    return Reached("", next((word for word in words if word.startswith("/")), ""), "sudo" in words)


def password(target: str) -> str:
    """What lets in. Raises CannotRead where nobody can be asked."""
    if file := os.environ.get("BOOTSTRAP_PASSWORD_FILE", ""):
        return Path(file).read_text(encoding="utf-8").rstrip("\n")
    if not sys.stdin.isatty():
        raise CannotRead("no password: call this in a terminal, or set BOOTSTRAP_PASSWORD_FILE to a file with it")
    return getpass.getpass(f"Password of {target}: ")


def connected(name: str, data: dict[str, Any], target: str) -> tuple[State, Host]:
    """A connection by the password. Raises CannotRead, which says what to do."""
    state = State(Inventory(([(name, data)], {})), Config(CONNECT_TIMEOUT=CONNECT_SECONDS))
    host = state.inventory.get_host(name)
    try:
        host.connect(show_errors=False, raise_exceptions=True)
    except ConnectError as error:
        told = str(error.args[0])
        if "known_hosts" in told:
            raise CannotRead(
                f"{target}: its host key is not known, and a password is for nobody else; run ssh {target} once, "
                "compare the fingerprint with the one on its screen, and call this again"
            ) from error
        if "Authentication" in told:
            raise CannotRead(f"{target}: does not take this password; correct it, or ansible_user") from error
        raise CannotRead(f"{target}: {told}; is it on, and is ansible_host right?") from error
    state.activate_host(host)
    return state, host


def install(state: State, host: Host, machine: Machine, secret: str) -> None:
    """The keys, and Python where there is none. Raises PyinfraError."""
    with ctx_state.use(state), ctx_host.use(host):
        group = host.get_fact(Command, command="id -gn")
        python = host.get_fact(Which, command="python3")
    add_op(
        state,
        server.user_authorized_keys,
        name="Let the keys in",
        user=machine.user,
        group=group,
        public_keys=list(machine.keys),
    )
    if not python:
        # It is asked for the password wherever sudo wants one.
        root: dict[str, Any] = {"_sudo": True, "_sudo_password": secret}
        add_op(state, apt.packages, name="Install Python", packages=["python3"], update=True, **root)
    run_ops(state)


def bootstrap(inventory: str, name: str) -> Reached:
    """Bring the machine so far that Ansible can come in; how it does. Raises CannotRead, PyinfraError."""
    site = Site(inventory, ask=False)
    machine = Machine.of(site, name)
    found = by_key(inventory, name)
    if found.problem or not found.python:
        target = f"{machine.user}@{machine.host}"
        secret = password(target)
        data = connection(site.variables(name, CONNECTION))
        # The password alone: a key that does not open, or asks for a passphrase, would only be in the way.
        data.pop("ssh_key", None)
        data |= {"ssh_allow_agent": False, "ssh_look_for_keys": False, "ssh_strict_host_key_checking": "yes"}
        state, host = connected(name, {**data, "ssh_password": secret}, target)
        try:
            install(state, host, machine, secret)
        finally:
            host.disconnect()
        found = by_key(inventory, name)
    if found.problem:
        raise CannotRead(f"the key was installed and does not open all the same: {found.problem}")
    if not found.python:
        raise CannotRead("the key opens, but there is no python3; install it (apt install python3)")
    return found


def main() -> int:
    """Entry point; the exit code."""
    parser = argparse.ArgumentParser(description="Give a machine that lets in by a password a key and Python.")
    parser.add_argument("inventory")
    parser.add_argument("host")
    given = parser.parse_args()
    logging.getLogger("pyinfra").setLevel(logging.ERROR)
    try:
        found = bootstrap(given.inventory, given.host)
    except (CannotRead, PyinfraError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{given.host}: the key opens, Python is {found.python}")
    if not found.sudo:
        print("sudo wants a password: add --ask-become-pass to the calls of ansible-playbook")
    return 0


if __name__ == "__main__":
    sys.exit(main())
