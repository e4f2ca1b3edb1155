"""A small shop (PostgreSQL, Valkey, a service with files) with the backup program beside it, all in containers."""

from __future__ import annotations

import json
import re
import secrets
from typing import Any, NamedTuple

from automation_stack import ROOT, VARIABLES, compose_service
from docker import DockerClient
from docker.models.containers import Container
from passlib.hash import bcrypt
from redis_server import LABELS, image_of
from waiting import wait_until

PROGRAM = (ROOT / "files/backup/pi_backup", ROOT / "files/common/pi_common")
FOLDER = "/var/backups/pi-commerce"
SECRETS = "/etc/pi-commerce/backup/secrets"
PLAN = "/etc/pi-commerce/backup/plan.json"
# Small, so that a test can fill them.
SPOOL_MIB = 12
SMALL = "/small"
USERS = (
    "user default on nopass ~* &* +@all\n"
    "user backup on >{password} resetkeys ~pi-commerce:canary resetchannels -@all +ping +bgsave +info +get +set\n"
)


class Said(NamedTuple):
    """How a command ended, and everything it printed."""

    status: int
    output: str


class Shop:
    """Everything has names of its own, so that several can stand side by side."""

    def __init__(self, engine: DockerClient) -> None:
        """Choose its names; nothing is started."""
        self.engine = engine
        self.project = f"pct-{secrets.token_hex(4)}"
        self.containers: list[Container] = []
        self.operator = ""
        self.password = secrets.token_urlsafe(24)
        self.far_password = secrets.token_urlsafe(24)

    def start(self) -> None:
        """Start everything, and save it; `near` is a folder, `far` a server that lets nobody delete."""
        self.engine.networks.create(self.project, internal=True, labels=LABELS)
        self.far = self._far()
        self.machine()
        self.sql("CREATE ROLE shop LOGIN")
        self.sql("CREATE DATABASE shop OWNER shop")
        self.sql("REVOKE ALL ON DATABASE shop FROM PUBLIC; GRANT CONNECT ON DATABASE shop TO shop")
        self.sql("CREATE TABLE orders (id serial PRIMARY KEY, word text, at timestamptz DEFAULT now())", "shop")
        self.order("first")
        self._repositories()
        self.must("ship")

    def machine(self) -> None:
        """Start a machine with empty services on it."""
        engine = self.engine
        self.postgres = self._postgres()
        self.redis = self._redis()
        self.files = self._run("files", image_of(engine, "backup-host"), volumes={self.volume("files_data"): "/data"})
        self.web = self._run("web", image_of(engine, "backup-host"))
        self.host = self._run(
            "host",
            image_of(engine, "backup-host"),
            # As init does, it takes note of those that are killed: the engine asks whether a lock's holder lives.
            command=["sh", "-c", "while :; do sleep 1000 & wait $!; done"],
            tmpfs={SMALL: "size=24m"},
            volumes={
                "/var/run/docker.sock": "/var/run/docker.sock",
                self.root: self.root,
                **{str(part): f"/usr/local/lib/pi-commerce/backup/{part.name}" for part in PROGRAM},
            },
        )
        self.operator = self.operator or self._keys()
        self.write("/root/operator", self.operator)
        self.recipient = self.shell("age-keygen -y /root/operator").output.strip()
        self.write_plan()
        wait_until(lambda: self.sql("SELECT 1", check=False).status == 0, 120, "PostgreSQL answers")

    def destroy(self) -> None:
        """Lose the machine with all that is on it, in the middle of whatever it does; only the far place is left."""
        for container in [container for container in self.containers if container != self.far]:
            container.remove(force=True, v=True)
        self.containers = [self.far]
        self._remove_volumes({self.volume("far_data")})

    @property
    def root(self) -> str:
        """Where the engine keeps its volumes."""
        return f"{self.engine.info()['DockerRootDir']}/volumes"

    @property
    def near(self) -> str:
        """Settings with which a shell on the machine opens the near repository."""
        return f"RESTIC_REPOSITORY={FOLDER}/near RESTIC_PASSWORD_FILE={SECRETS}/backup_near_password"

    def volume(self, name: str) -> str:
        """Full name of a volume."""
        return f"{self.project}_{name}"

    def _run(self, name: str, image: str, **options: Any) -> Container:
        mounts = options.pop("volumes", {})
        container = self.engine.containers.run(
            image,
            options.pop("command", None),
            name=f"{self.project}-{name}-1",
            detach=True,
            labels=LABELS,
            network=self.project,
            networking_config={self.project: self.engine.api.create_endpoint_config(aliases=[name])},
            volumes={source: {"bind": target, "mode": "rw"} for source, target in mounts.items()},
            **options,
        )
        self.containers.append(container)
        return container

    def _postgres(self) -> Container:
        service = compose_service("postgres")
        limit = str(VARIABLES["backup_spool_mib"])
        return self._run(
            "postgres",
            image_of(self.engine, "postgres"),
            command=[
                word.replace("$$", "$").replace(f"-ge {limit} ", f"-ge {SPOOL_MIB} ") for word in service["command"]
            ],
            entrypoint=[word.replace("$$", "$") for word in service["entrypoint"]],
            user=service["user"],
            environment={"POSTGRES_PASSWORD": self.password, **_plain(service["environment"])},
            tmpfs=dict(mount.split(":") for mount in service["tmpfs"]),
            read_only=True,
            volumes={
                self.volume("postgres_spool"): "/var/lib/postgresql",
                self.volume("postgres_data"): "/var/lib/postgresql/data",
            },
        )

    def _redis(self) -> Container:
        service = compose_service("redis")
        script = f"printf '{USERS.format(password=self.password)}' > /tmp/users.acl"
        command = ["/tmp/users.acl" if word == "/run/secrets/redis_users" else word for word in service["command"]]
        entrypoint = [word.replace("$$", "$") for word in service["entrypoint"]]
        entrypoint[2] = f"{script}\n{entrypoint[2]}"
        return self._run(
            "redis",
            image_of(self.engine, "valkey"),
            command=command,
            entrypoint=entrypoint,
            user=service["user"],
            tmpfs=dict(mount.split(":") for mount in service["tmpfs"]),
            read_only=True,
            volumes={self.volume("redis_data"): "/data"},
        )

    def _far(self) -> Container:
        line = f"pi:{bcrypt.using(rounds=4, ident='2y').hash(self.far_password)}"
        return self._run(
            "far",
            image_of(self.engine, "rest-server"),
            entrypoint=["sh", "-c"],
            command=[
                f"echo '{line}' > /tmp/users && exec restic-rest-server --path /data --listen :8000 "
                "--append-only --private-repos --htpasswd-file /tmp/users"
            ],
            volumes={self.volume("far_data"): "/data"},
        )

    def _repositories(self) -> None:
        """Make both as a computer would that is as slow as a Pi.

        The engine chooses a key that takes half a second to derive where it is made, each time that it is used.
        """
        self.host.update(cpu_period=5000, cpu_quota=1000)
        for name in ("near", "far"):
            said = self.restic("init", "--repository-version=2", repository=name)
            assert said.status == 0, said.output
        self.host.update(cpu_quota=-1)

    def _keys(self) -> str:
        code, output = self.host.exec_run(["age-keygen"], stderr=False)
        assert code == 0, output
        return str(output.decode())

    # --- the program ---------------------------------------------------------------------------------------

    def plan(self, **changes: Any) -> dict[str, Any]:
        """The plan document, with other top-level values where they are given."""

        def service(name: str, stores: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
            known = {"postgres": ("postgres", 999, 999), "redis": ("valkey", 999, 1000)}
            image, uid, gid = known.get(name, ("backup-host", 1000, 1000))
            common = {"name": name, "image": image_of(self.engine, image), "uid": uid, "gid": gid}
            return {**common, "needs": [], "databases": [], "stores": stores, **more}

        postgres = {"kind": "postgres", "volume": "postgres_data", "spool": "postgres_spool", "databases": ["shop"]}
        redis = {"kind": "redis", "volume": "redis_data", "user": "backup", "password_secret": "redis_backup_password"}
        return {
            "host": "shop-pi",
            "project": self.project,
            "folder": FOLDER,
            "engine": "restic",
            "secrets_folder": SECRETS,
            "repositories": {
                "near": {"url": f"{FOLDER}/near", "password_file": f"{SECRETS}/backup_near_password"},
                "far": {
                    "url": "rest:http://far:8000/pi/",
                    "password_file": f"{SECRETS}/backup_far_password",
                    "environment": {"RESTIC_REST_USERNAME": "pi"},
                    "secrets": {"RESTIC_REST_PASSWORD": "far_access"},
                },
            },
            "recipients": [self.recipient],
            "sealed": [SECRETS],
            "host_paths": ["/etc"],
            "spool_mib": 1024,
            "keep": {"hourly": "2d", "daily": "30d", "weekly": "63d", "monthly": "1y"},
            "services": [
                service("postgres", [postgres]),
                service("redis", [redis]),
                service("files", [{"kind": "volume", "volume": "files_data"}], needs=["redis"]),
                service("web", [], needs=["postgres"], databases=["shop"]),
            ],
            **changes,
        }

    def write_plan(self, **changes: Any) -> None:
        """Write the plan and the secrets it needs."""
        self.write(PLAN, json.dumps(self.plan(**changes)))
        for name, text in {
            "backup_near_password": "near " + self.password,
            "backup_far_password": "far " + self.password,
            "far_access": self.far_password,
            "redis_backup_password": self.password,
        }.items():
            self.write(f"{SECRETS}/{name}", text)

    def write(self, path: str, content: str) -> None:
        """Write a file on the machine."""
        code, output = self.host.exec_run(
            ["sh", "-c", 'mkdir -p "$(dirname "$1")" && printf %s "$2" > "$1"', "-", path, content]
        )
        assert code == 0, output

    def shell(self, script: str, container: Container | None = None, detach: bool = False) -> Said:
        """Run a script on the machine, or in another container; `detach` does not wait for it."""
        code, output = (container or self.host).exec_run(["sh", "-c", script], detach=detach)
        return Said(0, "") if detach else Said(int(code), output.decode(errors="replace"))

    def backup(self, *words: str) -> Said:
        """Run the backup program."""
        code, output = self.host.exec_run(["python3", "-m", "pi_backup", *words])
        return Said(int(code), output.decode(errors="replace"))

    def must(self, *words: str) -> str:
        """Run it; it has to succeed."""
        said = self.backup(*words)
        assert said.status == 0, said.output
        return said.output

    def confirmed(self, *words: str) -> str:
        """Restore with the words that the plan asks for; the name under which the replaced state is kept."""
        shown = self.backup("restore", *words)
        assert shown.status == 2, shown.output
        asked = re.search(r'--confirm "(.+)"', shown.output)
        assert asked is not None, shown.output
        done = self.must("restore", *words, "--confirm", asked[1])
        kept = re.search(r"kept as (\w+)", done)
        assert kept is not None, done
        return kept[1]

    def state(self, name: str) -> dict[str, Any]:
        """A state file of the program."""
        found: dict[str, Any] = json.loads(self.shell(f"cat {FOLDER}/state/{name}.json").output)
        return found

    def restic(self, *words: str, repository: str = "near") -> Said:
        """Run the engine on a repository, as the program does."""
        url = {"near": f"{FOLDER}/near", "far": f"rest:http://pi:{self.far_password}@far:8000/pi/"}[repository]
        environment = {
            "RESTIC_REPOSITORY": url,
            "RESTIC_PASSWORD_FILE": f"{SECRETS}/backup_{repository}_password",
            "RESTIC_CACHE_DIR": f"{FOLDER}/cache",
        }
        code, output = self.host.exec_run(["restic", *words], environment=environment)
        return Said(int(code), output.decode(errors="replace"))

    # --- its data ------------------------------------------------------------------------------------------

    def sql(self, query: str, database: str = "postgres", check: bool = True) -> Said:
        """Run a query as the superuser."""
        client = ["psql", "-XAtq", "-h", "127.0.0.1", "-U", "postgres", "-d", database]
        code, output = self.postgres.exec_run([*client, "-c", query], environment={"PGPASSWORD": self.password})
        said = Said(int(code), output.decode().strip())
        assert not check or said.status == 0, said.output
        return said

    def order(self, word: str) -> float:
        """Insert an order; the server's time after it was committed."""
        self.sql(f"INSERT INTO orders (word) VALUES ('{word}')", "shop")
        return float(self.sql("SELECT extract(epoch FROM clock_timestamp())").output)

    def orders(self) -> list[str]:
        """The words of all orders."""
        return self.sql("SELECT word FROM orders ORDER BY id", "shop").output.splitlines()

    def cli(self, *words: str) -> str:
        """Answer of Valkey."""
        code, output = self.redis.exec_run(["valkey-cli", *words])
        assert code == 0, output.decode()
        return str(output.decode().strip())

    def remove(self) -> None:
        """Remove everything of it, also what a restore has kept."""
        for container in reversed(self.containers):
            container.remove(force=True, v=True)
        label = f"pi-commerce.scratch={self.project}"
        for container in self.engine.containers.list(all=True, filters={"label": label}):
            container.remove(force=True, v=True)
        self._remove_volumes(set())
        for network in self.engine.networks.list(names=[self.project]):
            network.remove()

    def _remove_volumes(self, kept: set[str]) -> None:
        for volume in self.engine.volumes.list():
            if volume.name.startswith(f"{self.project}_") and volume.name not in kept:
                volume.remove(force=True)


def _plain(environment: dict[str, str]) -> dict[str, str]:
    """Settings without those that name a secret's file."""
    return {name: text for name, text in environment.items() if not name.endswith("_FILE")}
