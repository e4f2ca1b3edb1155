"""The shop of the backup's tests with what a drill needs: two databases, n8n where wanted, and ways to do harm."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from automation_stack import compose_service
from backup_shop import FOLDER, Said, Shop
from docker import DockerClient
from passlib.hash import bcrypt
from redis_server import image_of
from virtual_pi import inside
from waiting import wait_until

SETTINGS = "/etc/pi-commerce/drill/settings.json"
STATE = f"{FOLDER}/drills/state.json"
READY = "http.get('http://127.0.0.1:5678/healthz/readiness',r=>process.exit(r.statusCode==200?0:1))"
# Each piece has names of its own.
RUN = """
import sys
from pi_backup import __main__
def run(hooks, words):
    for hook in hooks:
        exec(hook, {"__name__": "hook"})
    sys.exit(__main__.main(words))
"""
SQLITE = """
import os, sqlite3
os.makedirs("/data/app")
base = sqlite3.connect("/data/app/shop.db")
base.execute("PRAGMA journal_mode=WAL")
base.execute("CREATE TABLE rows (number INTEGER PRIMARY KEY, text)")
base.executemany("INSERT INTO rows VALUES (?, ?)", [(number, "x" * 100) for number in range(2000)])
base.execute("CREATE INDEX texts ON rows (text)")
base.commit()
os._exit(0)  # as a crash would: there is a -wal beside it
"""
ROWS = """
INSERT INTO {table} (word, price, at) SELECT md5(random()::text), round((random() * 1e6)::numeric, 2),
  now() - random() * interval '900 days' FROM generate_series(1, {count})
