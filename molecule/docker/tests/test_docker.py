"""An engine that enforces limits, keeps logs small and publishes nothing by accident."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from testinfra.host import Host


@pytest.fixture(scope="module")
def sleeper(host: Host, variables: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A container with nothing but an image and a port, as the engine sees it."""
    name = host.check_output(f"docker run --detach --publish 8099:8099 {variables['images']['python']} sleep 600")
    yield json.loads(host.check_output(f"docker inspect {name}"))[0]
    host.check_output(f"docker rm --force {name}")


def test_compose_is_there(host: Host) -> None:
    assert host.check_output("docker compose version --short").lstrip("v").startswith("2")


def test_published_port_is_bound_to_loopback(host: Host, sleeper: dict[str, Any], variables: dict[str, Any]) -> None:
    """In Docker's own network and in others, which Compose makes."""
    assert sleeper["NetworkSettings"]["Ports"]["8099/tcp"] == [{"HostIp": "127.0.0.1", "HostPort": "8099"}]
    host.check_output("docker network create other")
    try:
        run = "docker run --detach --name other --network other --publish 8098:8099"
        host.check_output(f"{run} {variables['images']['python']} sleep 60")
        assert host.check_output("docker port other").strip() == "8099/tcp -> 127.0.0.1:8098"
    finally:
        host.check_output("docker rm --force other; docker network rm other")


def test_logs_rotate(sleeper: dict[str, Any], variables: dict[str, Any]) -> None:
    log = sleeper["HostConfig"]["LogConfig"]
    assert log["Type"] == "local"
    assert log["Config"] == {
        "max-size": variables["docker_log_max_size"],
        "max-file": str(variables["docker_log_max_file"]),
    }


def test_process_cannot_gain_privileges(host: Host, sleeper: dict[str, Any]) -> None:
    status = host.check_output(f"docker exec {sleeper['Id']} cat /proc/1/status")
    assert "NoNewPrivs:\t1" in status


def test_greedy_container_is_ended(host: Host, variables: dict[str, Any]) -> None:
    command = "docker run --rm --network none --memory 32m --memory-swap 32m"
    ended = host.run(f"{command} {variables['images']['python']} python3 -c 'bytearray(256 * 1024 * 1024)'")
    assert ended.rc == 137, ended.stderr


def test_containers_live_on_while_the_engine_restarts(host: Host, sleeper: dict[str, Any]) -> None:
    host.check_output("systemctl restart docker")
    state = json.loads(host.check_output(f"docker inspect {sleeper['Id']}"))[0]["State"]
    assert (state["Running"], state["StartedAt"]) == (True, sleeper["State"]["StartedAt"])
