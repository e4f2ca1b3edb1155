"""What a check tells about containers is what a run would do to them."""

from __future__ import annotations

import pytest
from compose_steps import foreseen, ill_before, told


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


@pytest.mark.parametrize("message", ["General error: {}", "dependency failed to start: {}"])
def test_what_was_ill_before_the_run_is_known(message: str) -> None:
    said = message.format("container pi-commerce-posting_queue-1 is unhealthy")
    answer = {"failed": True, "msg": said, "actions": [step("redis", "Starting")]}
    assert ill_before(answer) == "pi-commerce-posting_queue-1"


@pytest.mark.parametrize("status", ["Creating", "Recreate", "Starting"])
def test_what_the_run_itself_started_gets_no_second_chance(status: str) -> None:
    said = "General error: container pi-commerce-redis-1 is unhealthy"
    assert ill_before({"failed": True, "msg": said, "actions": [step("redis", status)]}) == ""


def test_another_failure_is_none_of_an_ill_container() -> None:
    assert ill_before({"failed": True, "msg": "no such image"}) == ""
    assert ill_before({"changed": False, "actions": []}) == ""
