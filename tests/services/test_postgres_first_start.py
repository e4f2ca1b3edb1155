"""PostgreSQL's entry point in the catalog sweeps half a cluster, and nothing that a server has ever run on."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from automation_stack import compose_service
from docker import DockerClient
from redis_server import image_of, start_container

POSTGRES_UID = 999
HALF = ["PG_VERSION", "base/1/112", "global/1213", ".hidden"]


def after_start(engine: DockerClient, folder: Path) -> list[str]:
    """What lies in the folder of the data when the image's own entry point takes over."""
    for path in (folder, *folder.rglob("*")):
        os.chown(path, POSTGRES_UID, POSTGRES_UID)
    service = compose_service("postgres")
    container = start_container(
        engine,
        image_of(engine, "postgres"),
        ["find", ".", "-type", "f", "-printf", "%P\\n"],
        entrypoint=[word.replace("$$", "$") for word in service["entrypoint"]],
        user=service["user"],
        volumes={str(folder): {"bind": "/var/lib/postgresql/data", "mode": "rw"}},
    )
    try:
        assert container.wait(timeout=30)["StatusCode"] == 0, container.logs().decode()
        return sorted(container.logs().decode().split())
    finally:
        container.remove(force=True, v=True)


@pytest.mark.parametrize(
    ("found", "kept"),
    [
        ([], []),
        (HALF, []),
        (["base/1/112"], []),
        ([*HALF, "postmaster.opts"], [*HALF, "postmaster.opts"]),
        ([*HALF, "backup_label"], [*HALF, "backup_label"]),
    ],
    ids=["first start", "cut off", "cut off early", "has run", "copy of one that has run"],
)
def test_only_half_a_cluster_is_swept(engine: DockerClient, tmp_path: Path, found: list[str], kept: list[str]) -> None:
    tmp_path.chmod(0o755)
    folder = tmp_path / "data"
    folder.mkdir()
    for name in found:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("x")
    assert after_start(engine, folder) == sorted(kept)
