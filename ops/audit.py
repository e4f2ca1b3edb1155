"""What is wrong with the machines of an inventory? Looks, touches nothing, needs no Python on the Pi.

    python ops/audit.py inventory/production [-e name=value ...]

A pyinfra deploy over the inventory of Ansible (connector `@ansible`, see ansible_connector.py). What is wanted is what
the tasks of site.yml would do, rendered here (declared.py); what is found comes in two calls over one SSH connection.
Exit code: 0 all is well, 1 something is wrong, 2 not everything could be looked at.
"""

from __future__ import annotations

import os
import time

# Loading Ansible and pyinfra is part of the time people wait.
STARTED = time.monotonic()
# Ansible tries out, while it is imported, a call that may fail; gevent's own resolver would complain about it.
os.environ.setdefault("GEVENT_RESOLVER", "block")

from gevent import monkey

# pyinfra waits for answers in greenlets: without this no time limit would hold.
monkey.patch_all()

import argparse
import logging
import secrets
import sys

import checks
import gevent
import network_state
from ansible.errors import AnsibleError
from ansible_connector import site
from apt_mirrors import find_mirrors
from checks.base import Check
from declared import CannotRead, Site
from facts import Answers
from gather import Answer
from pyinfra.api.config import Config
from pyinfra.api.exceptions import PyinfraError
from pyinfra.api.host import Host
from pyinfra.api.inventory import Inventory
from pyinfra.api.state import State
from pyinfra.context import ctx_host, ctx_state
from report import BLIND, UNKNOWN, Finding, Row, exit_code, table, totals, worst

CONNECT_SECONDS = 10
# For all questions of one call; each has a limit of its own, see gather.py.
ANSWER_SECONDS = 120
# What the roles want to know about a machine before they decide (ansible_facts.pi).
_RELEASE = {
    "release": "cat /etc/os-release",
    "sources": "for file in /etc/apt/sources.list /etc/apt/sources.list.d/*; do "
    '[ ! -f "$file" ] || { echo "file|$file"; cat "$file"; }; done',
    "sshd": "sshd -T",
    "socket": "systemctl show --property ActiveState --value ssh.socket",
    "addresses": "ip -json address",
    "ipv6": "cat /proc/sys/net/ipv6/conf/default/disable_ipv6",
    "kernel": "uname -r",
    "wireguard": "modules=/lib/modules/$(uname -r); if [ -d /sys/module/wireguard ] || "
    r"""grep -qs '/wireguard\.ko' "$modules/modules.builtin" "$modules/modules.dep"; then echo yes; fi""",
}


def ask(host: Host, questions: dict[str, str]) -> dict[str, Answer]:
    """Answers by name. Raises CannotRead when the machine cannot be asked."""
    try:
        with ctx_state.use(host.state), ctx_host.use(host):
            found = host.get_fact(Answers, questions=questions, mark=secrets.token_hex(16), _timeout=ANSWER_SECONDS)
    except EOFError:
        raise CannotRead("sudo wants a password that nobody is there to type; set ansible_become_password") from None
    if missing := [name for name in questions if name not in found]:
        raise CannotRead(f"no answer to {', '.join(missing)}")
    return found


def facts(answers: dict[str, Answer]) -> dict[str, object]:
    """What `pi_facts` says, as far as roles decide by it."""
    lines = [line.split("=", 1) for line in answers["release"].output.splitlines() if "=" in line]
    release = {key: value.strip("\"'") for key, value in lines}
    parts = [part.split("\n", 1) for part in ("\n" + answers["sources"].output).split("\nfile|") if part]
    mirrors = find_mirrors(dict(parts), release.get("VERSION_CODENAME", ""))
    network = network_state.state(
        answers["addresses"].output, answers["sshd"].output, socket=answers["socket"].output.strip() == "active"
    )
    return {
        "os_id": release.get("ID"),
        "os_version": release.get("VERSION_ID"),
        "apt_mirror": mirrors.main,
        "network": network,
        "ipv6": answers["ipv6"].output.strip() == "0",
        "wireguard_module": answers["wireguard"].output.strip() == "yes",
        "kernel": answers["kernel"].output.strip(),
    }


def audit(host: Host, plays: Site) -> list[Row]:
    """All rows of one machine; where it cannot be looked at, one row that says why."""
    try:
        steps = list(plays.steps(host.name, facts(ask(host, _RELEASE))))
        made = checks.make(steps)
        questions = {check.name: question for check in made if (question := check.question())}
        found = ask(host, questions)
    except (CannotRead, PyinfraError, AnsibleError) as problem:
        return [Row("machine", "", [Finding(UNKNOWN, str(problem), "nothing was looked at")])]
    return [judge(check, found.get(check.name, Answer(0, ""))) for check in made]


def judge(check: Check, answer: Answer) -> Row:
    """The row of one check; a question that failed, or whose answer cannot be read, leaves it unknown."""
    if answer.status:
        text = answer.complaint or f"exit code {answer.status}"
        return Row(check.name, "", [Finding(UNKNOWN, f"could not look: {text}")])
    try:
        findings = list(check.judge(answer))
        return Row(check.name, "" if findings else check.summary(answer), findings)
    except (ValueError, LookupError) as problem:
        return Row(check.name, "", [Finding(UNKNOWN, f"the answer cannot be read: {problem!r}")])


def main() -> int:
    """Read the command line, look at every machine, print the tables."""
    parser = argparse.ArgumentParser(description="Look at what site.yml set up, touch nothing.")
    parser.add_argument("inventory", help="the inventory that site.yml is run with")
    parser.add_argument("-e", "--extra-vars", action="append", default=[], help="as ansible-playbook takes them")
    options = parser.parse_args()
    try:
        plays = site(options.inventory, tuple(options.extra_vars))
        inventory = Inventory(([f"@ansible/{options.inventory}"], {}))
    except (CannotRead, PyinfraError) as problem:
        print(f"nothing was looked at: {problem}", file=sys.stderr)
        return BLIND
    # pyinfra would say on standard error what the report says.
    logging.getLogger("pyinfra").setLevel(logging.CRITICAL)
    # Made known to the hosts by being made.
    State(inventory, Config(CONNECT_TIMEOUT=CONNECT_SECONDS, SUDO=True))
    jobs = {host: gevent.spawn(audit, host, plays) for host in inventory}
    gevent.joinall(jobs.values(), raise_error=True)
    for host, job in jobs.items():
        print(f"{host.name}\n{table(job.value, f'ansible-playbook -i {options.inventory} site.yml')}\n")
        print(f"{host.name}: {totals(job.value)} ({time.monotonic() - STARTED:.1f} s)")
    return worst(exit_code(job.value) for job in jobs.values())


if __name__ == "__main__":
    sys.exit(main())
