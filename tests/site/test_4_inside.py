"""What a container may do, what it can reach, and where the secrets are."""

from __future__ import annotations

import json
from typing import Any

import container_items
import machine
import pytest

SERVICES = ("postgres", "redis", "rate_limiter", "webhook_handler", "posting_queue", "n8n", "proxy")
# Who shares a network with whom, in both directions; nobody else may get through.
NEIGHBOURS = {
    frozenset(pair)
    for pair in (
        ("n8n", "postgres"),
        ("n8n", "rate_limiter"),
        ("rate_limiter", "redis"),
        ("proxy", "n8n"),
        ("proxy", "rate_limiter"),
        *(("webhook_handler", name) for name in ("postgres", "redis", "rate_limiter", "posting_queue", "n8n", "proxy")),
        *(("posting_queue", name) for name in ("postgres", "redis", "rate_limiter", "n8n", "proxy")),
    )
}
TARGETS = (
    "postgres:5432",
    "redis:6379",
    "rate_limiter:3001",
    "webhook_handler:3002",
    "n8n:5678",
    "proxy:8443",
)


@pytest.fixture(scope="module")
def inspected() -> dict[str, dict[str, Any]]:
    """`docker inspect` of every container by service."""
    documents = json.loads(machine.pi("docker inspect $(docker ps -q)"))
    return {document["Config"]["Labels"]["com.docker.compose.service"]: document for document in documents}


def test_exactly_the_catalog_runs(inspected: dict[str, dict[str, Any]]) -> None:
    assert set(inspected) == set(SERVICES)


@pytest.mark.parametrize("service", SERVICES)
def test_container_is_confined(inspected: dict[str, dict[str, Any]], service: str) -> None:
    assert container_items.failed(service, inspected[service]) == []


def test_no_item_is_waived_that_is_met(inspected: dict[str, dict[str, Any]]) -> None:
    assert container_items.idle(inspected) == []
    assert all(reason for waived in container_items.WAIVERS.values() for reason in waived.values())


# Between them they keep to nothing; some of it one container alone cannot do.
CARELESS = (
    "create --user 0 --privileged --network host --pid host --ipc host --uts host"
    " --volume /var/run/docker.sock:/docker.sock --volume /etc:/host:shared"
    " --cgroup-parent /elsewhere --device /dev/null",
    "run --detach --security-opt apparmor=unconfined --security-opt seccomp=unconfined"
    " --security-opt no-new-privileges=false --userns host --no-healthcheck --publish 0.0.0.0:8097:80",
)


def test_containers_that_keep_to_nothing_are_noticed() -> None:
    image = machine.pi("docker inspect --format '{{.Config.Image}}' pi-commerce-rate_limiter-1").strip()
    found = set()
    for options in CARELESS:
        machine.pi(f"docker {options} --name careless --entrypoint sleep {image} 600")
        try:
            document = json.loads(machine.pi("docker inspect careless"))[0]
        finally:
            machine.pi("docker rm --force careless")
        found |= {line.split()[0] for line in container_items.failed("careless", document)}
    assert set(container_items.ITEMS) - found == set(container_items.WAIVERS["all"])


@pytest.mark.parametrize("service", SERVICES)
def test_process_has_no_privileges(inspected: dict[str, dict[str, Any]], service: str) -> None:
    status = machine.pi(f"cat /proc/{inspected[service]['State']['Pid']}/status")
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert int(fields["CapEff"], 16) == 0
    assert fields["NoNewPrivs"] == "1"
    assert "0" not in fields["Uid"].split()


def test_memory_limit_is_enforced_by_the_kernel() -> None:
    image = machine.pi("docker inspect --format '{{.Config.Image}}' pi-commerce-rate_limiter-1").strip()
    run = "docker run --rm --network none --memory {limit} --memory-swap {limit} "
    run += f"{image} python -c 'bytearray(96 * 1024**2)'"
    assert machine.pi(run.format(limit="256m") + "; echo status $?").strip().endswith("status 0")
    assert machine.pi(run.format(limit="48m") + "; echo status $?").strip().endswith("status 137")


