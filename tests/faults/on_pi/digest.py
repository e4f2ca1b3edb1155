"""Runs on the Pi: everything the project has made of it, as JSON, for comparison with another time or another Pi.

The one argument is the Pi's address, which stands masked in the result, as its network does. `shared` is equal on
every Pi with the same settings; `own` (secrets and what follows from them) is equal on the same Pi at any time;
`leftovers` is what should not be there at all.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

# Everything below these is ours, or could only be there through us.
TREES = [
    "/etc/apt/apt.conf.d",
    "/etc/apt/preferences.d",
    "/etc/apt/sources.list.d",
    "/etc/cron.d",
    "/etc/docker",
    "/etc/fail2ban",
    "/etc/pi-commerce",
    "/etc/ssh/sshd_config.d",
    "/etc/sudoers.d",
    "/etc/sysctl.d",
    "/etc/ufw",
    "/usr/local",
    "/var/spool/cron",
]
# Each machine has its own.
SECRET = ("/etc/pi-commerce/secrets/", "/etc/pi-commerce/proxy/tls/", "/etc/pi-commerce/entrance/authority")
# Follow from secrets (a keyed digest, keys that belong to them), or are the far repository's own.
KEYED = (
    "/etc/pi-commerce/backup/far.pem",
    "/etc/pi-commerce/backup/plan.json",
    "/etc/pi-commerce/backup/vault.yml",
    "/etc/pi-commerce/compose/overrides.yml",
    "/etc/pi-commerce/notify/settings.json",
)
LABELS = ("com.docker.compose.project", "com.docker.compose.service", "com.docker.compose.oneoff")
HOST = ("Memory", "NanoCpus", "PidsLimit", "ReadonlyRootfs", "CapDrop", "SecurityOpt", "PortBindings", "RestartPolicy")
# In these nothing of ours is at rest.
PASSING = [
    "/tmp/*",
    "/var/tmp/*",
    "/root/.ansible/tmp/*",
    "/home/*/.ansible/tmp/*",
    "/var/lib/dpkg/updates/*",
    "/var/lib/apt/lists/partial/*",
    "/var/backups/pi-commerce/*.partial",
    "/var/lib/pi-commerce.unapplied-*",
    "/run/ambush*",
]
# The system's own in /tmp.
SYSTEM = {".ICE-unix", ".X11-unix", ".XIM-unix", ".font-unix"}
# Written beside a file that is about to be replaced.
BESIDE = (".file_tree-", ".ansible_tmp", ".tmp", ".new", ".dpkg-new", ".dpkg-tmp", ".partial")
SCHEMA = """
SELECT 'role ' || rolname || rolsuper || rolcreaterole || rolcreatedb || rolcanlogin || rolreplication || rolbypassrls
  FROM pg_roles WHERE rolname !~ '^pg_' ORDER BY 1;
SELECT 'database ' || datname || ' ' || pg_get_userbyid(datdba) || ' ' || pg_encoding_to_char(encoding) || ' '
  || coalesce(datacl::text, '') FROM pg_database ORDER BY 1;
"""
N8N = """
SELECT 'workflow', id, name, active, "isArchived", md5(nodes::text), md5(connections::text)
  FROM workflow_entity WHERE id NOT LIKE 'piDrillCanary%' ORDER BY 2;
SELECT 'credential', id, name, type FROM credentials_entity ORDER BY 2;
SELECT 'user', email, "roleSlug" FROM "user" ORDER BY 2;
SELECT 'migrations', count(*), md5(string_agg(name, ',' ORDER BY name)) FROM migrations;
SELECT 'applied', kind, id FROM pi_commerce.applied ORDER BY 2, 3;
"""
MIGRATIONS = "SELECT name, sha256 FROM schema_migrations ORDER BY 1"


def run(*command: str, text: str = "") -> str:
    """Output of a command; a failing one tells nothing that could be compared."""
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else f"failed: {command[0]} {done.stderr.strip()}"


def lines(*command: str, text: str = "") -> list[str]:
    """Its lines, sorted."""
    return sorted(run(*command, text=text).splitlines())


def psql(database: str, sql: str) -> list[str]:
    """Rows of a query."""
    client = ("docker", "exec", "-i", "pi-commerce-postgres-1", "psql", "-U", "postgres", "-XAtq", "-d", database)
    return run(*client, text=sql).splitlines()


def schema(database: str) -> str:
    """Digest of all definitions; pg_dump's own comments and its one-time key do not count."""
    dump = run("docker", "exec", "pi-commerce-postgres-1", "pg_dump", "-U", "postgres", "--schema-only", database)
    kept = [line for line in dump.splitlines() if not line.startswith(("--", "\\restrict", "\\unrestrict"))]
    return sha256("\n".join(kept).encode())


def sha256(content: bytes) -> str:
    """Hexadecimal digest."""
    return hashlib.sha256(content).hexdigest()


