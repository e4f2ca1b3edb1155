"""No secret comes to light: not in what talkative runs print, nor anywhere on the Pi or the controller."""

from __future__ import annotations

import subprocess
from pathlib import Path

import leaks
import machine
import pytest
from talk import Talk, canary


def test_secrets_are_too_long_to_guess() -> None:
    known = machine.secrets()
    assert len(known) >= 8
    assert [name for name, value in known.items() if len(value) < 22] == []


def test_no_secret_in_what_runs_print(talk: Talk) -> None:
    # Else the check had nothing to tell about the secrets it was given.
    for words in ("/etc/pi-commerce/secrets/n8n_owner_password_hash", "tls/key.pem", "import credential Canary"):
        assert words in talk.outputs["check"], words
    found = {kind: leaks.in_text(talk.known, output) for kind, output in talk.outputs.items()}
    assert {kind: names for kind, names in found.items() if names} == {}


@pytest.mark.parametrize("place", ["Pi", "controller"])
def test_no_secret_in_what_processes_show(talk: Talk, place: str) -> None:
    """Of all processes that were there while the machine was run and checked."""
    assert "pi-commerce" in talk.processes[place]
    assert leaks.in_text(talk.known, talk.processes[place]) == set()


def test_no_secret_on_the_pi_outside_its_files(talk: Talk) -> None:
    assert leaks.in_places(talk.known, leaks.PI_PLACES) == set()


def test_no_secret_on_the_controller_outside_the_vault(talk: Talk) -> None:
    assert leaks.in_places(talk.known, leaks.controller_places(machine.ROOT, talk.temporary), here=True) == set()


def test_a_leak_is_found_in_every_place_on_the_pi() -> None:
    leak = {place: canary() for place in leaks.PI_PLACES}
    image = machine.pi("docker inspect --format '{{.Config.Image}}' pi-commerce-rate_limiter-1").strip()
    planted = {
        "journal": f"logger {leak['journal']}; journalctl --sync",
        "logs": f"echo {leak['logs']} > /var/log/pi-commerce-leak",
        "containers": f"docker create --name pi-commerce-leak-1 --env LEAK={leak['containers']} {image} true",
        "images": "tar --create --files-from /dev/null"
        f" | docker import --change 'ENV LEAK={leak['images']}' - pi-commerce-leak",
        "container logs": "docker run --name pi-commerce-leak-2 --network none --env LEAK_REVERSED="
        f"{leak['container logs'][::-1]} {image} python3 -c 'import os; print(os.environ[\"LEAK_REVERSED\"][::-1])'",
        "configuration": f"echo {leak['configuration']} > /etc/pi-commerce/compose/leak",
        "left behind": f"mkdir -p ~pi/.ansible/tmp; echo {leak['left behind']} > ~pi/.ansible/tmp/leak",
        "engine": f"echo {leak['engine']} > /var/lib/docker/containers/pi-commerce-leak",
    }
    assert planted.keys() == leaks.PI_PLACES.keys()
    try:
        machine.pi("\n".join(["set -e", *planted.values()]))
        found = leaks.in_places(leak, leaks.PI_PLACES)
    finally:
        machine.pi(
            "docker rm pi-commerce-leak-1 pi-commerce-leak-2; docker rmi pi-commerce-leak\n"
            "rm /var/log/pi-commerce-leak /etc/pi-commerce/compose/leak ~pi/.ansible/tmp/leak"
            " /var/lib/docker/containers/pi-commerce-leak"
        )
    assert {(place, place) for place in leaks.PI_PLACES} <= found


def test_a_leak_is_found_in_every_place_on_the_controller(tmp_path: Path) -> None:
    leak = canary()
    repository = tmp_path / "repository"
    author = ("-c", "user.name=Leak", "-c", "user.email=leak@example.com")
    for command in (
        ("git", "init", "--quiet", str(repository)),
        ("git", "-C", str(repository), *author, "commit", "--quiet", "--allow-empty", "--message", leak),
    ):
        assert machine.run(*command).status == 0
    places = leaks.controller_places(repository, tmp_path / "temporary")
    folder = tmp_path / "temporary/ansible-local-leak"
    folder.mkdir(parents=True)
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
