#!/usr/bin/python
"""Ansible module: the workflow files and credentials of this project, live in a running n8n."""

from __future__ import annotations

import json
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.containers import CommandFailed, ContainerAway, container_address, run_in_container
from ansible.module_utils.n8n_api import N8n, N8nError, OwnerSession
from ansible.module_utils.n8n_plan import (
    VERBS,
    Action,
    Workflow,
    WorkflowError,
    digest,
    missing_credentials,
    plan_credentials,
    plan_removals,
    plan_workflows,
    read_workflows,
    unknown_nodes,
)
from ansible.module_utils.psql import SqlError, literal, psql

DOCUMENTATION = r"""
module: n8n_workflows
short_description: Workflow files and credentials, live in a running n8n
description:
  - Publishes exactly the content of the given workflow files. What is live already is not touched; a changed
    workflow is replaced without a gap in service; one that was edited or unpublished by hand is put back.
  - A workflow that this module once published and that is no longer declared is unpublished, never deleted.
  - Imports credentials whose declared values changed since the last import, or that n8n has lost. A keyed digest
    of what was imported is kept in the table C(pi_commerce.applied) of n8n's database, never the values.
  - A credential that this module once imported and that is no longer declared is deleted, so that no secret outlives
    its declaration. A workflow stays because it holds more than its file, the history of its runs.
  - Refuses before anything is changed when a file cannot work (unknown node, webhook used twice, no trigger).
  - For changes to workflows, and to delete a credential, it logs in as the owner and makes an API key that it deletes
    again.
options:
  container: {description: Name or id of the running n8n container., type: str, required: true}
  database_container: {description: Name or id of the PostgreSQL container of n8n., type: str, required: true}
  database: {description: Database of n8n., type: str, default: n8n}
  superuser: {description: Role psql connects as in the database container., type: str, default: postgres}
  workflows:
    description: All workflow files; leaving one out unpublishes it.
    type: list
    elements: dict
    required: true
    suboptions:
      file: {description: Name of the file; for messages., type: str, required: true}
      content: {description: "The workflow, as an object or as JSON text.", type: raw, required: true}
  credentials:
    description: Credentials to keep in n8n. C(data) and C(secrets) together are the fields n8n asks for.
    type: list
    elements: dict
    default: []
    suboptions:
      id: {description: Fixed id that nodes refer to., type: str, required: true}
      name: {description: Name people see., type: str, required: true}
      type: {description: "Credential type, like postgres.", type: str, required: true}
      data: {description: Fields that may be seen., type: dict, default: {}}
      secrets: {description: Fields that must not., type: dict, default: {}}
  owner_email: {description: E-mail address the owner of n8n logs in with., type: str, required: true}
  owner_password: {description: Password of the owner., type: str, required: true}
  digest_key: {description: Secret key of the digests., type: str, required: true}
  ready_timeout: {description: Seconds to wait for n8n to be ready., type: int, default: 180}
  import_timeout:
    description: Seconds that one call of n8n's command line, which boots half of n8n, may take.
    type: int
    default: 300
author: [pi-commerce]
"""

EXAMPLES = r"""
- name: Publish the workflows
  n8n_workflows:
    container: pi-commerce-n8n-1
    database_container: pi-commerce-postgres-1
    workflows:
      - file: health-echo.json
        content: "{{ lookup('ansible.builtin.file', 'workflows/health-echo.json') }}"
    credentials:
      - id: piShopPostgres01
        name: Shop database
        type: postgres
        data: {host: postgres, port: 5432, database: shop, user: shop, ssl: disable}
        secrets: {password: "{{ shop_db_password }}"}
    owner_email: "{{ n8n_owner_email }}"
    owner_password: "{{ n8n_owner_password }}"
    digest_key: "{{ n8n_digest_key }}"
"""

RETURN = r"""
actions:
  description: What was (or would be) done, each as "verb name (id)".
  type: list
  elements: str
  returned: success
"""

_NOTHING: dict[str, Any] = {"workflows": {}, "credentials": [], "applied": {}}
# n8n's command line reads files only: this one is private, on the container's tmpfs, and gone when sh ends.
_IMPORT = 'umask 077; file=$(mktemp); trap \'rm -f "$file"\' EXIT; cat >"$file"; n8n "import:$0" --input="$file"'


