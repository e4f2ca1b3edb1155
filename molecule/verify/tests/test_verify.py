"""What does not run as declared is told, by name."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from testinfra.host import Host

Apply = Callable[..., Any]


def test_fallen_and_strange_containers_are_named(
    host: Host, apply: Apply, awaken: Callable[[str], None], variables: dict[str, Any]
) -> None:
    stranger = "docker run --detach --name stranger --label com.docker.compose.project=pi-commerce"
    stranger += f" --label com.docker.compose.service=stranger {variables['images']['python']} sleep 600"
    host.check_output(f"docker stop pi-commerce-redis-1 && {stranger}")
    try:
        failed = apply("verify", verify_wait_seconds=0)
    finally:
        host.check_output("docker rm --force stranger && docker start pi-commerce-redis-1")
    assert failed.returncode != 0
    assert re.search("Not as declared: .*redis.*, unexpected container stranger. Look at `docker logs", failed.stdout)
    awaken("redis")
    awaken("rate_limiter")


def test_closed_entrance_is_noticed_from_outside_where_asked(apply: Apply, variables: dict[str, Any]) -> None:
    outside = variables["verify_from_outside"]
    answer = apply("verify", proxy_https_port=8444, verify_from_outside=outside)
    assert (answer.returncode != 0) == outside, answer.stdout
    if outside:
        assert "8444" in answer.stdout
        assert "Connection refused" in answer.stdout
    else:
        for service in variables["services_enabled"]:
            assert service in answer.stdout