class Digest:
    """One look at the Pi."""

    def __init__(self, address: str) -> None:
        """`address` is masked wherever it stands, and so is the network it is in."""
        self.address = address
        self.network = address.rpartition(".")[0] + "."
        self.own: dict[str, str] = {}

    def masked(self, text: str) -> str:
        """The text with this Pi's address and network made anonymous."""
        return text.replace(self.address, "(address)").replace(self.network, "(network).")

    def files(self) -> dict[str, str]:
        """Kind, rights and content of every file and folder of the trees."""
        found = {}
        for tree in TREES:
            for base, folders, names in os.walk(tree):
                for path in (os.path.join(base, name) for name in (*folders, *names)):
                    found[path] = self.file(path)
        return found

    def file(self, path: str) -> str:
        """One of them; the content of a secret stands in `own`."""
        look = os.lstat(path)
        rights = f"{look.st_mode:o} {look.st_uid}:{look.st_gid}"
        if os.path.islink(path):
            return f"{rights} -> {os.readlink(path)}"
        if os.path.isdir(path):
            return rights
        content = Path(path).read_bytes()
        if path.startswith(SECRET) or path in KEYED:
            self.own[path] = sha256(content)
            return rights
        return f"{rights} {sha256(self.masked(content.decode(errors='replace')).encode())}"

    def containers(self) -> dict[str, object]:
        """Every container by name, also of others."""
        names = run("docker", "ps", "--all", "--quiet").split()
        documents = json.loads(run("docker", "inspect", *names)) if names else []
        return {document["Name"].lstrip("/"): self.container(document) for document in documents}

    def container(self, document: dict) -> dict[str, object]:
        """What does not differ between two that were made from the same description."""
        config, host, state = (document[key] for key in ("Config", "HostConfig", "State"))
        if inputs := config["Labels"].get("pi-commerce.inputs"):
            self.own[f"inputs of {document['Name']}"] = inputs
        return {
            "image": config["Image"],
            "state": state["Status"],
            "health": (state.get("Health") or {}).get("Status"),
            "run": [config["User"], config["Entrypoint"], config["Cmd"]],
            "environment": sorted(self.masked(entry) for entry in config["Env"] or []),
            "labels": {key: config["Labels"].get(key) for key in LABELS},
            "host": {key: host[key] for key in HOST},
            "networks": sorted(document["NetworkSettings"]["Networks"]),
            "mounts": sorted(f"{mount['Source']} {mount['Destination']} {mount['RW']}" for mount in document["Mounts"]),
        }

    def shared(self) -> dict[str, object]:
        """All of it."""
        return {
            "files": self.files(),
            "containers": self.containers(),
            "images": lines("docker", "images", "--format", "{{.Repository}}:{{.Tag}}"),
            "volumes": lines("docker", "volume", "ls", "--format", "{{.Name}}"),
            "networks": lines("docker", "network", "ls", "--format", "{{.Name}} {{.Driver}} {{.Internal}}"),
            "packages": lines("dpkg-query", "--show", "--showformat", "${Package} ${Version} ${db:Status-Abbrev}\n"),
            "postgres": psql("postgres", SCHEMA),
            "schemas": {database: schema(database) for database in ("n8n", "shop")},
            "n8n": psql("n8n", N8N),
            "migrations": psql("shop", MIGRATIONS),
            "users": lines("getent", "passwd"),
            "sudo": run("getent", "group", "sudo"),
            "units": lines("systemctl", "list-unit-files", "--state=enabled", "--no-legend", "--no-pager"),
            "failed": lines("systemctl", "list-units", "--failed", "--no-legend", "--plain"),
            "name": [run("hostname"), run("getent", "hosts", "127.0.1.1")],
            "time": os.path.realpath("/etc/localtime"),
            "kernel": lines("sysctl", "net.ipv4.ip_forward", "net.ipv4.conf.all.rp_filter", "net.ipv4.tcp_syncookies"),
            "ssh": lines("sshd", "-T"),
            "firewall": self.masked(
                f"{run('ufw', 'status', 'verbose')}\n{run('iptables', '-w', '-S', 'DOCKER-USER')}"
            ).splitlines(),
            "guard": json.loads(run("pi-commerce-guard", "status"))["armed"],
        }


def leftovers() -> list[str]:
    """Half-made and temporary things, keys and containers that only a run in progress has."""
    passing = (path for pattern in PASSING for path in Path("/").glob(pattern.lstrip("/")))
    found = [str(path) for path in passing if path.name not in SYSTEM and not path.name.startswith("systemd-private-")]
    for tree in TREES:
        for base, folders, names in os.walk(tree):
            found += [os.path.join(base, name) for name in (*folders, *names) if any(mark in name for mark in BESIDE)]
    ours = psql("n8n", "SELECT 'API key ' || label FROM user_api_keys")
    dpkg = run("dpkg", "--audit").splitlines()
    return sorted(found) + ours + dpkg


def main() -> None:
    """Print the digest."""
    digest = Digest(sys.argv[1])
    shared = digest.shared()
    print(json.dumps({"shared": shared, "own": digest.own, "leftovers": leftovers()}, indent=1, sort_keys=True))


if __name__ == "__main__":
    main()