def state_script(workflows: list[Workflow]) -> str:
    """The psql script that reads what n8n has and what was imported before."""
    declared = f"ARRAY[{', '.join(literal(workflow.id) for workflow in workflows)}]::text[]"
    return f"""
        SELECT to_regclass('pi_commerce.applied') IS NOT NULL AS recorded \\gset
        \\if :recorded
        SELECT coalesce(json_object_agg(kind, digests), '{{}}')
          FROM (SELECT kind, json_object_agg(id, digest) AS digests FROM pi_commerce.applied GROUP BY 1) AS _;
        \\else
        SELECT '{{}}';
        \\endif
        SELECT json_build_object(
          'credentials', (SELECT coalesce(json_agg(id), '[]') FROM credentials_entity),
          'workflows', (SELECT coalesce(json_object_agg(w.id, CASE WHEN w.id = ANY ({declared})
              THEN json_build_object('name', w.name, 'active', w.active, 'archived', w."isArchived",
                'nodes', w.nodes, 'connections', w.connections, 'settings', w.settings,
                'live', json_build_object('nodes', h.nodes, 'connections', h.connections))
              ELSE json_build_object('name', w.name, 'active', w.active) END), '{{}}')
            FROM workflow_entity w LEFT JOIN workflow_history h ON h."versionId" = w."activeVersionId"));
    """  # every value is a literal()


def parse_state(output: str) -> dict[str, Any]:
    """What the script of `state_script` printed; for its shape see plan_workflows."""
    applied, _, rest = output.partition("\n")
    return {"applied": json.loads(applied), **json.loads(rest)}


def record(container: str, superuser: str, database: str, digests: dict[tuple[str, str], str]) -> None:
    """Remember digests, by (kind, id), in n8n's database."""
    rows = [(*key, value) for key, value in digests.items()]
    values = ", ".join(f"({', '.join(map(literal, row))})" for row in rows)
    script = f"""
        SET client_min_messages = warning;
        CREATE SCHEMA IF NOT EXISTS pi_commerce;
        CREATE TABLE IF NOT EXISTS pi_commerce.applied
          (kind text, id text, digest text NOT NULL, PRIMARY KEY (kind, id));
        INSERT INTO pi_commerce.applied VALUES {values}
          ON CONFLICT (kind, id) DO UPDATE SET digest = excluded.digest;
    """  # every value is a literal()
    psql(container, script, superuser=superuser, database=database)


def import_all(container: str, kind: str, items: list[dict[str, Any]], timeout: float) -> None:
    """Import workflows or credentials with one call of n8n's command line. Raises N8nError with its output."""
    try:
        run_in_container(container, ["sh", "-c", _IMPORT, kind], json.dumps(items), timeout)
    except CommandFailed as failure:
        raise N8nError(f"n8n import:{kind} failed: {failure.stdout.strip() or failure}") from failure


