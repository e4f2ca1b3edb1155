"""What a check tells about containers is what a run would do to them."""

from __future__ import annotations

import pytest
from compose_steps import foreseen, told


def step(name: str, status: str) -> dict[str, str]:
    """A step of Compose."""
    return {"what": "container", "id": f"pi-commerce-{name}-1", "status": status}


def container(name: str, state: str) -> dict[str, str]:
    """A container as Compose lists it."""
    return {"Name": f"pi-commerce-{name}-1", "Service": name, "State": state}


def test_nothing_is_foreseen_where_everything_runs() -> None:
    assert foreseen([step("redis", "Stopping")], [container("redis", "running")], []) == []


@pytest.mark.parametrize("state", ["exited", "created", "dead", "paused"])
def test_a_container_that_stands_still_is_started(state: str) -> None:
    containers = [container("redis", state), container("proxy", "running")]
    assert foreseen([step("proxy", "Stopping")], containers, []) == [step("redis", "Starting")]


def test_only_services_asked_for_are_started() -> None:
    containers = [container("redis", "exited"), container("postgres", "exited")]
    assert foreseen([], containers, ["postgres"]) == [step("postgres", "Starting")]


def test_what_compose_would_make_is_kept_and_told() -> None:
    steps = [step("proxy", "Recreate"), step("n8n", "Stopping"), step("proxy", "Stopping")]
    expected = "container pi-commerce-proxy-1: recreate\ncontainer pi-commerce-redis-1: starting\n"
    assert told(foreseen(steps, [container("redis", "exited")], [])) == expected
