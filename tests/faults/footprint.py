"""What a run could leave on a Pi, taken down in one call: files, containers, images, databases, workflows."""

from __future__ import annotations

from typing import NamedTuple

# One line for each thing: name, what it is, when or as which instance it was made; parted by tabs.
# Folders have no times: those change with what is in them. Logs, caches, the engine's own files and those of the
# docker client, which it writes whatever it is asked, are left out.
SCRIPT = r"""
cd /
find /boot /etc /home /opt /root /srv /usr /var/spool -xdev -path /root/.docker -prune -o \
  \( -type d -printf '%p\td %m %U:%G\t\n' \) -o -printf '%p\t%y %m %U:%G %s %l\t%T@ %C@\n'
find /etc /usr/local -xdev -type f -exec sha256sum {} + | awk '{print $2 "\t" $1 "\t"}'
command -v docker > /dev/null || exit 0
docker ps --all --quiet --no-trunc | xargs --no-run-if-empty docker inspect --format '{{"" -}}
  container {{slice .Name 1}}{{"\t" -}}
  {{.State.Status}} {{.Config.Image}} {{.HostConfig.Memory}}{{"\t" -}}
  {{.Id}} {{.State.StartedAt}}'
docker images --no-trunc --format 'image {{.Repository}}:{{.Tag}}{{"\t"}}{{.ID}}{{"\t"}}'
docker network ls --no-trunc --format 'network {{.Name}}{{"\t"}}{{.Driver}}{{"\t"}}{{.ID}}'
docker volume ls --format 'volume {{.Name}}{{"\t\t"}}'
docker ps --format '{{.Names}}' | grep -qx pi-commerce-postgres-1 || exit 0
docker exec -i pi-commerce-postgres-1 psql -U postgres -XqAt -F "$(printf '\t')" <<'SQL'
SELECT 'role ' || rolname,
  (rolcanlogin, rolsuper, rolcreatedb, rolcreaterole, rolreplication, rolbypassrls), rolpassword
  FROM pg_authid WHERE rolname !~ '^pg_';
SELECT 'database ' || datname, pg_get_userbyid(datdba) || ' ' || coalesce(datacl::text, ''), '' FROM pg_database;
\connect n8n
SELECT 'workflow ' || id, (name, active, md5(nodes::text || connections::text)), "updatedAt" FROM workflow_entity;
SELECT 'credential ' || id, name, "updatedAt" FROM credentials_entity;
SQL
"""


class Thing(NamedTuple):
    """What something is, and when (or as which instance) it was made."""

    state: str
    made: str


Footprint = dict[str, Thing]


def read(text: str) -> Footprint:
    """The things by name; `text` is what SCRIPT printed, where a file may have a second line for its content."""
    things: Footprint = {}
    for line in text.splitlines():
        name, state, made = line.split("\t")
        first = things.get(name, Thing("", ""))
        things[name] = Thing(first.state + state, first.made + made)
    return things


def touched(before: Footprint, after: Footprint) -> set[str]:
    """Names of what came, went, was changed or was made again."""
    return {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}


def altered(before: Footprint, after: Footprint) -> set[str]:
    """Names of what is there no more, is new, or is another; whenever it was made."""
    states = ({name: thing.state for name, thing in footprint.items()} for footprint in (before, after))
    first, second = states
    return {name for name in first.keys() | second.keys() if first.get(name) != second.get(name)}