@pytest.mark.parametrize("service", SERVICES)
def test_container_reaches_only_whom_it_may(inspected: dict[str, dict[str, Any]], service: str) -> None:
    """Tried from inside each container's own network namespace, by address, so that names do not help or hide."""
    pid = inspected[service]["State"]["Pid"]
    for target in TARGETS:
        name, port = target.split(":")
        if name == service:
            continue
        addresses = [net["IPAddress"] for net in inspected[name]["NetworkSettings"]["Networks"].values()]
        reached = [
            address
            for address in addresses
            if machine.pi(
                f"nsenter --target {pid} --net timeout 2 bash -c '</dev/tcp/{address}/{port}' 2>/dev/null && echo open",
                check=False,
            ).strip()
            == "open"
        ]
        assert bool(reached) == (frozenset((service, name)) in NEIGHBOURS), f"{service} -> {target}: {reached}"


@pytest.mark.parametrize("service", SERVICES)
def test_container_does_not_reach_the_machine_itself(inspected: dict[str, dict[str, Any]], service: str) -> None:
    """Neither by its own address nor by those of the networks: SSH would answer there."""
    one = inspected[service]
    gateways = {network["Gateway"] for network in one["NetworkSettings"]["Networks"].values()} - {""}
    for address in (machine.ADDRESS, *gateways):
        connect = f"timeout 2 bash -c '</dev/tcp/{address}/22' 2>/dev/null && echo open"
        reached = machine.pi(f"nsenter --target {one['State']['Pid']} --net {connect}", check=False)
        assert reached.strip() != "open", address
    assert "open" in machine.pi(f"timeout 2 bash -c '</dev/tcp/{machine.ADDRESS}/22' && echo open")


@pytest.mark.parametrize("service", ["postgres", "redis", "rate_limiter", "webhook_handler", "posting_queue"])
def test_inner_services_have_no_way_out(inspected: dict[str, dict[str, Any]], service: str) -> None:
    routes = machine.pi(f"nsenter --target {inspected[service]['State']['Pid']} --net ip route")
    assert "default" not in routes


def test_secrets_are_in_root_only_files() -> None:
    assert machine.pi("stat --format '%a %U' /etc/pi-commerce/secrets").strip() == "700 root"
    modes = machine.pi("stat --format '%a' /etc/pi-commerce/secrets/*").split()
    assert set(modes) == {"400"}


def test_n8n_has_its_owner_and_no_open_door() -> None:
    known = machine.secrets()
    login = {"emailOrLdapLoginId": "owner@example.com", "password": known["n8n_owner_password"]}
    browser = {"browser-id": "test"}
    assert machine.request("/rest/login", {**login, "password": "Wrong-password-1"}, browser).status == 401
    assert machine.request("/rest/login", login, browser).status == 200
    setup = {"email": "thief@example.com", "firstName": "T", "lastName": "H", "password": "Thief-password-1"}
    assert machine.request("/rest/owner/setup", setup, browser).status >= 400
    assert machine.request("/rest/workflows", headers=browser).status == 401


def test_redis_denies_what_the_limiter_does_not_need() -> None:
    refused = dict.fromkeys(("GET n8n", "HGETALL rl:x", "FLUSHALL", "KEYS *"), "NOPERM")
    for command, verdict in {**refused, "PING": "PONG"}.items():
        answer = machine.pi(
            'REDISCLI_AUTH="$(cat /etc/pi-commerce/secrets/redis_rate_limiter_password)" '
            f"docker exec -e REDISCLI_AUTH pi-commerce-redis-1 valkey-cli --user rate_limiter {command}",
            check=False,
        )
        assert verdict in answer, f"{command}: {answer}"


def test_redis_asks_strangers_for_a_password() -> None:
    assert "NOAUTH" in machine.pi("docker exec pi-commerce-redis-1 valkey-cli PING", check=False)
    health = "docker exec pi-commerce-redis-1 valkey-cli --user health --pass '' --no-auth-warning"
    assert "PONG" in machine.pi(f"{health} PING")
    assert "NOPERM" in machine.pi(f"{health} INFO", check=False)


def test_redis_says_so_when_full() -> None:
    admin = machine.secrets()["redis_admin_password"]
    cli = f"REDISCLI_AUTH={admin} docker exec -e REDISCLI_AUTH pi-commerce-redis-1 valkey-cli --no-auth-warning"
    assert machine.pi(f"{cli} CONFIG GET maxmemory-policy").split()[-1] == "noeviction"
    maximum = int(machine.pi(f"{cli} CONFIG GET maxmemory").split()[-1])
    limit = int(machine.pi("docker inspect --format '{{.HostConfig.Memory}}' pi-commerce-redis-1"))
    assert 0 < maximum < limit
