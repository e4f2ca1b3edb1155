#!/usr/bin/python
"""Ansible module: the databases of a PostgreSQL container, each with the one role that may use it."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.containers import ContainerAway
from ansible.module_utils.psql import SqlError, identifier, literal, psql
from ansible.module_utils.scram import make_verifier, matches, refuse_unusable

DOCUMENTATION = r"""
module: postgres_databases
short_description: Databases of a PostgreSQL container, each with the one role that may use it
description:
  - Makes sure that every role exists as a plain login role with the given password, that every database is
    owned by its role, and that nobody else (not PUBLIC, no other role) may connect to it. Superusers always may.
  - The password travels as a SCRAM-SHA-256 verifier made on the managed host, never in plain text.
  - One read; one write only when something differs. Databases and roles that are not named stay as they are.
options:
  container: {description: Name or id of the running container., type: str, required: true}
  superuser: {description: Role that psql connects as inside the container., type: str, default: postgres}
  databases:
    description: The databases.
    type: list
    elements: dict
    required: true
    suboptions:
      name: {description: Database name., type: str, required: true}
      owner: {description: Role that owns it., type: str, required: true}
      password: {description: Password of that role (printable ASCII)., type: str, required: true}
author: [pi-commerce]
"""

EXAMPLES = r"""
- name: Create the shop database
  postgres_databases:
    container: pi-commerce-postgres-1
    databases:
      - {name: shop, owner: shop, password: "{{ shop_db_password }}"}
