"""What separates the workflow files and credentials of this project from a running n8n: no I/O in here.

A *workflow file* is the JSON object n8n exports: {id, name, nodes, connections, settings, ...}. Other keys of
an export (versionId, updatedAt, pinData, ...) change by themselves and are left out everywhere.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from graphlib import CycleError, TopologicalSorter
from typing import Any, NamedTuple

Json = dict[str, Any]

_ID = re.compile(r"[A-Za-z0-9]{16}")
_WEBHOOK = "n8n-nodes-base.webhook"
_EXECUTE = "n8n-nodes-base.executeWorkflow"
# Nodes that start a published workflow although their name does not end in "Trigger".
_TRIGGERS = (_WEBHOOK, "n8n-nodes-base.emailReadImap")
_NEVER_LIVE = ("n8n-nodes-base.manualTrigger",)


class WorkflowError(Exception):
    """One or several files cannot be used; the text names each file and node."""


class Workflow(NamedTuple):
    """A checked workflow file: `body` is exactly what n8n's public API accepts for it."""

    file: str
    id: str
    body: Json

    @property
    def title(self) -> str:
        """Return how people see this workflow: its name and id."""
        return f"{self.body['name']} ({self.id})"


class Action(NamedTuple):
    """One thing to do: `verb` is a key of VERBS, `id` the workflow's or credential's."""

    verb: str
    id: str
    title: str


# verb -> (state before, state after), for people.
VERBS = {
    "import credential": ("missing or other values", "as declared"),
    "create": ("missing", "as in its file"),
    "unarchive": ("archived", "not archived"),
    "update": ("other content", "as in its file"),
    "publish": ("not published as it is", "published"),
    "unpublish": ("published but no longer declared", "unpublished"),
    "delete credential": ("no longer declared", "deleted"),
}


def digest(key: str, value: object) -> str:
    """Return a keyed SHA-256 of any JSON value: says whether it changed and tells nothing else."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hmac.new(key.encode(), text.encode(), hashlib.sha256).hexdigest()


def read_workflows(files: list[Json]) -> list[Workflow]:
    """Return the checked workflows of `files`, a list of {file, content}; content is an object or JSON text.

    Called workflows come before their callers, because n8n publishes only what calls published ones. Raises
    WorkflowError with one line per problem found in any of them.
    """
    workflows, problems = [], []
    for entry in files:
        file = entry["file"]
        try:
            content = entry["content"]
            content = json.loads(content) if isinstance(content, str) else content
        except json.JSONDecodeError as error:
            problems.append(f"{file}: not JSON: {error}")
            continue
        found = _problems(content)
        problems += [f"{file}: {problem}" for problem in found]
        if not found:
            workflows.append(Workflow(file, content["id"], _body(content)))
    problems += _clashes(workflows)
    if problems:
        raise WorkflowError("\n".join(problems))
    return _callees_first(workflows)


def _callees_first(workflows: list[Workflow]) -> list[Workflow]:
    known = {workflow.id: workflow for workflow in workflows}
    calls = {workflow.id: _calls(workflow.body) & (known.keys() - {workflow.id}) for workflow in workflows}
    try:
        return [known[called] for called in TopologicalSorter(calls).static_order()]
    except CycleError as error:
        files = " -> ".join(known[called].file for called in error.args[1])
        raise WorkflowError(
            f"these workflows call each other in a circle, so none can be published: {files}"
        ) from error


def _calls(body: Json) -> set[str]:
    """Return the ids of the workflows that this one runs: its sub-workflows and its error workflow."""
    references = [node["parameters"].get("workflowId") for node in body["nodes"] if node["type"] == _EXECUTE]
    ids = {reference.get("value") if isinstance(reference, dict) else reference for reference in references}
    return {str(called) for called in (*ids, body["settings"].get("errorWorkflow")) if called}


def _body(content: Json) -> Json:
    """Keep what n8n's public API takes. "DEFAULT" settings are dropped because n8n drops them too."""
    settings = {key: value for key, value in content.get("settings", {}).items() if value != "DEFAULT"}
    return {
        "name": content["name"],
        "nodes": content["nodes"],
        "connections": content["connections"],
        "settings": settings,
    }


