"""What the scenarios' tests share: the scenario's variables, a way to the controller and one to the entrance."""

from __future__ import annotations

import json
import os
import shlex
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from testinfra.host import Host

ROOT = Path(__file__).resolve().parents[1]


def load(path: Path) -> dict[str, Any]:
    """A YAML file's mapping, or an empty one where there is no file."""
    return yaml.safe_load(path.read_text()) or {} if path.exists() else {}


@pytest.fixture(scope="session")
def scenario() -> str:
    """The scenario's name, for example `base-alternative`."""
    return os.environ["MOLECULE_SCENARIO_NAME"]


@pytest.fixture(scope="session")
def variables(scenario: str) -> dict[str, Any]:
    """The variables in force, as they are written: the role's defaults, the inventory's, the scenario's own."""
    # As Molecule reads it: $$ is a dollar sign.
    own = yaml.safe_load((ROOT / "molecule" / scenario / "molecule.yml").read_text().replace("$$", "$"))
    merged = load(ROOT / "roles" / scenario.split("-")[0] / "defaults/main.yml")
    for path in sorted((ROOT / "inventory/virtual/group_vars/all").glob("*.yml")):
        merged |= load(path)
    return {
        **merged,
        **own.get("provisioner", {}).get("inventory", {}).get("group_vars", {}).get("pis", {}),
    }


@pytest.fixture(scope="session")
def facts() -> dict[str, Any]:
    """What the role learned: `pi` (role facts) and `catalog_data` (role catalog), by roles that only read."""
    found: dict[str, Any] = json.loads((Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"]) / "facts.json").read_text())
    return found


Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def control() -> Run:
    """Runs a command of the project on the controller, for this run's machine; errors stand in its output."""

    def run(*command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            cwd=ROOT,
            env={**os.environ, "ANSIBLE_NOCOLOR": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
            check=False,
        )

    return run


@pytest.fixture(scope="session")
def apply(control: Run) -> Run:
    """Applies a role to the machine, with variables that differ from the inventory's."""

    def run(role: str, **variables: object) -> subprocess.CompletedProcess[str]:
        task = ("-m", "ansible.builtin.include_role", "-a", f"name={role}", "-e", json.dumps(variables))
        return control("ansible", "pis", "-i", "inventory/virtual", "--become", *task)

    return run


@pytest.fixture(scope="session")
def secrets(control: Run, variables: dict[str, Any]) -> dict[str, str]:
    """All secrets of the machine, as its owner reads them."""
    state = os.environ["PI_STATE"]
    shown = control("ansible-vault", "view", variables["secrets_file"].replace("{{ virtual_pi_state }}", state))
    assert shown.returncode == 0, shown.stdout
    found: dict[str, str] = yaml.safe_load(shown.stdout)
    return found


class Answer(NamedTuple):
    """An HTTP answer."""

    status: int
    body: str


Ask = Callable[..., Answer]


@pytest.fixture
def entrance(host: Host) -> Ask:
    """Asks the machine's entrance from outside, over TLS with the certificate that lies on the machine."""
    trusted = host.file("/etc/pi-commerce/proxy/tls/cert.pem").content_string
    context = ssl.create_default_context(cadata=trusted)

    def ask(path: str, body: object = None, headers: dict[str, str] | None = None, port: int = 443) -> Answer:
        data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        url = f"https://{os.environ['PI_ADDRESS']}:{port}{path}"
        request = urllib.request.Request(url, data, {"content-type": "application/json", **(headers or {})})
        try:
            with urllib.request.urlopen(request, context=context, timeout=60) as answer:
                return Answer(answer.status, answer.read().decode())
        except urllib.error.HTTPError as refused:
            return Answer(refused.code, refused.read().decode())

    return ask


@pytest.fixture
def awaken(host: Host) -> Callable[[str], None]:
    """Waits until a service passes its own health check, which is run at once instead of at its next turn."""

    def wait(service: str) -> None:
        container = f"pi-commerce-{service}-1"
        test = json.loads(
            host.check_output("docker inspect --format '{{json .Config.Healthcheck.Test}}' %s", container)
        )
        command = " ".join(map(shlex.quote, ["docker", "exec", container, *test[1:]]))
        deadline = time.monotonic() + 120
        while host.run(command).rc != 0:
            assert time.monotonic() < deadline, f"{service} is not back"
            time.sleep(0.2)

    return wait