"""

RETURN = r"""
changes: {description: What was (or would be) done; names only., type: list, elements: str, returned: success}
"""

# Attributes of a role that only wants to use its database, as columns of pg_authid.
_ATTRIBUTES = {
    "LOGIN": ("rolcanlogin", True),
    "SUPERUSER": ("rolsuper", False),
    "CREATEDB": ("rolcreatedb", False),
    "CREATEROLE": ("rolcreaterole", False),
    "REPLICATION": ("rolreplication", False),
    "BYPASSRLS": ("rolbypassrls", False),
}
_PLAIN_ROLE = " ".join(word if wanted else f"NO{word}" for word, (_, wanted) in _ATTRIBUTES.items())
_SYSTEM_DATABASES = {"postgres", "template0", "template1"}


class Change(NamedTuple):
    """One thing to do: in words (names only) and in SQL."""

    text: str
    sql: str


def refuse_bad_input(databases: list[dict[str, Any]], superuser: str) -> None:
    """Raise SqlError when `databases` contradicts itself or names what it must not."""
    seen: set[str] = set()
    passwords: dict[str, str] = {}
    for database in databases:
        name, owner = database["name"], database["owner"]
        identifier(name, "databases: name")
        identifier(owner, f"databases: owner of '{name}'")
        if name in _SYSTEM_DATABASES:
            raise SqlError(f"databases: '{name}' belongs to PostgreSQL itself; choose another name")
        if name in seen:
            raise SqlError(f"databases: '{name}' is listed twice")
        seen.add(name)
        if owner == superuser:
            raise SqlError(f"databases: '{name}' must not be owned by the superuser '{superuser}'; name another role")
        try:
            refuse_unusable(database["password"])
        except ValueError as error:
            raise SqlError(f"databases: the password of role '{owner}' {error}") from error
        if passwords.setdefault(owner, database["password"]) != database["password"]:
            raise SqlError(f"databases: role '{owner}' is given two different passwords; write one everywhere")


def state_script(databases: list[dict[str, Any]]) -> str:
    """The psql script that reads the roles, the databases and the owners of their `public` schemas."""
    roles = ", ".join(literal(database["owner"]) for database in databases)
    names = ", ".join(literal(database["name"]) for database in databases)
    attributes = ", ".join(f"'{column}', {column}" for column, _ in _ATTRIBUTES.values())
    script = f"""
        SELECT json_build_object(
          'roles', (SELECT coalesce(json_object_agg(rolname,
              json_build_object('verifier', rolpassword, {attributes})), '{{}}')
            FROM pg_authid WHERE rolname IN ({roles})),
          'databases', (SELECT coalesce(json_object_agg(datname, json_build_object(
              'owner', pg_get_userbyid(datdba),
              'others', ARRAY(SELECT DISTINCT CASE grantee WHEN 0 THEN 'PUBLIC'
                  ELSE quote_ident(pg_get_userbyid(grantee)) END
                  FROM aclexplode(coalesce(datacl, acldefault('d', datdba))) WHERE grantee <> datdba),
              'usable', has_database_privilege(datdba, oid, 'CONNECT, CREATE')
            )), '{{}}') FROM pg_database WHERE datname IN ({names})));
    """  # every value is a literal()
    # `public` is seen from inside its database only, and connecting to a missing one would stop psql.
    for database in databases:
        name = literal(database["name"])
        script += f"""
        SELECT EXISTS (SELECT FROM pg_database WHERE datname = {name}) AS present \\gset
        \\if :present
        \\connect {identifier(database["name"], "database")}
        SELECT json_build_object({name}, pg_get_userbyid(nspowner)) FROM pg_namespace WHERE nspname = 'public';
        \\endif
        """  # a literal() and an identifier()
    return script


def parse_state(output: str) -> dict[str, Any]:
    """What the script of `state_script` printed, as `plan` takes it."""
    answer, *schemas = [json.loads(line) for line in output.splitlines()]
    answer["schemas"] = {name: owner for schema in schemas for name, owner in schema.items()}
    return dict(answer)


def role_changes(owner: str, password: str, state: dict[str, Any] | None) -> list[Change]:
    """What makes role `owner` a plain login role with `password`; `state` is None when it is missing."""
    quoted = identifier(owner, "owner")
    if state is None:
        sql = f"CREATE ROLE {quoted} {_PLAIN_ROLE} PASSWORD {literal(make_verifier(password))};"
        return [Change(f"create role {owner}", sql)]
    changes = []
    if any(state[column] != wanted for column, wanted in _ATTRIBUTES.values()):
        changes.append(Change(f"make role {owner} a plain login role", f"ALTER ROLE {quoted} {_PLAIN_ROLE};"))
    if not matches(password, state["verifier"]):
        sql = f"ALTER ROLE {quoted} PASSWORD {literal(make_verifier(password))};"
        changes.append(Change(f"set the password of role {owner}", sql))
    return changes


def database_changes(name: str, owner: str, state: dict[str, Any] | None, schema_owner: str | None) -> list[Change]:
    """What to do so that only `owner` has database `name`; `state` is None when it is missing."""
    quoted, role = identifier(name, "name"), identifier(owner, "owner")
    private = f"REVOKE ALL ON DATABASE {quoted} FROM"
    if state is None:
        sql = f"CREATE DATABASE {quoted} OWNER {role} TEMPLATE template0 ENCODING 'UTF8'; {private} PUBLIC;"
        return [Change(f"create database {name}", sql)]
    changes = []
    if state["owner"] != owner:
        changes.append(Change(f"give database {name} to role {owner}", f"ALTER DATABASE {quoted} OWNER TO {role};"))
    others = [other for other in state["others"] if other not in (owner, role)]
    if others:
        changes.append(Change(f"revoke database {name} from {', '.join(others)}", f"{private} {', '.join(others)};"))
    if not state["usable"]:
        sql = f"GRANT ALL ON DATABASE {quoted} TO {role};"
        changes.append(Change(f"grant database {name} to its owner {owner}", sql))
    # pg_database_owner is PostgreSQL's name for "whoever owns this database": it follows a change of owner.
    if schema_owner not in (None, owner, "pg_database_owner"):
        sql = f"\\connect {quoted}\nALTER SCHEMA public OWNER TO pg_database_owner;"
        changes.append(Change(f"give schema public of database {name} to its owner", sql))
    return changes


def plan(databases: list[dict[str, Any]], state: dict[str, Any]) -> list[Change]:
    """Return what separates `state` (see parse_state) from `databases`; roles first, they own the databases."""
    passwords = {database["owner"]: database["password"] for database in databases}
    changes: list[Change] = []
    for owner, password in passwords.items():
        changes += role_changes(owner, password, state["roles"].get(owner))
    for database in databases:
        name = database["name"]
        existing, schema_owner = state["databases"].get(name), state["schemas"].get(name)
        changes += database_changes(name, database["owner"], existing, schema_owner)
    return changes


def main() -> None:
    """Run the module."""
    database_options = {
        "name": {"type": "str", "required": True},
        "owner": {"type": "str", "required": True},
        "password": {"type": "str", "required": True, "no_log": True},
    }
    module = AnsibleModule(
        argument_spec={
            "container": {"type": "str", "required": True},
            "superuser": {"type": "str", "default": "postgres"},
            "databases": {"type": "list", "elements": "dict", "required": True, "options": database_options},
        },
        supports_check_mode=True,
    )
    container, superuser = module.params["container"], module.params["superuser"]
    databases = module.params["databases"]
    try:
        refuse_bad_input(databases, superuser)
        try:
            state = parse_state(psql(container, state_script(databases), superuser=superuser)) if databases else {}
        except ContainerAway:
            if not module.check_mode:
                raise
            state = {
                "roles": {},
                "databases": {},
                "schemas": {},
            }  # a bare host: everything is still to be made
        changes = plan(databases, state)
        if changes and not module.check_mode:
            psql(container, "\n".join(change.sql for change in changes), superuser=superuser)
    except (SqlError, ContainerAway) as problem:
        module.fail_json(msg=str(problem))
    texts = [change.text for change in changes]
    diff = {"before": "", "after": "".join(f"{text}\n" for text in texts)}
    module.exit_json(changed=bool(changes), changes=texts, diff=diff)


if __name__ == "__main__":
    main()