"""


class Verdict(NamedTuple):
    """How a drill ended: exit code, what it printed, its word for it, and how its checks did."""

    status: int
    output: str
    verdict: str
    checks: dict[str, dict[str, Any]]

    def words(self, outcome: str) -> str:
        """Names and texts of the checks that ended like this."""
        return "\n".join(
            f"{name}: {entry['text']}" for name, entry in self.checks.items() if entry["outcome"] == outcome
        )


class DrillShop(Shop):
    """A shop whose copies are drilled."""

    def __init__(self, engine: DockerClient) -> None:
        """Nothing is started."""
        super().__init__(engine)
        self.databases = ["shop"]

    def start(self) -> None:
        """Start it, and save everything twice: with a base, and with log after it."""
        super().start()
        self.sql("CREATE DATABASE extra OWNER shop")
        for database, table in (("shop", "prices"), ("extra", "stock")):
            self.sql(
                f"CREATE TABLE {table} (id serial PRIMARY KEY, word text, price numeric, at timestamptz)", database
            )
        self.write("/root/stranger", self._keys())
        self.shell(f"cat > /tmp/rows.py <<'END'\n{SQLITE}\nEND\npython3 /tmp/rows.py", self.files)
        self.databases = ["shop", "extra"]
        self.write_plan()
        self.trade()
        self.settle()

    def add_n8n(self, directory: Path) -> None:
        """Add an n8n as the catalog describes it, on a database of its own; its secrets lie in `directory`."""
        directory.chmod(0o755)
        password = secrets.token_urlsafe(24)
        self.sql(f"CREATE ROLE n8n LOGIN PASSWORD '{password}'")
        self.sql("CREATE DATABASE n8n OWNER n8n")
        service, mounts = compose_service("n8n"), {self.volume("n8n_data"): "/home/node/.n8n"}
        for name, text in {
            "n8n_db_password": password,
            "n8n_encryption_key": secrets.token_hex(16),
            "n8n_owner_password_hash": bcrypt.using(rounds=10).hash(secrets.token_urlsafe(24)),
        }.items():
            (directory / name).write_text(text)
            (directory / name).chmod(0o644)
            mounts[str(directory / name)] = f"/run/secrets/{name}"
        self.n8n = self._run(
            "n8n",
            image_of(self.engine, "n8n"),
            user=service["user"],
            environment=service["environment"],
            tmpfs=dict(mount.split(":") for mount in service["tmpfs"]),
            read_only=True,
            volumes=mounts,
        )
        wait_until(lambda: self.n8n.exec_run(["node", "-e", READY]).exit_code == 0, 300, "n8n is ready")
        self.databases = ["shop", "extra", "n8n"]
        self.write_plan()
        self.settle()

    def plan(self, **changes: Any) -> dict[str, Any]:
        """The plan with the other databases and n8n in it."""
        found = super().plan()
        found["services"][0]["stores"][0]["databases"] = self.databases
        if "n8n" in self.databases:
            image = image_of(self.engine, "n8n")
            store = {"kind": "n8n", "volume": "n8n_data"}
            common = {"name": "n8n", "image": image, "uid": 1000, "gid": 1000}
            found["services"].append({**common, "needs": ["postgres"], "databases": ["n8n"], "stores": [store]})
        return {**found, **changes}

    def settle(self) -> None:
        """Save everything, and log after it: what a machine has that was on for a night."""
        for job in ("nightly", "ship", "ship"):
            self.must(job)

    def trade(self) -> None:
        """A few minutes of a shop: rows, keys and files nobody has foreseen."""
        for database, table in (("shop", "prices"), ("extra", "stock")):
            self.sql(ROWS.format(table=table, count=secrets.randbelow(2000) + 1), database)
            self.sql(f"DELETE FROM {table} WHERE random() < 0.1", database)
        sizes = " ".join(str(secrets.randbelow(100_000) + 1) for _ in range(secrets.randbelow(50) + 30))
        self.shell(
            f"n=0; for size in {sizes}; do n=$((n + 1)); head -c $size /dev/urandom > /data/file$n; done; "
            "touch -d '1 hour ago' /data/file?",
            self.files,
        )
        for number in range(secrets.randbelow(20) + 1):
            self.cli("SET", f"key:{number}", secrets.token_hex(20), *(["EX", "2"] if number % 3 else []))

    # --- drilling ------------------------------------------------------------------------------------------

    @property
    def far_root(self) -> str:
        """The far repository on its own disk."""
        return f"{self.root}/{self.volume('far_data')}/_data/pi"

    def drill(self, *words: str, hooks: Iterable[str] = (), key: str = "", **settings: Any) -> Verdict:
        """Run a drill, with Python code before it (`hooks`), and with the operator's key from a file."""
        self.write(SETTINGS, json.dumps(settings))
        said = self.hooked(hooks, "drill", *words, *(["--operator-key"] if key else []), source=key)
        newest = self.shell(f"cat $(ls -t {FOLDER}/drills/2*.json | head -1)").output
        report = json.loads(newest)
        checks = {entry["name"]: entry for entry in report["checks"]}
        return Verdict(said.status, said.output, report["verdict"], checks)

    def hooked(self, hooks: Iterable[str], *words: str, source: str = "") -> Said:
        """Run the program after some Python code, which replaces parts of it; its input is the file `source`."""
        self.write("/tmp/hooked.py", f"{RUN}\nrun({list(hooks)!r}, {list(words)!r})\n")
        return self.shell(f"python3 /tmp/hooked.py < {source or '/dev/null'}")

    def noted(self) -> dict[str, Any]:
        """What drills have noted."""
        return dict(json.loads(inside(self.host, "cat", STATE)))

    def told(self) -> str:
        """The last thing that the owner was told."""
        return self.shell("cat /tmp/told").output.strip()

    def scratch_containers(self) -> list[dict[str, Any]]:
        """Those of a drill, as the engine lists them."""
        filters = {"name": f"{self.project}-drill"}
        return list(self.engine.api.containers(all=True, filters=filters))

    def left_behind(self) -> list[str]:
        """What drills have made and not taken away."""
        name = f"{self.project}-drill"
        containers = [entry["Names"][0] for entry in self.scratch_containers()]
        volumes = [entry.name for entry in self.engine.volumes.list(filters={"name": name})]
        folders = self.shell(f"ls -A {FOLDER}/drill 2>/dev/null").output.split()
        return [*containers, *volumes, *folders]

    def remove(self) -> None:
        """Remove everything of it, also what drills have left."""
        for container in self.scratch_containers():
            self.engine.api.remove_container(container["Id"], force=True, v=True)
        for volume in self.engine.volumes.list(filters={"name": f"{self.project}-drill"}):
            volume.remove(force=True)
        super().remove()
