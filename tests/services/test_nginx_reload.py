"""The commands that have nginx read its files anew: one that does not run reads none, one that refuses is heard."""

from __future__ import annotations

import re
import subprocess
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from docker import DockerClient
from docker.models.containers import Container
from redis_server import LABELS, image_of
from waiting import wait_until

ROOT = Path(__file__).parents[2]
CONTAINER = "pi-commerce-proxy-1"
CONFIGURATION = "pid /tmp/pid;\nerror_log stderr;\nevents {}\nhttp { access_log off; }\n"
NGINX = ["nginx", "-c", "/etc/pi-commerce/nginx.conf", "-g", "daemon off;"]

Start = Callable[..., Container]


def of_the_entrance() -> str:
    """What `pi-commerce-entrance` runs."""
    settings = yaml.safe_load((ROOT / "roles/proxy/vars/main.yml").read_text())["_proxy_settings"]
    return str(settings["reload"])


def of_fail2ban() -> str:
    """What a ban ends with."""
    template = (ROOT / "roles/fail2ban/templates/nginx.conf.j2").read_text()
    found = re.search(r"^nginx_reload = (.*)$", template, re.MULTILINE)
    assert found
    return f"true && {found[1]}"


@pytest.fixture(params=[of_the_entrance, of_fail2ban], ids=["entrance", "fail2ban"])
def reload(request: pytest.FixtureRequest, name: str) -> Callable[[], int]:
    """Run it; its exit code."""
    command = request.param()
    assert command.count(CONTAINER) == 2
    script = command.replace(CONTAINER, name)
    return lambda: subprocess.run(["/bin/sh", "-c", script], capture_output=True, timeout=60, check=False).returncode


@pytest.fixture
def name() -> str:
    return f"reload-test-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def start(engine: DockerClient, name: str, tmp_path: Path) -> Iterator[Start]:
    """Start the container under its name, with a folder for its configuration."""
    (tmp_path / "nginx.conf").write_text(CONFIGURATION)
    tmp_path.chmod(0o755)
    made: list[Container] = []

    def start(command: list[str]) -> Container:
        made.append(
            engine.containers.run(
                image_of(engine, "nginx"),
                command,
                name=name,
                detach=True,
                labels=LABELS,
                read_only=True,
                tmpfs={"/tmp": "mode=1777"},
                volumes=[f"{tmp_path}:/etc/pi-commerce:ro"],
                network_disabled=True,
                restart_policy={"Name": "always"},
            )
        )
        return made[0]

    yield start
    for container in made:
        container.remove(force=True)


def test_no_container_is_nothing_to_reload(reload: Callable[[], int]) -> None:
    assert reload() == 0


def test_one_that_restarts_again_and_again_reads_its_files_when_it_runs(
    reload: Callable[[], int], start: Start, engine: DockerClient, name: str
) -> None:
    """As on a data disk that came from another machine: the container is there, its files are not yet."""
    start(["false"])

    def restarting() -> bool:
        return bool(engine.containers.list(filters={"name": name, "status": "restarting"}))

    wait_until(restarting, 60, "a container that restarts")
    assert reload() == 0


def test_running_nginx_reloads_what_it_accepts_and_its_refusal_is_heard(
    reload: Callable[[], int], start: Start, tmp_path: Path
) -> None:
    nginx = start(NGINX)
    wait_until(lambda: nginx.exec_run(["test", "-s", "/tmp/pid"]).exit_code == 0, 60, "nginx")
    assert reload() == 0
    (tmp_path / "nginx.conf").write_text(f"{CONFIGURATION}nonsense;\n")
    assert reload() != 0
