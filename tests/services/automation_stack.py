"""PostgreSQL and n8n as the stack runs them, on a network of their own, and the modules run by Ansible."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import yaml
from docker import DockerClient
from docker.models.containers import Container
from docker.models.networks import Network
from n8n_api import N8n
from passlib.hash import bcrypt
from redis_server import LABELS, address_of, image_of, start_container
from waiting import wait_until

ROOT = Path(__file__).parents[2]
WORKFLOWS = ROOT / "files/workflows"
OWNER = "owner@shop.test"
SHOP_CREDENTIAL = "piShopPostgres01"
# One task whose arguments come from a file as they are: the {{ }} in workflows are n8n's, not Jinja's.
PLAY = [
    {
        "hosts": "localhost",
        "connection": "local",
        "gather_facts": False,
        "tasks": [
            {
                "action": "{{ module }}",
                "args": "{{ lookup('ansible.builtin.file', file) | from_json }}",
            }
        ],
    }
]


# What the service files of the catalog ask for.
VARIABLES = {
    "images": {"n8n": "unused", "postgres": "unused", "redis": "unused"},
    "base_timezone": "Europe/Berlin",
    "site_address": "shop.test",
    "services_memory": {},
    "n8n_heap_mib": 512,
    "n8n_start_seconds": 180,
    "probe_seconds": 10,
    "n8n_owner_email": OWNER,
    "backup_spool_mib": 1024,
}


def compose_service(name: str) -> dict[str, Any]:
    """Return the description of a service from the catalog, so that what is tested is what is shipped."""
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, autoescape=False)  # noqa: S701  # not HTML
    text = (ROOT / f"templates/services/{name}.yml.j2").read_text()
    service = yaml.safe_load(environment.from_string(text).render(VARIABLES))["services"][name]
    return dict(service)


class Result(NamedTuple):
    """What a module returned, and everything Ansible printed about it."""

    values: dict[str, Any]
    output: str

    @property
    def changed(self) -> bool:
        return bool(self.values["changed"])


def run_module(directory: Path, module: str, arguments: dict[str, Any], *options: str) -> Result:
    """Run one module of this project as a task of a play; a failed task is returned like any other."""
    play, file = directory / "play.yml", directory / "arguments.json"
    play.write_text(yaml.safe_dump(PLAY))
    file.write_text(json.dumps(arguments))
    variables = json.dumps({"module": module, "file": str(file), "ansible_python_interpreter": sys.executable})
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "ansible",
            "playbook",
            "-i",
            "localhost,",
            "-e",
            variables,
            *options,
            str(play),
        ],
        cwd=ROOT,
        env={**os.environ, "ANSIBLE_STDOUT_CALLBACK": "ansible.posix.json"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    try:
        # With -vvv there is other text before the document.
        [task] = json.loads(done.stdout[done.stdout.index('{\n    "custom_stats"') :])["plays"][0]["tasks"]
    except (ValueError, KeyError, IndexError) as error:
        raise AssertionError(done.stdout + done.stderr) from error
    return Result(task["hosts"]["localhost"], done.stdout)


class Answer(NamedTuple):
    """Answer of a webhook; `body` is its JSON, or None when there is none."""

    status: int
    body: Any


class Stack:
    """One PostgreSQL; one n8n when asked for; and the secrets of both."""

    def __init__(self, engine: DockerClient, network: Network, directory: Path) -> None:
        self.engine, self.network, self.directory = engine, network, directory
        self.owner_password = secrets.token_urlsafe(24)
        self.digest_key = secrets.token_urlsafe(24)
        self.passwords = {name: secrets.token_urlsafe(24) for name in ("postgres", "n8n", "shop")}
        self.containers: list[Container] = []
        self.postgres = self._start(
            "postgres",
            {"postgres_password": self.passwords["postgres"]},
            ["-c", "log_statement=all"],
        )
        # The socket answers while the cluster is still being made, TCP does not.
        wait_until(lambda: self.answers("pg_isready", "-qh", "127.0.0.1"), 60, "PostgreSQL is ready")

    def start_n8n(self) -> None:
        """Start n8n; its database must exist. It is not awaited."""
        self.n8n = self._start(
            "n8n",
            {
                "n8n_db_password": self.passwords["n8n"],
                "n8n_encryption_key": secrets.token_hex(16),
                "n8n_owner_password_hash": bcrypt.using(rounds=10).hash(self.owner_password),
            },
        )

    def _start(self, name: str, given: dict[str, str], options: list[str] | None = None) -> Container:
        service = compose_service(name)
        assert sorted(service["secrets"]) == sorted(given)
        volumes = {}
        for secret, text in given.items():
            file = self.directory / secret
            file.write_text(text)
            file.chmod(0o644)
            volumes[str(file)] = {"bind": f"/run/secrets/{secret}", "mode": "ro"}
        container = start_container(
            self.engine,
            image_of(self.engine, name),
            [*service["command"], *(options or [])] if "command" in service else None,
            entrypoint=[word.replace("$$", "$") for word in service["entrypoint"]] if "entrypoint" in service else None,
            user=service["user"],
            environment=service["environment"],
            tmpfs=dict(mount.split(":") for mount in service["tmpfs"]),
            network=self.network.name,
            networking_config={self.network.name: self.engine.api.create_endpoint_config(aliases=[name])},
            volumes=volumes,
            pids_limit=service["deploy"]["resources"]["limits"]["pids"],
        )
        self.containers.append(container)
        return container

    def answers(self, *command: str) -> bool:
        """Whether a command in the PostgreSQL container succeeds."""
        return bool(self.postgres.exec_run(list(command)).exit_code == 0)

    def sql(self, query: str, database: str = "n8n") -> str:
        """Run a query as the superuser; its unaligned output."""
        code, output = self.postgres.exec_run(["psql", "-XAtqU", "postgres", "-d", database, "-c", query])
        assert code == 0, output.decode()
        return str(output.decode().strip())

    def login(self, role: str, password: str, database: str) -> tuple[bool, str]:
        """Whether `role` gets into `database` over the network with that password, and what psql said."""
        address = address_of(self.postgres, 5432)
        assert address
        code, output = self.postgres.exec_run(
            ["psql", "-XAtqh", address[0], "-U", role, "-d", database, "-c", "SELECT 1"],
            environment={"PGPASSWORD": password},
        )
        return code == 0, output.decode()

    def api(self) -> N8n:
        """The HTTP client of the module, at where n8n is."""
        address = address_of(self.n8n, 5678)
        assert address, self.n8n.logs(tail=30).decode()
        return N8n(*address)

    def webhook(self, method: str, path: str, body: object = None) -> Answer:
        """Call a webhook; a broken connection has status 0."""
        address = address_of(self.n8n, 5678)
        assert address, self.n8n.logs(tail=30).decode()
        connection = HTTPConnection(*address, timeout=30)
        try:
            text = None if body is None else json.dumps(body)
            connection.request(method, f"/webhook/{path}", text, {"content-type": "application/json"})
            response = connection.getresponse()
            raw = response.read()
        except (OSError, HTTPException) as error:
            return Answer(0, repr(error))
        finally:
            connection.close()
        kind = response.getheader("content-type") or ""
        return Answer(response.status, json.loads(raw) if "json" in kind else None)

    def module(self, name: str, arguments: dict[str, Any], *options: str) -> Result:
        """Run a module against this stack."""
        return run_module(self.directory, name, {**self._targets(name), **arguments}, *options)

    def _targets(self, name: str) -> dict[str, str]:
        database = str(self.postgres.name)
        if name != "n8n_workflows":
            return {"container": database}
        return {
            "container": str(self.n8n.name),
            "database_container": database,
            "owner_email": OWNER,
            "owner_password": self.owner_password,
            "digest_key": self.digest_key,
        }

    def databases(self, *options: str, **passwords: str) -> Result:
        """Declare the databases of n8n and the shop; `passwords` replace theirs from now on."""
        self.passwords.update(passwords)
        wanted = [{"name": name, "owner": name, "password": self.passwords[name]} for name in ("n8n", "shop")]
        return self.module("postgres_databases", {"databases": wanted}, *options)

    def workflows(self, files: dict[str, Any], *options: str, **arguments: Any) -> Result:
        """Declare workflows {file: content} and the credential of the shop's database."""
        credential = {
            "id": SHOP_CREDENTIAL,
            "name": "Shop database",
            "type": "postgres",
            "data": {"host": "postgres", "port": 5432, "database": "shop", "user": "shop", "ssl": "disable"},
            "secrets": {"password": self.passwords["shop"]},
        }
        entries = [{"file": file, "content": content} for file, content in files.items()]
        given = {"workflows": entries, "credentials": [credential], **arguments}
        return self.module("n8n_workflows", given, *options)

    def remove(self) -> None:
        """Remove the containers with their data."""
        for container in reversed(self.containers):
            container.remove(force=True, v=True)


def make_stack(engine: DockerClient, directory: Path) -> Iterator[Stack]:
    """Yield a stack with PostgreSQL on a network without a way out; nothing of it stays behind."""
    directory.chmod(0o755)
    name = f"pi-commerce-test-{secrets.token_hex(4)}"
    network = engine.networks.create(name, internal=True, labels=LABELS)
    stack = None
    try:
        stack = Stack(engine, network, directory)
        yield stack
    finally:
        if stack:
            stack.remove()
        network.remove()


def files() -> dict[str, Any]:
    """Return the workflow files of the project: {name: content}."""
    return {path.name: json.loads(path.read_text()) for path in sorted(WORKFLOWS.glob("*.json"))}
