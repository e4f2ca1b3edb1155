"""The image that was built reads the settings that were written, and refuses to start with settings that are wrong."""

from __future__ import annotations

import json
from typing import Any

import pytest
from testinfra.backend.base import CommandResult
from testinfra.host import Host

SECRETS = """
set -eu
install -d -m 0755 /run/posting-test
for name in shop_db_password redis_posting_queue_password rate_limiter_token_posting_queue; do
  printf %s test-password > /run/posting-test/$name
done
cat > /run/posting-test/posting_secrets
chmod 0644 /run/posting-test/*
"""
READ = """
import json, os
from posting_queue.config import Config
config = Config.from_environment(os.environ)
plans = {name: [f"{at:%H:%M}" for at in plan.times] + [plan.posts] for name, plan in config.schedule.items()}
read = [plans, config.confidence, config.give_up_hours, config.graph_url, str(config.zone), sorted(config.accounts)]
print(json.dumps(read))
"""


@pytest.fixture(scope="module")
def image(host: Host) -> str:
    """The newest image of the queue."""
    names: str = host.check_output("docker image ls --format '{{.Repository}}:{{.Tag}}' pi-commerce/posting_queue")
    return names.splitlines()[0]


def run(host: Host, image: str, tokens: dict[str, str], *words: str) -> CommandResult:
    """Run a program of the image with the settings of this machine."""
    host.check_output(f"printf %s {json.dumps(tokens)!r} | ({SECRETS})")
    command = (
        "docker run --rm --network none --read-only --cap-drop ALL --volume /run/posting-test:/run/secrets:ro"
        f" --volume /etc/pi-commerce/posting_queue:/etc/posting_queue:ro {image} python"
    )
    try:
        return host.run(command + " %s" * len(words), *words)
    finally:
        host.check_output("rm -rf /run/posting-test")


def test_settings_are_read_as_declared(host: Host, image: str, variables: dict[str, Any]) -> None:
    accounts = variables["posting_queue_accounts"]
    read = run(host, image, dict.fromkeys(accounts, "a-token-of-the-test"), "-c", READ)
    assert read.rc == 0, read.stderr
    plans, confidence, hours, url, zone, stores = json.loads(read.stdout)
    declared = variables["posting_queue_schedule"]
    assert plans.keys() == declared.keys()
    for name, plan in declared.items():
        times = plan.get("times") or [f"{hour:02}:00" for hour in range(0, 24, plan["every_hours"])]
        assert plans[name] == [*times, plan["posts"]]
    assert (confidence, hours) == (variables["posting_queue_confidence"], variables["posting_queue_give_up_hours"])
    assert url == f"https://graph.facebook.com/{variables['posting_queue_graph_version']}"
    assert (zone, stores) == (variables["base_timezone"], sorted(accounts))


def test_an_account_without_a_token_is_refused(host: Host, image: str, variables: dict[str, Any]) -> None:
    refused = run(host, image, {}, "-m", "posting_queue", "calendar")
    if variables["posting_queue_accounts"]:
        assert refused.rc == 2, refused.stderr
        assert "no token for the account of the store main" in refused.stderr
    else:
        # It gets as far as the database, which is not there.
        assert refused.rc == 1, refused.stderr


def test_only_declared_files_are_there(host: Host, image: str) -> None:
    assert host.file("/etc/pi-commerce/posting_queue").listdir() == ["settings.json"]
    assert not host.file("/etc/pi-commerce/build/posting_queue/posting_queue/stray.py").exists
    run = f"docker run --rm --network none {image} python -c"
    assert host.run(f"{run} 'import posting_queue.tasks'").rc == 0
    assert "No module named 'posting_queue.stray'" in host.run(f"{run} 'import posting_queue.stray'").stderr
