"""The image builder on a real engine: it builds what changed, nothing else, and cleans up behind itself."""

from __future__ import annotations

import io
import tarfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import images
import pytest
from docker import DockerClient
from docker.errors import ImageNotFound
from images import DEFAULT_SUITE, IMAGES, Image, ImageError, host_arch, load_table

BASE = load_table((IMAGES / "images.yml").read_text(), DEFAULT_SUITE, host_arch())["base"].tag
TABLE = 'lower: {version: "1"}\nupper: {version: "1", base: lower}\n'


@pytest.fixture
def scratch(engine: DockerClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Image]]:
    """Two tiny images in a table of their own, under a name and a label of their own."""
    if not engine.images.list(BASE):
        pytest.fail(f"image {BASE} is missing: run `make images`")
    monkeypatch.setattr(images, "IMAGES", tmp_path)
    name = f"images-test-{uuid.uuid4().hex[:8]}"
    monkeypatch.setattr(images, "REPOSITORY", name)
    monkeypatch.setattr(images, "LABEL", f"{name}.inputs")
    monkeypatch.setattr(images, "host_trust", lambda suite: {})
    monkeypatch.setattr(images, "pull_official", lambda image: BASE)
    for name in ("lower", "upper"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "Dockerfile").write_text(f"ARG BASE\nFROM ${{BASE}}\nCOPY word /{name}\n")
        (tmp_path / name / "word").write_text("first")
    yield list(load_table(TABLE, DEFAULT_SUITE, host_arch()).values())
    images.clean(engine)


def ids(engine: DockerClient, built: list[Image]) -> list[str]:
    return [engine.images.get(image.tag).id for image in built]


def word(engine: DockerClient, image: Image, path: str) -> str:
    """What a file in an image says."""
    container = engine.containers.create(image.tag)
    try:
        stream, _ = container.get_archive(path)
    finally:
        container.remove()
    with tarfile.open(fileobj=io.BytesIO(b"".join(stream))) as archive:
        member = archive.extractfile(path.strip("/"))
        assert member is not None
        return member.read().decode()


def test_only_what_changed_is_built(
    engine: DockerClient, scratch: list[Image], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images.build(engine, scratch)
    first = ids(engine, scratch)
    capsys.readouterr()
    images.build(engine, scratch)
    assert ids(engine, scratch) == first
    assert capsys.readouterr().out.count("current, nothing to build") == 2

    (tmp_path / "upper" / "word").write_text("second")
    images.build(engine, scratch)
    second = ids(engine, scratch)
    assert second[0] == first[0]
    assert second[1] != first[1]
    assert [word(engine, scratch[1], path) for path in ("/lower", "/upper")] == ["first", "second"]
    with pytest.raises(ImageNotFound):
        engine.images.get(first[1])


def test_list_tells_missing_current_and_outdated(
    engine: DockerClient, scratch: list[Image], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def states() -> list[str]:
        capsys.readouterr()
        images.show(engine, scratch)
        return [line.split()[1] for line in capsys.readouterr().out.splitlines()]

    assert states() == ["missing", "missing"]
    images.build(engine, scratch[:1])
    assert states() == ["current", "missing"]
    (tmp_path / "lower" / "word").write_text("second")
    assert states() == ["outdated", "missing"]


def test_a_failed_build_names_the_image_and_shows_why(
    engine: DockerClient, scratch: list[Image], tmp_path: Path
) -> None:
    (tmp_path / "lower" / "Dockerfile").write_text(f"FROM {BASE}\nRUN echo what went wrong && exit 3\n")
    with pytest.raises(ImageError, match=r"(?s)building images-test-\w+/lower:1 failed.*code: 3.*what went wrong"):
        images.build(engine, scratch)


def test_clean_removes_all_of_ours_and_nothing_else(engine: DockerClient, scratch: list[Image]) -> None:
    images.build(engine, scratch)
    images.clean(engine)
    assert not engine.images.list(filters={"label": images.LABEL})
    assert engine.images.list(BASE)
