"""Send SQL to a PostgreSQL container as its superuser: one psql per call, over the container's own socket."""

from __future__ import annotations

import re

from ansible.module_utils.containers import CommandFailed, run_in_container

_IDENTIFIER = re.compile(r"[a-z_][a-z0-9_]{0,62}")
_VERIFIER = re.compile(r"SCRAM-SHA-256\$[^'\s]*")
# Behind these words psql repeats the whole statement and its call stack; what stands before says it all.
_NOISE = re.compile(r"^(QUERY|CONTEXT|STATEMENT): .*", re.MULTILINE | re.DOTALL)


class SqlError(Exception):
    """PostgreSQL refused: its own message, and in `output` what the script had printed before."""

    def __init__(self, message: str, output: str = "") -> None:
        """Keep both."""
        super().__init__(message)
        self.output = output


def identifier(name: str, what: str) -> str:
    """Return `name` quoted for SQL. Raises SqlError naming `what` unless it is a plain lower-case name."""
    if not _IDENTIFIER.fullmatch(name) or name.startswith("pg_"):
        raise SqlError(f"{what} '{name}' is not usable: use a-z, 0-9 and _, at most 63, no digit or pg_ first")
    return f'"{name}"'


def literal(text: str) -> str:
    """Return `text` as an SQL string literal (standard_conforming_strings, PostgreSQL's default)."""
    return "'" + text.replace("'", "''") + "'"


def psql_command(superuser: str, database: str) -> list[str]:
    """The command that runs the SQL script on its input, unaligned and without headers, up to the first error."""
    return ["psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-U", superuser, "-d", database, "-f", "-"]


def psql(container: str, sql: str, *, superuser: str = "postgres", database: str = "postgres") -> str:
    """Run an SQL script (psql's own backslash commands included) and return its unaligned output.

    Stops at the first error. Raises SqlError with PostgreSQL's message, or ContainerAway.
    """
    try:
        return str(run_in_container(container, psql_command(superuser, database), stdin=sql).stdout)
    except CommandFailed as failure:
        raise SqlError(_tidy(str(failure)), failure.stdout) from failure


def _tidy(message: str) -> str:
    """Shorten psql's error output to the message itself, without echoed statements or password verifiers."""
    kept = _NOISE.sub("", message).strip()
    kept = re.sub(r"^psql:<stdin>:\d+: ", "", kept, flags=re.MULTILINE)
    return _VERIFIER.sub("SCRAM-SHA-256$(hidden)", kept)
