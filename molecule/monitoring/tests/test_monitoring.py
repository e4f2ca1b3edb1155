"""Prometheus will find metrics where it is told to look."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from testinfra.host import Host

FETCH = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1]).read().decode())"


def targets(host: Host) -> list[dict[str, Any]]:
    """The written targets."""
    written: list[dict[str, Any]] = json.loads(host.file("/etc/pi-commerce/monitoring/targets.json").content_string)
    return written


def test_each_target_tells_metrics_to_a_neighbour(host: Host, variables: dict[str, Any]) -> None:
    found = targets(host)
    assert {group["labels"]["job"] for group in found} == {"n8n", "rate_limiter", "webhook_handler"}
    for group in found:
        labels = group["labels"]
        run = f"docker run --rm --network pi-commerce_{labels['job']} {variables['images']['python']} python3 -c %s %s"
        for target in group["targets"]:
            metrics = host.check_output(run, FETCH, f"http://{target}{labels['__metrics_path__']}")
            assert re.search(r"^# TYPE \w+ (counter|gauge|histogram)$", metrics, re.MULTILINE), target


def test_only_root_may_say_where_to_look(host: Host) -> None:
    assert host.run("runuser -u pi -- tee --append /etc/pi-commerce/monitoring/targets.json < /dev/null").rc != 0


def test_silent_metrics_are_refused(host: Host, apply: Callable[..., Any], awaken: Callable[[str], None]) -> None:
    host.check_output("docker stop pi-commerce-rate_limiter-1")
    try:
        refused = apply("monitoring")
    finally:
        host.check_output("docker start pi-commerce-rate_limiter-1")
    assert refused.returncode != 0
    assert "Metrics do not answer: rate_limiter is exited" in refused.stdout
    awaken("rate_limiter")
