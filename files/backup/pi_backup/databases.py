"""Single databases of a running PostgreSQL: loaded beside the live one, then put in its place in one step."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from .docker import inside, wait_until
from .errors import BackupError
from .postgres import TABLES, Server, table_counts

# Rights on the database itself, which are in no dump of its content.
RIGHTS = """
SELECT format('GRANT %s ON DATABASE %I TO %s', privilege_type, '{new}',
              CASE grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(grantee)) END)
  FROM pg_database, aclexplode(datacl) WHERE datname = '{name}'
"""


def new_name(database: str) -> str:
    """How a database is called while it is being loaded."""
    return f"{database}__new"


def old_name(database: str, kept: str) -> str:
    """How a replaced one is called."""
    return f"{database}_before_{kept}"


def load(source: Server, live: Server, database: str, folder: Path) -> None:
    """Load a database of `source` into `live` under its new name, and hold the rows of both together."""
    found = source.sql(f"SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = '{database}'")  # noqa: S608
    if not found:
        raise BackupError(f"there was no database {database} at that moment")
    [owner] = found
    if not live.sql(f"SELECT 1 FROM pg_roles WHERE rolname = '{owner}'"):  # noqa: S608
        raise BackupError(f"{live.container}: the role {owner} of database {database} is not there; run site.yml first")
    new = new_name(database)
    live.sql(
        f'DROP DATABASE IF EXISTS "{new}" WITH (FORCE);\nCREATE DATABASE "{new}" OWNER "{owner}" TEMPLATE template0;'
    )
    path = folder / f"{database}.dump"
    with path.open("wb") as target:
        command = ["pg_dump", "-U", "postgres", "--format=custom", "--compress=0", database]
        inside(source.container, command, target=target)
    with path.open("rb") as packed:
        inside(live.container, ["pg_restore", "-U", "postgres", "--exit-on-error", "--dbname", new], source=packed)
    path.unlink()
    grants = source.sql(RIGHTS.format(name=database, new=new))
    if grants:
        live.sql(";\n".join([f'REVOKE ALL ON DATABASE "{new}" FROM PUBLIC', *grants]) + ";")
    wanted = table_counts(source.sql(TABLES, database))
    loaded = table_counts(live.sql(TABLES, new))
    if wanted != loaded:
        wrong = sorted(name for name in {**wanted, **loaded} if wanted.get(name) != loaded.get(name))
        raise BackupError(f"{live.container}: database {new} differs from what was saved in {', '.join(wrong)}")


def swap(live: Server, names: Sequence[str], kept: str) -> None:
    """Give every loaded database the name of the live one, all at once. What is done already stays so."""
    there = set(live.sql("SELECT datname FROM pg_database"))
    lines = []
    for database in names:
        if new_name(database) not in there:
            continue
        if database in there:
            lines.append(f'ALTER DATABASE "{database}" RENAME TO "{old_name(database, kept)}";')
        lines.append(f'ALTER DATABASE "{new_name(database)}" RENAME TO "{database}";')
    if not lines:
        return
    _alone(live, names)
    live.sql("\n".join(["BEGIN;", *lines, "COMMIT;"]))


def unkeep(live: Server, names: Sequence[str], kept: str) -> None:
    """Make the replaced databases those that the next `swap` puts in place."""
    there = set(live.sql("SELECT datname FROM pg_database"))
    lines = [
        f'ALTER DATABASE "{old_name(database, kept)}" RENAME TO "{new_name(database)}";'
        for database in names
        if old_name(database, kept) in there
    ]
    live.sql("\n".join(["BEGIN;", *lines, "COMMIT;"]))


def drop(live: Server, names: Sequence[str], kept: str) -> None:
    """Remove replaced databases for good."""
    for database in names:
        live.sql(f'DROP DATABASE IF EXISTS "{old_name(database, kept)}" WITH (FORCE);')


def _alone(live: Server, names: Sequence[str]) -> None:
    """End all sessions on the databases; their services stand still, so none comes back."""
    listed = ", ".join(f"'{name}'" for database in names for name in (database, new_name(database)))
    query = f"SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname IN ({listed})"  # noqa: S608
    wait_until(lambda: live.sql(query) == ["0"], 60, f"nobody uses {listed} any more")
