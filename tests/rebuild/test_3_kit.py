"""Machine, controller and checkout are gone; a stranger has the rescue kit, its passphrase and a plain Debian."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import images
import loss
import machine
import owner
import pytest
import virtual_pi
from docker.models.containers import Container
from terminal import typed

PASSPHRASE = "three-old-Kettles-boil-42-eggs"
RESCUE_SECONDS = 3600


@pytest.fixture(scope="module")
def before(shop: dict[str, Any]) -> dict[str, Any]:
    """What the shop held."""
    owner.sell(1)
    loss.save("ship")
    return owner.everything()


@pytest.fixture(scope="module")
def kit(before: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with kit and page."""
    folder = tmp_path_factory.mktemp("kit")
    phrase = folder / "passphrase"
    phrase.write_text(f"{PASSPHRASE}\n")
    done = machine.run(
        *("make", "rescue-kit", f"KIT={folder}"), environment={"RESCUE_PASSPHRASE_FILE": str(phrase)}, apart=True
    )
    assert done.status == 0, done.errors
    phrase.unlink()
    return folder


@pytest.fixture(scope="module")
def stranger(kit: Path) -> Iterator[Container]:
    """A plain Debian in the network of the Pi, where the kit's file lies in /root."""
    client = docker.from_env()
    name = f"{machine.ENVIRONMENT['PI_NAME']}-stranger"
    settings = {key: os.environ[key] for key in images.BUILD_SETTINGS if key in os.environ}
    container = client.containers.run(
        "pi-commerce/base:trixie",
        "sleep infinity",
        name=name,
        detach=True,
        network=machine.ENVIRONMENT["PI_NAME"],
        environment=settings,
        labels={virtual_pi.OWNER_LABEL: str(machine.STATE)},
        stop_signal="SIGKILL",
    )
    try:
        [file] = kit.glob("*.age")
        put(container, "/root", file.name, file.read_bytes())
        yield container
    finally:
        container.remove(force=True)


def put(container: Container, folder: str, name: str, content: bytes) -> None:
    """Write a file in a container."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        entry = tarfile.TarInfo(name)
        entry.size, entry.mode = len(content), 0o600
        archive.addfile(entry, io.BytesIO(content))
    assert container.put_archive(folder, packed.getvalue())


def get(container: Container, path: str) -> bytes:
    """A file in a container."""
    code, content = container.exec_run(["cat", path])
    assert code == 0, content
    return bytes(content)


def lines(kit: Path) -> list[str]:
    """What the page says to type."""
    [page] = kit.glob("*.md")
    indented = [line.strip() for line in page.read_text().splitlines() if line.startswith("    ")]
    return [line.partition("   #")[0].strip().replace("sudo ", "") for line in indented]


@pytest.fixture(scope="module")
def rescued(kit: Path, stranger: Container) -> machine.Finished:
    """The stranger types what the page says; the last thing is rescue.sh."""
    [install] = [line for line in lines(kit) if line.startswith("apt update")]
    [unpack] = [line for line in lines(kit) if line.startswith("age --decrypt")]
    [enter] = [line for line in lines(kit) if line.startswith("cd ")]
    [rescue] = [line for line in lines(kit) if line.startswith("./rescue.sh")]
    loss.lose_everything([])
    loss.new_machine()

    def terminal(command: str) -> list[str]:
        return [
            "docker",
            "exec",
            "--interactive",
            "--tty",
            "--workdir",
            "/root",
            str(stranger.name),
            "sh",
            "-c",
            command,
        ]

    code, said = stranger.exec_run(["sh", "-c", install], workdir="/root")
    assert code == 0, said.decode()[-2000:]
    status, shown = typed(terminal(unpack), PASSPHRASE, "passphrase", 120)
    assert status == 0, shown
    folder = f"/root/{enter.removeprefix('cd ')}/{machine.STATE.name}"
    # The `yes` to the new machine's key, which this inventory wants written down.
    put(stranger, folder, "known_hosts", (machine.STATE / "known_hosts").read_bytes())
    done = subprocess.run(
        ["docker", "exec", "--workdir", "/root", str(stranger.name), "bash", "-c", f"{enter} && {rescue}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=RESCUE_SECONDS,
        check=False,
    )
    if done.returncode == 0:
        # To look at the shop, this computer needs what the stranger now has.
        vault = machine.STATE / "secrets.vault.yml"
        vault.touch(mode=0o600)
        vault.write_bytes(get(stranger, f"{folder}/{vault.name}"))
    return machine.Finished(done.returncode, done.stdout)


def test_everything_is_as_it_was(
    before: dict[str, Any], rescued: machine.Finished, capsys: pytest.CaptureFixture[str]
) -> None:
    assert rescued.status == 0, rescued.output[-6000:]
    assert owner.everything() == before
    with capsys.disabled():
        print(f"\n{loss.shown(rescued.output)}")


def test_page_names_no_secret_and_fits_its_paper(kit: Path, rescued: machine.Finished) -> None:
    [page] = kit.glob("*.md")
    text = page.read_text()
    assert [name for name, value in machine.secrets().items() if value in text] == []
    assert PASSPHRASE not in text
    # Two sides of one sheet.
    assert len(text.splitlines()) <= 100


def test_kit_is_of_no_use_without_its_passphrase(kit: Path, rescued: machine.Finished) -> None:
    [file] = kit.glob("*.age")
    content = file.read_bytes()
    assert [name for name, value in machine.secrets().items() if value.encode() in content] == []
    assert b"ANSIBLE_VAULT" not in content


REFUSED = [
    ({"RESCUE_PASSPHRASE_FILE": "/dev/null"}, "the passphrase has 0 characters"),
    ({"RESCUE_PASSPHRASE_FILE": None}, "call this in a terminal"),
    ({"ANSIBLE_VAULT_PASSWORD_FILE": "/dev/null"}, "vault"),
]


@pytest.mark.parametrize(("settings", "words"), REFUSED, ids=[words for _, words in REFUSED])
def test_kit_that_cannot_be_made_is_refused(
    rescued: machine.Finished, tmp_path: Path, settings: machine.Environment, words: str
) -> None:
    phrase = tmp_path / "passphrase"
    phrase.write_text(PASSPHRASE)
    refused = machine.run(
        *("python", "ops/rescue_kit.py", machine.INVENTORY, str(tmp_path / "kit")),
        environment={"RESCUE_PASSPHRASE_FILE": str(phrase), **settings},
    )
    assert refused.status == 1
    assert words in refused.output.lower()
    assert not (tmp_path / "kit").exists()
