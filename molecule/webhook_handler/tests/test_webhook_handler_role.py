"""The image that was built takes in what the settings declare, and refuses to start with settings that are wrong."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from testinfra.host import Host

Post = Callable[[str], int]

# Without a database it starts, checks who sends, and stores nothing.
START = """
set -eu
install -d -m 0755 /run/webhook-test && printf %s test-password > /run/webhook-test/password
cat > /run/webhook-test/secrets.json
docker run --detach --name webhook-test --network none --read-only --cap-drop ALL \
  --env POSTGRES_PASSWORD_FILE=/run/secrets/password --env REDIS_HOST= --env RATE_LIMITER_URL= \
  --env WEBHOOK_SECRETS=/run/secrets/secrets.json --volume /run/webhook-test:/run/secrets:ro \
  --volume /etc/pi-commerce/webhook_handler:/etc/webhook_handler:ro IMAGE
"""
STOP = "docker rm --force --volumes webhook-test; rm -rf /run/webhook-test"
ASK = """
import sys, urllib.error, urllib.request
request = urllib.request.Request("http://127.0.0.1:3002" + sys.argv[1], b"{}", {"content-type": "application/json"})
try:
    print(urllib.request.urlopen(request).status)
except urllib.error.HTTPError as refused:
    print(refused.status)
"""


@pytest.fixture(scope="module")
def image(host: Host) -> str:
    """The newest image of the handler."""
    names: str = host.check_output("docker image ls --format '{{.Repository}}:{{.Tag}}' pi-commerce/webhook_handler")
    return names.splitlines()[0]


@pytest.fixture(scope="module")
def post(host: Host, image: str, variables: dict[str, Any]) -> Iterator[Post]:
    """Sends an unsigned webhook; the status."""
    endpoints = {name: {"secrets": ["a-secret-of-the-test"]} for name in variables["webhook_handler_endpoints"]}
    secrets = json.dumps({"admin": "", "endpoints": endpoints})
    host.check_output(f"printf %s {secrets!r} | ({START.replace('IMAGE', image)})")

    def ask(path: str) -> int:
        return int(host.check_output("docker exec webhook-test python -c %s %s", ASK, path))

    try:
        deadline = time.monotonic() + 60
        while host.run("docker exec webhook-test python -c %s %s", ASK, "/").rc != 0:
            assert time.monotonic() < deadline, host.run("docker logs webhook-test").stderr
        yield ask
    finally:
        host.check_output(STOP)


def test_each_endpoint_asks_for_a_signature_and_others_are_not_there(post: Post, variables: dict[str, Any]) -> None:
    for name in variables["webhook_handler_endpoints"]:
        assert post(f"/webhooks/{name}") == 401
    assert post("/webhooks/stripe") == 404
    assert post("/webhooks/custom/third") == 404


def test_only_declared_files_are_there(host: Host, image: str) -> None:
    assert host.file("/etc/pi-commerce/webhook_handler").listdir() == ["settings.json"]
    assert not host.file("/etc/pi-commerce/build/webhook_handler/webhook_handler/stray.py").exists
    run = f"docker run --rm --network none {image} python -c"
    assert host.run(f"{run} 'import webhook_handler.app'").rc == 0
    assert "No module named 'webhook_handler.stray'" in host.run(f"{run} 'import webhook_handler.stray'").stderr