def _problems(content: object) -> list[str]:
    """List what is wrong within one file."""
    if not isinstance(content, dict):
        return ["must be one workflow object; export each workflow into a file of its own"]
    shapes = {"name": str, "nodes": list, "connections": dict}
    wrong = [f"'{key}' is missing or empty" for key, kind in shapes.items() if not isinstance(content.get(key), kind)]
    if not _ID.fullmatch(str(content.get("id", ""))):
        wrong.append("'id' is missing or not 16 letters and digits; give the file a fixed id of its own")
    if not isinstance(content.get("settings", {}), dict):
        wrong.append("'settings' must be an object")
    if wrong:
        return wrong
    nodes = content["nodes"]
    for number, node in enumerate(nodes, 1):
        if missing := [key for key in ("id", "name", "type", "typeVersion") if key not in node]:
            wrong.append(f"node {node.get('name', number)}: {', '.join(missing)} missing")
        elif node["type"] == _WEBHOOK and not node.get("webhookId"):
            wrong.append(f"webhook node '{node['name']}' has no webhookId; n8n would give it a new one each time")
    if wrong:
        return wrong
    names = [node["name"] for node in nodes]
    wrong += [f"two nodes are named '{name}'" for name in sorted(set(names)) if names.count(name) > 1]
    wrong += [f"connections name '{name}', which is no node" for name in sorted(_connected(content) - set(names))]
    if not any(_starts(node) for node in nodes):
        wrong.append("no trigger: without a webhook, schedule or other trigger node it cannot be published")
    return wrong


def _connected(content: Json) -> set[str]:
    targets = {
        link["node"]
        for outputs in content["connections"].values()
        for branches in outputs.values()
        for branch in branches
        for link in branch or []
    }
    return targets | set(content["connections"])


def _starts(node: Json) -> bool:
    kind = node["type"]
    return not node.get("disabled") and kind not in _NEVER_LIVE and (kind in _TRIGGERS or kind.endswith("Trigger"))


def webhooks(workflow: Workflow) -> list[str]:
    """Return the endpoints of a workflow, each as "METHOD path"."""
    endpoints = []
    for node in workflow.body["nodes"]:
        if node["type"] == _WEBHOOK and not node.get("disabled"):
            methods = node["parameters"].get("httpMethod", "GET")
            path = node["parameters"].get("path", node["webhookId"]).strip("/")
            endpoints += [f"{method} {path}" for method in (methods if isinstance(methods, list) else [methods])]
    return endpoints


def _clashes(workflows: list[Workflow]) -> list[str]:
    """List what two files cannot both have."""
    owners: dict[str, str] = {}
    wrong = []
    for workflow in workflows:
        identities = [f"id {workflow.id}"] + [f"webhook {endpoint}" for endpoint in webhooks(workflow)]
        identities += [f"webhookId {node['webhookId']}" for node in workflow.body["nodes"] if node.get("webhookId")]
        for identity in identities:
            first = owners.setdefault(identity, workflow.file)
            if first != workflow.file or identities.count(identity) > 1:
                wrong.append(f"{workflow.file}: {identity} is already used in {first}")
    return wrong


def same(workflow: Workflow, live: Json) -> bool:
    """Say whether a live {name, nodes, connections, settings} does what the file says.

    Settings the file leaves out keep whatever n8n has (its API merges them and cannot remove one).
    """
    body = workflow.body
    settings = live["settings"] or {}
    return (
        live["name"] == body["name"]
        and same_content(body, live)
        and all(settings.get(key) == value for key, value in body["settings"].items())
    )


def same_content(body: Json, live: Json) -> bool:
    """Say whether nodes and connections are the same, in any order of nodes."""
    return _nodes(body["nodes"], body["nodes"]) == _nodes(live["nodes"], body["nodes"]) and (
        live["connections"] == body["connections"]
    )


