"""The virtual Pi under test: made from nothing for the test run, so that a demo machine is never touched."""

from __future__ import annotations

import functools
import json
import os
import re
import ssl
import subprocess
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
STATE = ROOT / os.environ.get("PI_TEST_STATE", ".virtual-pi-test")
# What `make` takes for the Pi: a container, or a virtual machine.
KIND = os.environ.get("PI_KIND", "container")
# Seconds a command may take; an emulated machine is some ten times slower.
PATIENCE = 6 * 3600 if KIND == "vm" else 1800
INVENTORY = f"inventory/{'vm' if KIND == 'vm' else 'virtual'}"
NETWORK = os.environ.get("PI_TEST_NETWORK", "10.214.0")
ADDRESS = f"{NETWORK}.10"
ENVIRONMENT = {
    **os.environ,
    "PI_STATE": str(STATE),
    "PI_KIND": KIND,
    "PI_NAME": os.environ.get("PI_TEST_NAME", "pi-commerce-test"),
    "PI_NETWORK": NETWORK,
    "PI_ADDRESS": ADDRESS,
    "ANSIBLE_VAULT_PASSWORD_FILE": str(STATE / "vault-password"),
    "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
    "ANSIBLE_NOCOLOR": "1",
    "PATH": f"{ROOT / '.venv/bin'}:{os.environ['PATH']}",
}


# Variables for a command; None takes one away.
Environment = dict[str, str | None]


@dataclass(frozen=True)
class Finished:
    """A command that ended: exit status and what it printed."""

    status: int
    output: str
    errors: str = ""


def run(
    *command: str,
    timeout: float = PATIENCE,
    stdin: str = "",
    environment: Environment | None = None,
    apart: bool = False,
) -> Finished:
    """Run a command in the repository with the test machine's settings; a variable that is None is not set.

    What it writes to standard error stands in `output` where it came, or `apart` in `errors`.
    """
    settings = {**ENVIRONMENT, **(environment or {})}
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={name: value for name, value in settings.items() if value is not None},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE if apart else subprocess.STDOUT,
        input=stdin,
        text=True,
        timeout=timeout,
        check=False,
    )
    return Finished(done.returncode, done.stdout, done.stderr or "")


def make(target: str) -> Finished:
    """Run a make target; it must succeed."""
    finished = run("make", target)
    assert finished.status == 0, finished.output[-6000:]
    return finished


def playbook(name: str, *arguments: str, **environment: str | None) -> Finished:
    """Run a playbook on the test machine."""
    command = ("ansible-playbook", "-i", INVENTORY, name, *arguments)
    return run(*command, environment=environment)


def audit(*arguments: str, environment: Environment | None = None) -> Finished:
    """Look at the test machine as `make audit` does."""
    return run("python", "ops/audit.py", INVENTORY, *arguments, environment=environment)


def recap(output: str) -> dict[str, int]:
    """The counters of the last `PLAY RECAP` line."""
    line = [line for line in output.splitlines() if re.match(r"^shop-pi\s+:", line)][-1]
    return {key: int(value) for key, value in re.findall(r"(\w+)=(\d+)", line)}


def unseal() -> str:
    """The text of the vault file."""
    shown = run("ansible-vault", "view", str(STATE / "secrets.vault.yml"))
    assert shown.status == 0, shown.output
    return shown.output


def seal(plain: str) -> None:
    """Write the vault file anew."""
    sealed = run("ansible-vault", "encrypt", "--output", str(STATE / "secrets.vault.yml"), "-", stdin=plain)
    assert sealed.status == 0, sealed.output


def secrets() -> dict[str, str]:
    """All secrets of the machine, as the owner reads them."""
    lines = (line.split(": ", 1) for line in unseal().splitlines() if ": " in line)
    return {key: value.strip("'\"") for key, value in lines}


def ssh(command: str, state: Path = STATE, address: str = ADDRESS) -> tuple[str, ...]:
    """What to run here for a command there."""
    # A machine that hangs answers no more, and closes nothing either: after two minutes it is given up.
    alive = ("-o", "ServerAliveInterval=20", "-o", "ServerAliveCountMax=6")
    options = ("-i", str(state / "id_ed25519"), "-o", "IdentitiesOnly=yes", *alive)
    return ("ssh", *options, "-o", f"UserKnownHostsFile={state / 'known_hosts'}", f"pi@{address}", command)


def pi(command: str, check: bool = True) -> str:
    """Output of a shell command on the Pi, as root, through SSH."""
    done = run(*ssh("sudo bash -s"), stdin=command, timeout=PATIENCE / 6, apart=True)
    assert not check or done.status == 0, f"{command}: {done.output}{done.errors}"
    return done.output


def psql(database: str, sql: str) -> str:
    """One query's unaligned answer."""
    shell = f"docker exec -i pi-commerce-postgres-1 psql -U postgres -XAt -d {database} <<'SQL'\n{sql}\nSQL"
    return pi(shell).strip()


def unwell() -> str:
    """The services that are not healthy, each with what Docker says of it."""
    mine = "label=com.docker.compose.project=pi-commerce"
    shown = pi(f"docker ps --all --filter {mine} --format '{{{{.Names}}}}: {{{{.Status}}}}'", check=False).splitlines()
    return ", ".join(line for line in shown if not line.endswith("(healthy)")) if shown else "there are no services"


@dataclass
class Answer:
    """An HTTP answer."""

    status: int
    body: str
    headers: dict[str, str] = field(default_factory=dict)

    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


def request(path: str, body: Any = None, headers: dict[str, str] | None = None, method: str | None = None) -> Answer:
    """Call the entrance from outside. The certificate is the self-signed first one, read from the Pi and trusted."""
    context = ssl.create_default_context(cadata=certificate())
    data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
    sent = urllib.request.Request(
        f"https://{ADDRESS}{path}",
        data=data,
        method=method,
        headers={"Content-Type": "application/json", **(headers or {})},
    )
    try:
        with urllib.request.urlopen(sent, context=context, timeout=60) as answer:
            return Answer(answer.status, answer.read().decode(), dict(answer.headers))
    except urllib.error.HTTPError as refused:
        return Answer(refused.code, refused.read().decode(), dict(refused.headers))


def order(document: Any) -> Answer:
    """Hand an order to n8n's workflow from outside, as the webhook handler hands it on from inside."""
    return request("/webhook/order-intake", document, {"X-Webhook-Token": _order_token()})


@functools.cache
def _order_token() -> str:
    return secrets()["webhook_consumer_orders"]


def certificate() -> str:
    """The proxy's certificate, fetched over SSH and not from the connection it is to prove."""
    cached = STATE / "proxy-cert.pem"
    if not cached.exists():
        cached.write_text(pi("cat /etc/pi-commerce/proxy/tls/cert.pem"))
    return cached.read_text()