class Converge:
    """One run: what is declared, what n8n has, and the steps between."""

    def __init__(self, params: dict[str, Any]) -> None:
        """Check what is declared. Raises WorkflowError."""
        self.params = params
        self.workflows = read_workflows(params["workflows"])
        self.credentials = [
            {
                **{key: entry[key] for key in ("id", "name", "type")},
                "data": {**entry["data"], **entry["secrets"]},
            }
            for entry in params["credentials"]
        ]
        self.database = (params["database_container"], params["superuser"], params["database"])
        self.done: dict[tuple[str, str], str] = {}

    def plan(self, state: dict[str, Any]) -> None:
        """Decide the steps. Raises WorkflowError when a workflow could not work."""
        if problems := missing_credentials(self.workflows, self.credentials, state):
            raise WorkflowError("\n".join(problems))
        self.credential_steps: list[Action] = plan_credentials(self.credentials, self.params["digest_key"], state)
        self.workflow_steps: list[Action] = plan_workflows(self.workflows, state)
        self.removal_steps: list[Action] = plan_removals(self.credentials, state)
        recorded = state["applied"].get("workflow", {})
        self.unrecorded = [workflow for workflow in self.workflows if workflow.id not in recorded]

    @property
    def steps(self) -> list[Action]:
        """Return all steps in their order."""
        return self.credential_steps + self.workflow_steps + self.removal_steps

    def apply(self, n8n: N8n) -> None:
        """Take the steps; whatever was done is recorded even when a later step fails."""
        try:
            if verbs := {step.verb for step in self.workflow_steps + self.removal_steps}:
                owner = (self.params["owner_email"], self.params["owner_password"])
                # Long enough for both imports and what is asked between them.
                seconds = 2 * self.params["import_timeout"] + 300
                with OwnerSession(n8n, *owner, verbs, seconds) as session:
                    self._refuse_unknown_nodes(session)
                    self._import_credentials()
                    self._apply_workflows(session)
                    for step in self.removal_steps:
                        session.delete_credential(step.id)
            else:
                self._import_credentials()
            live = self._touched() + self.unrecorded
            self._done("workflow", [{"id": workflow.id, **workflow.body} for workflow in live])
        finally:
            if self.done:
                record(*self.database, self.done)

    def _done(self, kind: str, items: list[dict[str, Any]]) -> None:
        self.done.update({(kind, item["id"]): digest(self.params["digest_key"], item) for item in items})

    def _touched(self) -> list[Workflow]:
        changing = {step.id for step in self.workflow_steps if step.verb in ("create", "update", "publish")}
        return [workflow for workflow in self.workflows if workflow.id in changing]

    def _refuse_unknown_nodes(self, session: OwnerSession) -> None:
        if problems := unknown_nodes(self._touched(), session.node_types()):
            raise WorkflowError("\n".join(problems))

    def _import(self, kind: str, items: list[dict[str, Any]]) -> None:
        import_all(self.params["container"], kind, items, self.params["import_timeout"])

    def _import_credentials(self) -> None:
        changing = {step.id for step in self.credential_steps}
        items = [credential for credential in self.credentials if credential["id"] in changing]
        if items:
            self._import("credentials", items)
            self._done("credential", items)

    def _apply_workflows(self, session: OwnerSession) -> None:
        bodies = {workflow.id: workflow.body for workflow in self.workflows}
        new = [{"id": step.id, **bodies[step.id]} for step in self.workflow_steps if step.verb == "create"]
        if new:
            self._import("workflow", new)
        for step in self.workflow_steps:
            if step.verb == "update":
                session.update(step.id, bodies[step.id])
            elif step.verb != "create":
                getattr(session, step.verb)(step.id)


def main() -> None:
    """Run the module."""
    text = {"type": "str", "required": True}
    secret = {"type": "str", "required": True, "no_log": True}
    module = AnsibleModule(
        argument_spec={
            "container": text,
            "database_container": text,
            "database": {"type": "str", "default": "n8n"},
            "superuser": {"type": "str", "default": "postgres"},
            "workflows": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {"file": text, "content": {"type": "raw", "required": True}},
            },
            "credentials": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "no_log": False,  # `secrets` is what must stay hidden; the rest belongs in messages
                "options": {
                    "id": text,
                    "name": text,
                    "type": text,
                    "data": {"type": "dict", "default": {}},
                    "secrets": {"type": "dict", "default": {}, "no_log": True},
                },
            },
            "owner_email": text,
            "owner_password": secret,
            "digest_key": secret,
            "ready_timeout": {"type": "int", "default": 180},
            "import_timeout": {"type": "int", "default": 300},
        },
        supports_check_mode=True,
    )
    params = module.params
    try:
        converge = Converge(params)
        try:
            n8n = N8n(container_address(params["container"]))
            n8n.wait_until_ready(params["ready_timeout"])
            container, superuser, database = converge.database
            output = psql(container, state_script(converge.workflows), superuser=superuser, database=database)
            state = parse_state(output)
        except ContainerAway:
            if not module.check_mode:
                raise
            state = _NOTHING  # a bare host: everything is still to be made
        converge.plan(state)
        if not module.check_mode:
            converge.apply(n8n)
    except (WorkflowError, N8nError, ContainerAway, SqlError) as problem:
        module.fail_json(msg=str(problem))
    steps = converge.steps
    before, after = ("".join(f"{step.title}: {VERBS[step.verb][side]}\n" for step in steps) for side in (0, 1))
    actions = [f"{step.verb} {step.title}" for step in steps]
    module.exit_json(changed=bool(steps), actions=actions, diff={"before": before, "after": after})


if __name__ == "__main__":
    main()