def _nodes(nodes: list[Json], declared: list[Json]) -> Json:
    """Index nodes by id; a webhookId that the file leaves to n8n does not count."""
    without = {node["id"] for node in declared if not node.get("webhookId")}
    return {
        str(node.get("id")): {
            key: value for key, value in node.items() if key != "webhookId" or node.get("id") not in without
        }
        for node in nodes
    }


def plan_credentials(credentials: list[Json], key: str, state: Json) -> list[Action]:
    """Return an action for each {id, name, type, data} that n8n lacks or that differs from the last import."""
    applied = state["applied"].get("credential", {})
    return [
        Action("import credential", credential["id"], f"{credential['name']} ({credential['id']})")
        for credential in credentials
        if credential["id"] not in state["credentials"] or applied.get(credential["id"]) != digest(key, credential)
    ]


def plan_removals(credentials: list[Json], state: Json) -> list[Action]:
    """Return an action for each credential in n8n that was imported once and is no longer declared."""
    return [Action("delete credential", gone, gone) for gone in sorted(_withdrawn(credentials, state))]


def _withdrawn(credentials: list[Json], state: Json) -> set[str]:
    imported = set(state["applied"].get("credential", {})) & set(state["credentials"])
    return imported - {credential["id"] for credential in credentials}


def plan_workflows(workflows: list[Workflow], state: Json) -> list[Action]:
    """Return what to do, in order, so that exactly the content of the files is published.

    `state`: {"workflows": {id: {name, nodes, connections, settings, active, archived,
    live: {nodes, connections}|null}},
    "applied": {kind: {id: digest}}, "credentials": [ids]}.
    """
    steps = []
    for workflow in workflows:
        live = state["workflows"].get(workflow.id)
        steps += [Action(verb, workflow.id, workflow.title) for verb in _steps(workflow, live)]
    declared = {workflow.id for workflow in workflows}
    for gone in sorted(set(state["applied"].get("workflow", {})) - declared):
        live = state["workflows"].get(gone)
        if live and live["active"]:
            steps.append(Action("unpublish", gone, f"{live['name']} ({gone})"))
    return steps


def _steps(workflow: Workflow, live: Json | None) -> list[str]:
    if live is None:
        return ["create", "publish"]
    steps = ["unarchive"] if live["archived"] else []
    changed = not same(workflow, live)
    if changed:
        steps.append("update")
    # Updating a published workflow publishes it again; everything else takes a step of its own.
    if not live["active"] or (not changed and not same_content(workflow.body, live["live"])):
        steps.append("publish")
    return steps


def missing_credentials(workflows: list[Workflow], credentials: list[Json], state: Json) -> list[str]:
    """List the credentials that nodes name but that are neither declared nor stay in n8n (it would unlink them)."""
    known = (set(state["credentials"]) - _withdrawn(credentials, state)) | {
        credential["id"] for credential in credentials
    }
    return [
        f"{workflow.file}: node '{node['name']}' uses credential '{credential.get('name')}'"
        f" ({credential.get('id')}), which is neither declared nor in n8n"
        for workflow in workflows
        for node in workflow.body["nodes"]
        for credential in node.get("credentials", {}).values()
        if credential.get("id") not in known
    ]


def unknown_nodes(workflows: list[Workflow], available: list[str]) -> list[str]:
    """List the nodes whose "type@version" is not among those that n8n has."""
    have = set(available)
    types = {entry.rpartition("@")[0] for entry in have}
    problems = []
    for workflow in workflows:
        for node in workflow.body["nodes"]:
            where = f"{workflow.file}: node '{node['name']}'"
            kind, version = node["type"], f"{node['typeVersion']:g}"
            if kind not in types:
                problems.append(f"{where}: this n8n has no node type {kind}")
            elif f"{kind}@{version}" not in have:
                problems.append(f"{where}: this n8n has no version {version} of {kind}")
    return problems
