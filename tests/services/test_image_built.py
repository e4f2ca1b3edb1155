"""`image_built` on a real engine: built once, and what goes wrong is told with the image's name."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from automation_stack import run_module
from docker import DockerClient
from docker.errors import ImageNotFound
from redis_server import image_of

IMAGE = "pi-commerce/image-built:test"
LABEL = "pi-commerce.build"


@pytest.fixture
def wanted(engine: DockerClient, tmp_path: Path) -> Iterator[dict[str, Any]]:
    """Arguments for an image that is not there yet; what was built is removed."""
    source = tmp_path / "source"
    source.mkdir()
    (source / "Dockerfile").write_text(f'ARG BASE\nFROM ${{BASE}}\nLABEL {LABEL}=test\nCMD ["true"]\n')
    yield {"image": IMAGE, "base": image_of(engine, "python"), "folder": str(source)}
    if there(engine):
        engine.images.remove(IMAGE, force=True)


def there(engine: DockerClient) -> bool:
    """Whether the image is."""
    try:
        engine.images.get(IMAGE)
    except ImageNotFound:
        return False
    return True


def test_image_is_built_once_and_a_check_builds_nothing(
    engine: DockerClient, tmp_path: Path, wanted: dict[str, Any]
) -> None:
    assert run_module(tmp_path, "image_built", wanted, "--check").changed
    assert not there(engine)
    assert run_module(tmp_path, "image_built", wanted).changed
    built = engine.images.get(IMAGE)
    assert built.labels[LABEL] == "test"
    assert not run_module(tmp_path, "image_built", wanted).changed
    assert engine.images.get(IMAGE).id == built.id


def test_build_that_fails_names_the_image_and_the_reason(
    engine: DockerClient, tmp_path: Path, wanted: dict[str, Any]
) -> None:
    with (tmp_path / "source/Dockerfile").open("a") as file:
        file.write("COPY nobody-has-this ./\n")
    result = run_module(tmp_path, "image_built", wanted)
    assert result.values["failed"]
    assert IMAGE in result.values["msg"]
    assert "nobody-has-this" in result.values["msg"]
    assert not there(engine)


def test_what_a_build_that_was_cut_off_left_is_removed(
    engine: DockerClient, tmp_path: Path, wanted: dict[str, Any]
) -> None:
    """A container of a service carries the same label, by its image; it is left alone."""
    base = wanted["base"]
    left = engine.containers.create(base, ["true"], labels={LABEL: "test"})
    service = engine.containers.create(base, ["true"], labels={LABEL: "test", "com.docker.compose.project": "shop"})
    try:
        assert run_module(tmp_path, "image_built", wanted).changed
        found = {container.id for container in engine.containers.list(all=True, filters={"label": LABEL})}
        assert found & {left.id, service.id} == {service.id}
    finally:
        service.remove(force=True)
        if engine.containers.list(all=True, filters={"id": left.id}):
            left.remove(force=True)
