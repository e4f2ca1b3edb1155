"""No secret comes to light: not in what talkative runs print, nor anywhere on the Pi or the controller."""

from __future__ import annotations

import json
import secrets
import subprocess
from dataclasses import dataclass
from pathlib import Path

import leaks
import machine
import pytest


@dataclass(frozen=True)
class Talk:
    """Runs that say all they can, and what processes showed meanwhile."""

    outputs: dict[str, str]
    processes: dict[str, str]


def canary() -> str:
    """A secret nobody has seen, strong enough for every policy."""
    return f"Aa1-{secrets.token_hex(16)}"


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """All secrets of the machine by name."""
    return machine.secrets()


@pytest.fixture(scope="module")
def canaries() -> dict[str, str]:
    """Secrets that somebody gives to a run."""
    return {name: canary() for name in ("n8n_owner_password", "redis_admin_password", "credential", "shop_db_password")}


@pytest.fixture(scope="module")
def given(canaries: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of variables that passes the canaries, and a certificate's key, to a run."""
    folder = tmp_path_factory.mktemp("given")
    key, certificate, variables = folder / "key.pem", folder / "cert.pem", folder / "variables.json"
    made = machine.run(
        *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
        *("-days", "90", "-subj", "/CN=canary", "-addext", f"subjectAltName=IP:{machine.ADDRESS}"),
        *("-keyout", str(key), "-out", str(certificate)),
    )
    assert made.status == 0, made.output
    canaries["proxy_certificate_key"] = key.read_text().splitlines()[1]
    credential = {"id": "piCanary00000001", "name": "Canary", "type": "httpHeaderAuth", "data": {"name": "x-canary"}}
    values = {name: canaries[name] for name in ("n8n_owner_password", "redis_admin_password", "shop_db_password")}
    variables.write_text(
        json.dumps(
            {
                "secrets_values": values,
                "workflows_credentials": [{**credential, "secrets": {"value": canaries["credential"]}}],
                "proxy_certificate": certificate.read_text(),
                "proxy_certificate_key": key.read_text(),
            }
        )
    )
    return variables


@pytest.fixture(scope="module")
def talk(first_run: machine.Finished, given: Path) -> Talk:
    """A run and a check with new secrets, both as talkative as Ansible is without debugging its connection."""
    with leaks.watched() as watched:
        run = machine.playbook("site.yml", "--diff", "-vvv")
        check = machine.playbook("site.yml", "--check", "--diff", "-vvv", "--extra-vars", f"@{given}")
    for finished in (run, check):
        assert finished.status == 0, finished.output[-4000:]
    assert "/etc/pi-commerce/secrets/n8n_owner_password_hash" in check.output
    return Talk({"first run": first_run.output, "run": run.output, "check": check.output}, watched.texts)


def test_secrets_are_too_long_to_guess(known: dict[str, str]) -> None:
    assert len(known) >= 8
    assert [name for name, value in known.items() if len(value) < 22] == []


@pytest.mark.parametrize("kind", ["first run", "run", "check"])
def test_no_secret_in_what_runs_print(talk: Talk, kind: str, known: dict[str, str], canaries: dict[str, str]) -> None:
    assert leaks.in_text(known, talk.outputs[kind]) == set()
    assert leaks.in_text(canaries, talk.outputs[kind]) == set()


@pytest.mark.parametrize("place", ["Pi", "controller"])
def test_no_secret_in_what_processes_show(
    talk: Talk, place: str, known: dict[str, str], canaries: dict[str, str]
) -> None:
    """Of all processes that were there while the machine was run and checked."""
    assert "pi-commerce" in talk.processes[place]
    assert leaks.in_text(known, talk.processes[place]) == set()
    assert leaks.in_text(canaries, talk.processes[place]) == set()


@pytest.mark.usefixtures("talk")
def test_no_secret_on_the_pi_outside_its_files(known: dict[str, str], canaries: dict[str, str]) -> None:
    for asked in (known, canaries):
        assert leaks.in_places(asked, leaks.PI_PLACES) == set()


@pytest.mark.usefixtures("talk")
def test_no_secret_on_the_controller_outside_the_vault(known: dict[str, str], canaries: dict[str, str]) -> None:
    for asked in (known, canaries):
        assert leaks.in_places(asked, leaks.CONTROLLER_PLACES, here=True) == set()


def test_a_leak_is_found_in_every_place_on_the_pi() -> None:
    leak = canary()
    image = machine.pi("docker inspect --format '{{.Config.Image}}' pi-commerce-rate_limiter-1").strip()
    planted = {
        "journal": f"logger {leak}; journalctl --sync",
        "logs": f"echo {leak} > /var/log/pi-commerce-leak",
        "containers": f"docker create --name pi-commerce-leak --env LEAK={leak} {image} true",
        "images": f"tar --create --files-from /dev/null | docker import --change 'ENV LEAK={leak}' - pi-commerce-leak",
        "container logs": f"docker run --name pi-commerce-leak --network none {image} echo {leak}",
        "configuration": f"echo {leak} > /etc/pi-commerce/compose/leak",
        "left behind": f"mkdir -p ~pi/.ansible/tmp/leak && echo {leak} > ~pi/.ansible/tmp/leak/arguments",
        "engine": f"docker create --name pi-commerce-leak --label leak={leak} {image} true",
    }
    assert planted.keys() == leaks.PI_PLACES.keys()
    try:
        for place, shell in planted.items():
            machine.pi(f"docker rm pi-commerce-leak > /dev/null 2>&1\n{shell}")
            found = leaks.in_places({"leak": leak}, {place: leaks.PI_PLACES[place]})
            assert found == {(place, "leak")}, place
    finally:
        machine.pi(
            "docker rm pi-commerce-leak; docker rmi pi-commerce-leak\n"
            "rm -r /var/log/pi-commerce-leak /etc/pi-commerce/compose/leak ~pi/.ansible/tmp/leak"
        )


def test_a_leak_is_found_in_every_place_on_the_controller(tmp_path: Path) -> None:
    leak = canary()
    repository = tmp_path / "repository"
    author = ("-c", "user.name=Leak", "-c", "user.email=leak@example.com")
    for command in (
        ("git", "init", "--quiet", str(repository)),
        ("git", "-C", str(repository), *author, "commit", "--quiet", "--allow-empty", "--message", leak),
    ):
        assert machine.run(*command).status == 0
    places = {
        name: shell.replace(str(machine.ROOT), str(repository)) for name, shell in leaks.CONTROLLER_PLACES.items()
    }
    folder = tmp_path / "ansible-local-leak"
    folder.mkdir()
    (folder / "arguments").write_text(leak)
    assert leaks.in_places({"leak": leak}, places, here=True) == {(place, "leak") for place in places}


def test_a_leak_is_found_in_what_processes_show() -> None:
    """In a command line, and in an environment, on both machines."""
    leak = {name: canary() for name in ("argument", "environment")}
    shell = f"LEAK={leak['environment']} bash -c 'sleep 1 # {leak['argument']}\n:'"
    with leaks.watched() as watched:
        subprocess.run(["bash", "-c", shell], check=True)
        here = {name: canary() for name in leak}
        machine.pi(shell.replace(leak["argument"], here["argument"]).replace(leak["environment"], here["environment"]))
    assert leaks.in_text(leak, watched.texts["controller"]) == set(leak)
    assert leaks.in_text(here, watched.texts["Pi"]) == set(here)


def test_a_leak_is_found_in_any_form() -> None:
    leak = {"leak": canary()}
    quoted = leak["leak"].replace("-", "%2D")
    assert leaks.in_text(leak, f"before{leak['leak']}after") == {"leak"}
    assert leaks.in_text({"leak": "a/b+c" * 6}, "a%2Fb%2Bc" * 6) == {"leak"}
    for user in ("", "a", "ab", "abc"):
        encoded = subprocess.run(
            ["base64", "--wrap=0"], input=f"{user}:{leak['leak']}:".encode(), stdout=subprocess.PIPE, check=True
        ).stdout.decode()
        assert leaks.in_text(leak, encoded) == {"leak"}
    assert leaks.in_text(leak, quoted) == set()
