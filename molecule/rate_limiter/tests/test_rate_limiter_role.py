"""The image that was built keeps to the policies that were written."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from testinfra.host import Host

Check = Callable[..., tuple[int, dict[str, Any]]]

# Beside the stack's own names, so that both can be there.
START = """
set -eu
install -d -m 0755 /run/limiter-test && printf %s test-password > /run/limiter-test/password
docker network create limiter-test
docker run --detach --name limiter-test-redis --network limiter-test --network-alias redis REDIS \
  valkey-server --save '' --user rate_limiter on '>test-password' '~*' +@all
docker run --detach --name limiter-test --network limiter-test --read-only --cap-drop ALL \
  --env REDIS_PASSWORD_FILE=/run/secrets/password --env REDIS_TIMEOUT=10 --volume /run/limiter-test:/run/secrets:ro \
  --volume /etc/pi-commerce/rate_limiter:/etc/rate_limiter:ro IMAGE
"""
STOP = """
docker rm --force --volumes limiter-test limiter-test-redis
docker network rm limiter-test
rm -r /run/limiter-test
"""
ASK = """
import json, sys, urllib.error, urllib.request
request = urllib.request.Request("http://127.0.0.1:3001/api/rate-limit/check", sys.argv[1].encode())
try:
    answer = urllib.request.urlopen(request)
except urllib.error.HTTPError as refused:
    answer = refused
print(answer.status, answer.read().decode())
"""


@pytest.fixture(scope="module")
def image(host: Host) -> str:
    """The newest image of the limiter."""
    names: str = host.check_output("docker image ls --format '{{.Repository}}:{{.Tag}}' pi-commerce/rate_limiter")
    return names.splitlines()[0]


@pytest.fixture(scope="module")
def check(host: Host, image: str, variables: dict[str, Any]) -> Iterator[Check]:
    """Asks the limiter; returns status and answer."""

    def ask(**question: Any) -> tuple[int, dict[str, Any]]:
        printed = host.check_output("docker exec limiter-test python -c %s %s", ASK, json.dumps(question))
        status, _, body = printed.partition(" ")
        return int(status), json.loads(body)

    host.check_output(START.replace("REDIS", variables["images"]["redis"], 1).replace("IMAGE", image))
    try:
        deadline = time.monotonic() + 60
        while host.run("docker exec limiter-test python -c %s %s", ASK, "{}").rc != 0:
            assert time.monotonic() < deadline, host.run("docker logs limiter-test").stderr
        yield ask
    finally:
        host.check_output(STOP)


def test_each_policy_is_in_force(check: Check, variables: dict[str, Any]) -> None:
    for api, policy in variables["rate_limiter_policies"].items():
        status, whole = check(api=api, cost=policy["limit"])
        assert (status, whole.get("limit"), whole.get("allowed")) == (200, policy["limit"], True), whole
        # A short window may have passed since.
        if policy.get("window_seconds", 0) >= 60:
            _, more = check(api=api)
            assert not more["allowed"], api
            assert 0 < more["retry_after"] <= policy["window_seconds"]


def test_quota_is_back_after_its_window(check: Check, variables: dict[str, Any]) -> None:
    policies = variables["rate_limiter_policies"]
    api = next(name for name, policy in policies.items() if policy.get("window_seconds") == 1)
    assert check(api=api, key="window", cost=policies[api]["limit"])[1]["allowed"]
    deadline = time.monotonic() + 30
    while not check(api=api, key="window", cost=policies[api]["limit"])[1]["allowed"]:
        assert time.monotonic() < deadline


def test_nothing_else_is_known(check: Check, variables: dict[str, Any]) -> None:
    status, answer = check(api="nobody")
    assert status == 404
    assert sorted(answer["known"]) == sorted(variables["rate_limiter_policies"])


def test_stray_files_are_gone_and_not_in_the_image(host: Host, image: str) -> None:
    assert host.file("/etc/pi-commerce/rate_limiter").listdir() == ["policies.json"]
    assert not host.file("/etc/pi-commerce/build/rate_limiter/rate_limiter/stray.py").exists
    run = f"docker run --rm --network none {image} python -c"
    assert host.run(f"{run} 'import rate_limiter.server'").rc == 0
    assert "No module named 'rate_limiter.stray'" in host.run(f"{run} 'import rate_limiter.stray'").stderr


def test_limiter_runs_as_nobody_special(host: Host, image: str) -> None:
    assert host.check_output(f"docker run --rm --network none {image} id -u") == "10001"
