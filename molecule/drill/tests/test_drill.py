"""A drill on the machine, as cron does it and as `make drill` does it."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from testinfra.host import Host

RUN = "pi-commerce-backup"
DRILL, OVERDUE = " drill >/dev/null", " drill --overdue"


def cron(host: Host, ending: str) -> list[str]:
    """The fields of the line that ends like this, and how cron runs it."""
    text = host.file("/etc/cron.d/pi-commerce-drill").content_string.splitlines()
    [path] = [line for line in text if line.startswith("PATH=")]
    [line] = [line for line in text if line.endswith(ending)]
    *times, user, command = line.split(maxsplit=6)
    return [*times, f"runuser -u {user} -- env -i {path} sh -c '{command}'"]


def test_it_takes_place_when_it_should(host: Host, variables: dict[str, Any]) -> None:
    minute, hour, day = (str(variables[f"drill_{unit}"]) for unit in ("minute", "hour", "day"))
    assert cron(host, DRILL)[:5] == [minute, hour, day, "*", "*"]
    assert cron(host, OVERDUE)[:5] == [minute, "12", "*", "*", "*"]


@pytest.fixture(scope="module")
def drilled(host: Host, variables: dict[str, Any]) -> dict[str, Any]:
    """The report of a drill that cron has begun, of a shop that was on for a night."""
    for job in ("nightly", "ship", "ship"):
        host.check_output(f"{RUN} {job}")
    done = host.run(cron(host, DRILL)[-1])
    folder = f"{variables.get('backup_folder', '/var/backups/pi-commerce')}/drills"
    newest = max(name for name in host.file(folder).listdir() if re.fullmatch(r"2\w+\.json", name))
    report: dict[str, Any] = json.loads(host.file(f"{folder}/{newest}").content_string)
    assert (done.rc, done.stdout) == (0, ""), report
    return report


def test_the_whole_shop_came_back(drilled: dict[str, Any], variables: dict[str, Any]) -> None:
    assert drilled["verdict"] == "verified"
    assert drilled["repository"] == (variables["drill_repository"] or list(variables["backup_repositories"])[-1])
    outcomes = {entry["name"]: entry["outcome"] for entry in drilled["checks"]}
    assert {name for name, outcome in outcomes.items() if outcome != "passed"} == {"bundle opens"}
    assert {"redis redis_data", "files n8n_data", "dumps", "point in time", "canaries", "n8n workflow"} <= set(outcomes)
    part = next(entry["text"] for entry in drilled["checks"] if entry["name"] == "structure")
    assert f" of {variables['drill_parts']} of its data read" in part


def test_nothing_is_left_and_nothing_is_overdue(host: Host, drilled: dict[str, Any]) -> None:
    listed = host.check_output("docker ps --all --format '{{.Names}}'; docker volume ls --quiet")
    assert "pi-commerce-drill" not in listed
    assert host.check_output(cron(host, OVERDUE)[-1]) == ""


def test_operators_drill_opens_the_secrets_bundle(drilled: dict[str, Any], control: Any) -> None:
    """With a key that is on no disk of the machine."""
    done = control("ansible-playbook", "-i", "inventory/virtual", "playbooks/drill.yml")
    assert done.returncode == 0, done.stdout
    assert re.search(r"passed +bundle opens: opens, \d+ files", done.stdout), done.stdout
    assert re.search(r"verified: shop-pi from repository \w+ in \d+ s, ", done.stdout), done.stdout
    assert "AGE-SECRET-KEY" not in done.stdout
