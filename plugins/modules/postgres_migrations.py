#!/usr/bin/python
"""Ansible module: bring the schema of one database up to date with numbered SQL files."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any, NamedTuple

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.containers import ContainerAway
from ansible.module_utils.psql import SqlError, identifier, literal, psql

DOCUMENTATION = r"""
module: postgres_migrations
short_description: Numbered SQL files, each applied once
description:
  - Applies the files that the database has not seen yet, in the order of their names, each in one transaction
    together with its record in the table C(schema_migrations) (name, sha256, applied_at).
  - Refuses an applied file that was edited, and a new file that sorts before an applied one.
  - A file is plain SQL without BEGIN, COMMIT and psql commands. It runs as the owner role.
options:
  container: {description: Name or id of the running PostgreSQL container., type: str, required: true}
  superuser: {description: Role that psql connects as inside the container., type: str, default: postgres}
  database: {description: Database to migrate., type: str, required: true}
  owner: {description: Role to run the files as., type: str, required: true}
  migrations:
    description: The files.
    type: list
    elements: dict
    required: true
    suboptions:
      name: {description: "File name, like 001_orders.sql.", type: str, required: true}
      sql: {description: Its text., type: str, required: true}
author: [pi-commerce]
"""

EXAMPLES = r"""
- name: Migrate the shop database
  postgres_migrations:
    container: pi-commerce-postgres-1
    database: shop
    owner: shop
    migrations:
      - name: 001_orders.sql
        sql: "{{ lookup('ansible.builtin.file', 'schema/shop/001_orders.sql') }}"
"""

RETURN = r"""
applied: {description: Names of the files that were applied., type: list, elements: str, returned: success}
"""

_NAME = re.compile(r"\d{3,}_[a-z0-9_]+\.sql")


class Migration(NamedTuple):
    """One SQL file."""

    name: str
    sql: str
    sha256: str


def read_migrations(files: list[dict[str, Any]]) -> list[Migration]:
    """Return the files ordered by name. Raises SqlError for a bad or doubled name and for an empty file."""
    migrations: dict[str, Migration] = {}
    for file in files:
        name, sql = file["name"], file["sql"]
        if not _NAME.fullmatch(name):
            raise SqlError(f"migrations: '{name}' is not a usable name; write it like 001_orders.sql")
        if name in migrations:
            raise SqlError(f"migrations: '{name}' is listed twice")
        if not sql.strip():
            raise SqlError(f"migrations: '{name}' is empty")
        # A trailing newline may come or go with the way the file was read; it never matters.
        migrations[name] = Migration(name, sql, hashlib.sha256(sql.strip().encode()).hexdigest())
    return [migrations[name] for name in sorted(migrations)]


def applied_script(database: str) -> str:
    """The psql script that prints {file name: sha256} of what `database` has seen, or null when there is none."""
    return f"""
        SELECT EXISTS (SELECT FROM pg_database WHERE datname = {literal(database)}) AS present \\gset
        \\if :present
        \\connect {identifier(database, "database")}
        SELECT to_regclass('public.schema_migrations') IS NOT NULL AS recorded \\gset
        \\if :recorded
        SELECT coalesce(json_object_agg(name, sha256), '{{}}') FROM public.schema_migrations;
        \\else
        SELECT '{{}}';
        \\endif
        \\else
        SELECT 'null';
        \\endif
    """


def pending(migrations: list[Migration], applied: dict[str, str]) -> list[Migration]:
    """Return the files still to apply. Raises SqlError when history was edited."""
    last = max(applied, default="")
    missing = []
    for migration in migrations:
        if migration.name not in applied:
            if migration.name < last:
                raise SqlError(f"{migration.name} would come before {last}, which is applied; give it a higher number")
            missing.append(migration)
        elif applied[migration.name] != migration.sha256:
            raise SqlError(
                f"{migration.name} was edited after it had been applied; "
                "restore the file as it was and add a new migration with the change"
            )
    return missing


def script_for(migrations: list[Migration], owner: str) -> str:
    """Return the psql script that applies `migrations` as `owner` and prints each name once it is committed.

    Each file is handed over as one string and run by EXECUTE inside one statement: so it commits together with
    its record or not at all, cannot end the transaction, and an open quote in it cannot swallow what follows. One
    script at a time: after a lost connection the first may still be at it, and the second finds its work done.
    """
    parts = [
        "DO $lock$ BEGIN PERFORM pg_advisory_lock(hashtext('schema_migrations')); END $lock$;",
        f"SET ROLE {identifier(owner, 'owner')};",
        "SET client_min_messages = warning;",
        "SET lock_timeout = '30s';",
        "CREATE TABLE IF NOT EXISTS public.schema_migrations (name text PRIMARY KEY, sha256 text NOT NULL,"
        " applied_at timestamptz NOT NULL DEFAULT now());",
    ]
    for name, sql, sha256 in migrations:
        tag, record = f"$sql_{sha256[:16]}$", "public.schema_migrations"  # the text cannot contain its own hash
        parts += [
            f"DO $do_{sha256[:16]}$ BEGIN",
            f"IF EXISTS (SELECT FROM {record} WHERE name = {literal(name)}) THEN RETURN; END IF;",
            f"EXECUTE {tag}{sql}{tag};",
            f"INSERT INTO {record} (name, sha256) VALUES ({literal(name)}, {literal(sha256)});",
            f"END $do_{sha256[:16]}$;",
            f"\\echo {name}",
        ]
    return "\n".join(parts)


def apply(container: str, superuser: str, database: str, owner: str, migrations: list[Migration]) -> None:
    """Apply `migrations`. Raises SqlError naming the file that failed and those applied before it."""
    try:
        psql(container, script_for(migrations, owner), superuser=superuser, database=database)
    except SqlError as failure:
        done = failure.output.split()
        kept = f"applied and kept: {', '.join(done)}" if done else "nothing was applied"
        raise SqlError(f"{migrations[len(done)].name} failed and was rolled back ({kept}): {failure}") from failure


def main() -> None:
    """Run the module."""
    file_options = {"name": {"type": "str", "required": True}, "sql": {"type": "str", "required": True}}
    module = AnsibleModule(
        argument_spec={
            "container": {"type": "str", "required": True},
            "superuser": {"type": "str", "default": "postgres"},
            "database": {"type": "str", "required": True},
            "owner": {"type": "str", "required": True},
            "migrations": {"type": "list", "elements": "dict", "required": True, "options": file_options},
        },
        supports_check_mode=True,
    )
    container, superuser = module.params["container"], module.params["superuser"]
    database, owner = module.params["database"], module.params["owner"]
    try:
        identifier(database, "database")
        identifier(owner, "owner")
        migrations = read_migrations(module.params["migrations"])
        try:
            applied = json.loads(psql(container, applied_script(database), superuser=superuser))
        except ContainerAway:
            if not module.check_mode:
                raise
            applied = None
        if applied is None and not module.check_mode:
            raise SqlError(f"database '{database}' does not exist; declare it with postgres_databases first")
        missing = pending(migrations, applied or {})  # in check mode a database to come has seen nothing
        if missing and not module.check_mode:
            apply(container, superuser, database, owner, missing)
    except (SqlError, ContainerAway) as problem:
        module.fail_json(msg=f"{database}: {problem}")
    names = [migration.name for migration in missing]
    diff = {"before": "", "after": "".join(f"apply {name}\n" for name in names)}
    module.exit_json(changed=bool(names), applied=names, diff=diff)


if __name__ == "__main__":
    main()
