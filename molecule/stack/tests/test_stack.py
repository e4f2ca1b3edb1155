"""Exactly the enabled services, each within its limits and back when it falls, each database for its owner alone."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable
from typing import Any

import pytest
from testinfra.host import Host

UNITS = {"M": 1024**2}


@pytest.fixture(scope="module")
def running(host: Host) -> dict[str, dict[str, Any]]:
    """What the engine says about each container, by service."""
    documents = json.loads(host.check_output("docker inspect $(docker ps --quiet)"))
    return {document["Config"]["Labels"]["com.docker.compose.service"]: document for document in documents}


def healthy(host: Host, service: str) -> bool:
    """Whether the service's own check passes."""
    answer = host.run("docker inspect --format '{{.State.Health.Status}}' pi-commerce-%s-1", service)
    return str(answer.stdout).strip() == "healthy"


def test_exactly_the_enabled_services_run(
    host: Host, running: dict[str, dict[str, Any]], variables: dict[str, Any]
) -> None:
    """One that is no longer enabled is gone, its container and its file."""
    assert set(running) == set(variables["services_enabled"])
    files = {f"{service}.yml" for service in variables["services_enabled"]}
    assert set(host.file("/etc/pi-commerce/compose").listdir()) == {*files, "overrides.yml"}
    for service in running:
        assert healthy(host, service), service


def test_memory_and_clock_are_as_declared(
    running: dict[str, dict[str, Any]], variables: dict[str, Any], host: Host
) -> None:
    for service, limit in variables["services_memory"].items():
        assert running[service]["HostConfig"]["Memory"] == int(limit[:-1]) * UNITS[limit[-1]], service
    zone = variables["base_timezone"]
    assert host.check_output("docker exec pi-commerce-postgres-1 date +%z") == host.check_output(f"TZ={zone} date +%z")


def test_n8n_has_the_declared_heap(host: Host, running: dict[str, dict[str, Any]], variables: dict[str, Any]) -> None:
    if "n8n" not in running:
        pytest.skip("n8n is not enabled here")
    heap = "docker exec pi-commerce-n8n-1 node -p 'v8.getHeapStatistics().heap_size_limit'"
    # Node adds its young generation to what it is told.
    assert 0 <= int(host.check_output(heap)) // 1024**2 - variables["n8n_heap_mib"] <= 100


def test_database_is_for_its_owner_alone(host: Host, secrets: dict[str, str]) -> None:
    def login(password: str) -> Any:
        client = "docker exec --env PGPASSWORD pi-commerce-postgres-1 psql -h 127.0.0.1 -U shop -XAtc 'SELECT 1' shop"
        return host.run(f"PGPASSWORD=%s {client}", password)

    assert login(secrets["shop_db_password"]).stdout.strip() == "1"
    assert "password authentication failed" in login("Another-password-1").stderr
    host.check_output("docker exec pi-commerce-postgres-1 psql -U postgres -qc 'CREATE ROLE stranger LOGIN'")
    try:
        refused = host.run("docker exec pi-commerce-postgres-1 psql -U stranger -c 'SELECT 1' shop")
    finally:
        host.check_output("docker exec pi-commerce-postgres-1 psql -U postgres -qc 'DROP ROLE stranger'")
    assert 'permission denied for database "shop"' in refused.stderr


def test_service_that_falls_is_back(
    host: Host, running: dict[str, dict[str, Any]], awaken: Callable[[str], None]
) -> None:
    fallen = running["rate_limiter"]["State"]["Pid"]
    host.check_output(f"kill -9 {fallen}")
    awaken("rate_limiter")
    assert host.check_output("docker inspect --format '{{.State.Pid}}' pi-commerce-rate_limiter-1") != str(fallen)


def test_entrance_listens_where_it_is_declared(host: Host, variables: dict[str, Any]) -> None:
    port, bound = variables["proxy_https_port"], variables["proxy_bind_address"]
    assert host.run(f"openssl s_client -connect 127.0.0.1:{port} < /dev/null").rc == 0
    open_to_others = {443: False, 8443: False}
    for candidate in open_to_others:
        with socket.socket() as connection:
            connection.settimeout(5)
            open_to_others[candidate] = connection.connect_ex((os.environ["PI_ADDRESS"], candidate)) == 0
    assert open_to_others == {candidate: candidate == port and bound != "127.0.0.1" for candidate in open_to_others}
