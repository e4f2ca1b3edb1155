"""The workflow files of the project: what n8n cannot say about them before they run."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from n8n_plan import read_workflows, webhooks

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "files/workflows").glob("*.json"))
SERVICES = {path.name.partition(".")[0] for path in (ROOT / "templates/services").glob("*.yml.j2")}
# Hidden or gone in the next n8n, or able to run programs on the machine.
DEPRECATED = {
    "function",
    "functionItem",
    "itemLists",
    "cron",
    "interval",
    "start",
    "executeCommand",
    "localFileTrigger",
}
SECRET_KEYS = re.compile(r"pass(word)?|secret|token|api_?key|authorization", re.IGNORECASE)
KEPT = {"id", "name", "nodes", "connections", "settings"}


def load(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text()))


def values(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Every (key, scalar) below a JSON value."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from values(inner, name)
    elif isinstance(value, list):
        for inner in value:
            yield from values(inner, key)
    else:
        yield key, value


def problems(document: dict[str, Any]) -> list[str]:
    """What a file must not have."""
    found = [f"key '{key}' changes by itself or is not ours" for key in sorted(set(document) - KEPT)]
    settings = document["settings"]
    found += [
        f"settings.{key} must be {value}"
        for key, value in {"executionOrder": "v1", "saveDataSuccessExecution": "none"}.items()
        if settings.get(key) != value
    ]
    for node in document["nodes"]:
        where = f"node {node['name']}"
        if node["type"].rpartition(".")[2] in DEPRECATED:
            found.append(f"{where}: {node['type']} is deprecated or not allowed")
        for credential in node.get("credentials", {}).values():
            if set(credential) != {"id", "name"}:
                found.append(f"{where}: a credential is named by id and name only")
        for key, value in values(node["parameters"]):
            if SECRET_KEYS.fullmatch(key) and value:
                found.append(f"{where}: '{key}' belongs into a credential")
            if "$env" in str(value):
                found.append(f"{where}: $env is blocked in workflows")
            found += [
                f"{where}: host {host} is not a service of ours"
                for host in (urlsplit(url).hostname for url in re.findall(r"https?://[^\s'\"`]+", str(value)))
                if host not in SERVICES
            ]
    return found


def test_there_are_workflows() -> None:
    assert [path.name for path in FILES] == ["health-echo.json", "order-intake.json"]


def test_ids_webhooks_and_triggers_are_right_and_unique() -> None:
    workflows = read_workflows([{"file": path.name, "content": load(path)} for path in FILES])
    assert {workflow.id for workflow in workflows} == {"piHealthEcho0001", "piOrderIntake001"}
    endpoints = sorted(endpoint for workflow in workflows for endpoint in webhooks(workflow))
    assert endpoints == ["GET health-echo", "POST order-intake"]


def test_node_ids_are_unique_over_all_files() -> None:
    ids = [node["id"] for path in FILES for node in load(path)["nodes"]]
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_file_is_fit_to_ship(path: Path) -> None:
    assert problems(load(path)) == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_node_can_be_reached(path: Path) -> None:
    document = load(path)
    reached = {value for key, value in values(document["connections"]) if key == "node"}
    assert {node["name"] for node in document["nodes"]} - reached == {document["nodes"][0]["name"]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"type": "n8n-nodes-base.function"}, "deprecated"),
        ({"parameters": {"url": "https://api.example.com/v1"}}, "host api.example.com is not"),
        ({"parameters": {"url": "=http://10.0.0.7/"}}, "host 10.0.0.7 is not"),
        ({"parameters": {"password": "hunter2"}}, "'password' belongs into a credential"),
        ({"parameters": {"jsCode": "return $env.SHOP"}}, "$env is blocked"),
        ({"credentials": {"postgres": {"id": "1", "name": "X", "data": "secret"}}}, "by id and name only"),
    ],
)
def test_the_guard_trips(change: dict[str, Any], message: str) -> None:
    document = load(FILES[0])
    document["nodes"][1].update(change)
    assert any(message in problem for problem in problems(document)), problems(document)


def test_the_guard_trips_on_the_whole_file() -> None:
    document = {**load(FILES[0]), "versionId": "1", "settings": {}}
    assert len(problems(document)) == 3
