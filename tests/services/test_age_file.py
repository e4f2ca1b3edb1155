"""The program age opens what we seal, as a person would have it do: at a terminal, with a passphrase."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
from collections.abc import Iterator

import age_file
import pytest
from docker import DockerClient
from docker.models.containers import Container
from redis_server import LABELS, image_of
from terminal import typed

PASSPHRASE = "correct horse battery staple 7"
SIZES = [0, 1, age_file.CHUNK - 1, age_file.CHUNK, age_file.CHUNK + 1, 5_000_000]


@pytest.fixture(scope="module")
def rescuer(engine: DockerClient) -> Iterator[Container]:
    """A computer with age."""
    container = engine.containers.run(image_of(engine, "backup-host"), detach=True, labels=LABELS, network_mode="none")
    yield container
    container.remove(force=True)


def lay(container: Container, content: bytes) -> None:
    """Write /tmp/kit.age."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        entry = tarfile.TarInfo("kit.age")
        entry.size = len(content)
        archive.addfile(entry, io.BytesIO(content))
    assert container.put_archive("/tmp", packed.getvalue())


def opened(container: Container, passphrase: str) -> tuple[int, str]:
    """What a person sees who decrypts it; the content goes to /tmp/kit."""
    command = [
        "docker",
        "exec",
        "--interactive",
        "--tty",
        container.name,
        "age",
        "--decrypt",
        "-o",
        "/tmp/kit",
        "/tmp/kit.age",
    ]
    return typed(command, passphrase, "passphrase", 60)


@pytest.mark.parametrize("size", SIZES)
def test_age_opens_what_was_sealed(rescuer: Container, size: int) -> None:
    content = os.urandom(size)
    lay(rescuer, age_file.seal(content, PASSPHRASE, work=12))
    assert opened(rescuer, PASSPHRASE)[0] == 0
    _, said = rescuer.exec_run(["sh", "-c", "sha256sum < /tmp/kit"])
    assert said.decode().split()[0] == hashlib.sha256(content).hexdigest()


def test_another_passphrase_opens_nothing(rescuer: Container) -> None:
    lay(rescuer, age_file.seal(b"kit", PASSPHRASE))
    status, shown = opened(rescuer, PASSPHRASE[:-1])
    assert status == 1
    assert "incorrect passphrase" in shown


def test_changed_byte_is_found(rescuer: Container) -> None:
    sealed = bytearray(age_file.seal(os.urandom(2 * age_file.CHUNK), PASSPHRASE, work=12))
    sealed[-age_file.CHUNK] ^= 1
    lay(rescuer, bytes(sealed))
    status, shown = opened(rescuer, PASSPHRASE)
    assert status == 1
    assert "failed to decrypt" in shown


def test_guessing_costs_as_much_as_the_program_itself_has_it_cost() -> None:
    header = age_file.seal(b"", PASSPHRASE).split(b"\n")[1].split()
    assert header[:2] == [b"->", b"scrypt"]
    assert header[3] == b"18"
