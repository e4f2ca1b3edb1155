"""What the plan makes of files and of what n8n has."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from n8n_plan import (
    WorkflowError,
    digest,
    missing_credentials,
    plan_credentials,
    plan_removals,
    plan_workflows,
    read_workflows,
    unknown_nodes,
)

A, B, C = "aaaaaaaaaaaaaaaa", "bbbbbbbbbbbbbbbb", "cccccccccccccccc"
CREDENTIAL = {"id": "x", "name": "X", "type": "postgres", "data": {"password": "p"}}
State = dict[str, Any]


def workflow(identity: str = A, path: str = "hook", **changes: Any) -> dict[str, Any]:
    """A small workflow that is right; keyword arguments replace keys."""
    return {
        "id": identity,
        "name": f"Workflow {identity[0]}",
        "nodes": [
            {
                "id": f"{identity[0]}1",
                "name": "In",
                "type": "n8n-nodes-base.webhook",
                "typeVersion": 2.1,
                "position": [0, 0],
                "webhookId": f"hook-{identity}",
                "parameters": {"httpMethod": "POST", "path": path},
            },
            {
                "id": f"{identity[0]}2",
                "name": "Out",
                "type": "n8n-nodes-base.noOp",
                "typeVersion": 1,
                "position": [1, 0],
                "parameters": {},
            },
        ],
        "connections": {"In": {"main": [[{"node": "Out", "type": "main", "index": 0}]]}},
        "settings": {"executionOrder": "v1"},
        **changes,
    }


def caller(identity: str, called: str, path: str) -> dict[str, Any]:
    """A workflow that runs another one."""
    document = workflow(identity, path)
    document["nodes"][1].update(
        type="n8n-nodes-base.executeWorkflow",
        parameters={"workflowId": {"__rl": True, "mode": "id", "value": called}},
    )
    return document


def read(*documents: Any) -> Any:
    return read_workflows([{"file": f"{n}.json", "content": document} for n, document in enumerate(documents)])


def state(*documents: dict[str, Any], **changes: Any) -> State:
    """n8n with these documents published and known as ours."""
    workflows = {}
    for document in copy.deepcopy(documents):
        content = {key: document[key] for key in ("nodes", "connections")}
        workflows[document["id"]] = {
            **{key: document[key] for key in ("name", "nodes", "connections", "settings")},
            "active": True,
            "archived": False,
            "live": content,
        }
    applied = {"workflow": dict.fromkeys(workflows, "d")}
    return {"workflows": workflows, "credentials": [], "applied": applied, **changes}


def verbs(documents: list[dict[str, Any]], now: State) -> list[str]:
    return [f"{step.verb} {step.id[0]}" for step in plan_workflows(read(*documents), now)]


def test_what_is_live_already_needs_nothing() -> None:
    assert verbs([workflow()], state(workflow())) == []


def test_a_new_workflow_is_created_and_published() -> None:
    assert verbs([workflow()], state()) == ["create a", "publish a"]


def test_content_may_be_the_text_of_the_file() -> None:
    [read_one] = read(json.dumps(workflow(updatedAt="today", active=True, pinData={})))
    assert sorted(read_one.body) == ["connections", "name", "nodes", "settings"]


@pytest.mark.parametrize(
    "change",
    [
        {"name": "Other"},
        {"connections": {}},
        {"settings": {"executionOrder": "v0"}},
        {"nodes": workflow()["nodes"][:1]},
        {"nodes": [{**workflow()["nodes"][0], "disabled": True}, workflow()["nodes"][1]]},
    ],
)
def test_any_difference_is_an_update(change: dict[str, Any]) -> None:
    assert verbs([workflow()], state(workflow(**change))) == ["update a"]


@pytest.mark.parametrize(
    "change",
    [
        {"nodes": workflow()["nodes"][::-1]},
        {"settings": {"executionOrder": "v1", "callerPolicy": "any"}},
        {"nodes": [workflow()["nodes"][0], {**workflow()["nodes"][1], "webhookId": "made by n8n"}]},
    ],
)
def test_what_n8n_adds_by_itself_is_no_difference(change: dict[str, Any]) -> None:
    assert verbs([workflow()], state(workflow(**change))) == []


def test_default_settings_are_left_out_as_n8n_does() -> None:
    declared = workflow(settings={"executionOrder": "v1", "timezone": "DEFAULT"})
    assert verbs([declared], state(workflow())) == []


def test_unpublished_by_hand_is_published_again() -> None:
    now = state(workflow())
    now["workflows"][A].update(active=False, live={"nodes": None, "connections": None})
    assert verbs([workflow()], now) == ["publish a"]


def test_an_older_version_that_is_live_is_replaced() -> None:
    now = state(workflow())
    now["workflows"][A]["live"]["nodes"] = []
    assert verbs([workflow()], now) == ["publish a"]


def test_changed_and_archived_is_brought_back_and_updated() -> None:
    now = state(workflow(name="Other"))
    now["workflows"][A].update(active=False, archived=True, live={"nodes": None, "connections": None})
    assert verbs([workflow()], now) == ["unarchive a", "update a", "publish a"]


def test_only_what_was_ours_is_unpublished() -> None:
    now = state(workflow(A), workflow(B, "b"), workflow(C, "c"))
    del now["applied"]["workflow"][C]
    assert verbs([workflow(A)], now) == ["unpublish b"]
    now["workflows"][B]["active"] = False
    assert verbs([workflow(A)], now) == []
    del now["workflows"][B]
    assert verbs([workflow(A)], now) == []


def test_called_workflows_are_published_first() -> None:
    documents = [caller(A, B, "a"), caller(B, C, "b"), workflow(C, "c")]
    assert [step[-1] for step in verbs(documents, state()) if step.startswith("publish")] == ["c", "b", "a"]


def test_an_error_workflow_is_published_first() -> None:
    documents = [workflow(A, settings={"errorWorkflow": B}), workflow(B, "b")]
    assert verbs(documents, state()) == ["create b", "publish b", "create a", "publish a"]


def test_calls_in_a_circle_are_refused() -> None:
    with pytest.raises(WorkflowError, match=r"in a circle.*\.json -> .*\.json"):
        read(caller(A, B, "a"), caller(B, A, "b"))


def changed_node(number: int, **changes: Any) -> dict[str, Any]:
    document = workflow()
    document["nodes"][number].update(changes)
    return document


def without(*path: Any) -> dict[str, Any]:
    document: Any = workflow()
    inner = document
    for key in path[:-1]:
        inner = inner[key]
    del inner[path[-1]]
    return dict(document)


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ('{"id": ', "0.json: not JSON: Expecting value: line 1 column 8"),
        ([workflow()], "must be one workflow object"),
        (without("id"), "'id' is missing or not 16 letters and digits"),
        (workflow("short"), "'id' is missing or not 16 letters and digits"),
        (without("connections"), "'connections' is missing"),
        (workflow(settings=[]), "'settings' must be an object"),
        (without("nodes", 0, "webhookId"), "webhook node 'In' has no webhookId"),
        (without("nodes", 1, "typeVersion"), "node Out: typeVersion missing"),
        (changed_node(1, name="In"), "two nodes are named 'In'"),
        (
            workflow(connections={"In": {"main": [[{"node": "Away"}]]}}),
            "connections name 'Away', which is no node",
        ),
        (changed_node(0, type="n8n-nodes-base.manualTrigger"), "no trigger"),
        (changed_node(0, disabled=True), "no trigger"),
    ],
)
def test_a_file_that_cannot_work_is_refused(document: Any, message: str) -> None:
    with pytest.raises(WorkflowError) as refused:
        read(document)
    assert "0.json" in str(refused.value)
    assert message in str(refused.value)


def test_every_problem_of_every_file_is_told() -> None:
    with pytest.raises(WorkflowError) as refused:
        read("{", without("id"), workflow())
    assert len(str(refused.value).splitlines()) == 2


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (workflow(A, "other"), f"1.json: id {A} is already used in 0.json"),
        (workflow(B, "/hook/"), "1.json: webhook POST hook is already used in 0.json"),
        (
            {**workflow(B, "b"), "nodes": [{**workflow(B, "b")["nodes"][0], "webhookId": f"hook-{A}"}]},
            f"1.json: webhookId hook-{A} is already used in 0.json",
        ),
    ],
)
def test_files_that_clash_are_refused(second: dict[str, Any], message: str) -> None:
    second = {**second, "connections": {}}
    with pytest.raises(WorkflowError, match=message):
        read(workflow(), second)


def test_same_path_with_another_method_is_no_clash() -> None:
    other = workflow(B)
    other["nodes"][0]["parameters"]["httpMethod"] = ["GET", "PUT"]
    assert len(read(workflow(), other)) == 2


def test_credentials_are_imported_when_new_changed_or_lost() -> None:
    known = {"applied": {"credential": {"x": digest("key", CREDENTIAL)}}, "credentials": ["x"]}
    assert plan_credentials([CREDENTIAL], "key", known) == []
    changed = {**CREDENTIAL, "data": {"password": "q"}}
    for declared, key, now in (
        (CREDENTIAL, "key", {"applied": {}, "credentials": ["x"]}),
        (CREDENTIAL, "key", {**known, "credentials": []}),
        (changed, "key", known),
        (CREDENTIAL, "another key", known),
    ):
        [step] = plan_credentials([declared], key, now)
        assert (step.verb, step.title) == ("import credential", "X (x)")


def test_only_a_withdrawn_credential_of_ours_is_deleted() -> None:
    now = {"applied": {"credential": {"x": "digest", "lost": "digest"}}, "credentials": ["x", "by hand"]}
    assert [step.verb + " " + step.id for step in plan_removals([], now)] == ["delete credential x"]
    assert plan_removals([CREDENTIAL], now) == []


def test_a_withdrawn_credential_that_is_still_used_is_named() -> None:
    document = changed_node(1, credentials={"postgres": {"id": "x", "name": "X"}})
    now = {**state(), "applied": {"credential": {"x": "digest"}}, "credentials": ["x"]}
    assert "node 'Out' uses credential 'X' (x)" in missing_credentials(read(document), [], now)[0]
    assert missing_credentials(read(document), [CREDENTIAL], now) == []


def test_a_credential_that_nobody_has_is_named() -> None:
    document = changed_node(1, credentials={"postgres": {"id": "x", "name": "X"}})
    assert "node 'Out' uses credential 'X' (x)" in missing_credentials(read(document), [], state())[0]
    assert missing_credentials(read(document), [CREDENTIAL], state()) == []
    assert missing_credentials(read(document), [], state(credentials=["x"])) == []


def test_unknown_node_types_and_versions_are_named() -> None:
    have = ["n8n-nodes-base.webhook@2.1", "n8n-nodes-base.noOp@1"]
    assert unknown_nodes(read(workflow()), have) == []
    old = ["n8n-nodes-base.webhook@1", "n8n-nodes-base.webhook@2"]
    assert unknown_nodes(read(workflow()), old) == [
        "0.json: node 'In': this n8n has no version 2.1 of n8n-nodes-base.webhook",
        "0.json: node 'Out': this n8n has no node type n8n-nodes-base.noOp",
    ]
