"""A run that is cut off anywhere is made good by the next one: same state, no data lost, no secret made anew.

One bare machine is brought up by runs of which each is cut off further on than the one before. With FULL set each point
also gets a bare machine of its own, and one complete run after it.
"""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import machine
import pytest
from interruptions import Outcome, Pi, Point, Watcher, differences, runs

pytestmark = pytest.mark.skipif(machine.KIND == "vm", reason="what is watched and held here is a container")

INSTALL = "Install the packages every machine has"
CLEAR_UP = "Clear up what a run that was cut off has left"
SSH = "Write the settings of the SSH server and of the socket that may listen for it"
FIREWALL = "Write the rules and put them into force"
ENGINE = "Install the engine"
VAULT = "Open the vault file, make what is missing in it"
SERVICES = "Start all services, take away what is no longer enabled"
SCHEMA = "Apply the schema files that are missing"
WORKFLOWS = "Bring credentials and workflows into n8n"

PSQL = "docker exec -i pi-commerce-postgres-1 psql -U postgres -XAtq"
# Only while package lists are fetched: the program that fetches is still there when packages are being unpacked.
LISTS = "/var/lib/apt/lists/partial/*"
JOURNAL = "/var/lib/dpkg/updates/0*"
CONTAINERD = "/var/lib/dpkg/info/containerd.list"
COMPOSE = r"^/usr/bin/docker .*compose .* up "
MIGRATING = f"{PSQL} -d n8n -c 'SELECT count(*) > 20 FROM migrations' | grep -q t"
REPLACING = r"docker ps --all --format '{{.Names}}' | grep -qE '^[0-9a-f]{12}_pi-commerce-n8n-1$'"

# In the order of the site, so that each task really has its work to do when it is cut off.
FIRST_RUN = [
    Point(INSTALL, "run", process=r"^/usr/lib/apt/methods/http", path=LISTS),
    Point(INSTALL, "session", process=r"^/usr/bin/dpkg .*--unpack", path=JOURNAL),
    Point("Write the kernel settings, and what closes the system", "session", step=("subprocess.Popen", "sysctl", 1)),
    Point(SSH, "line", step=("os.rename", "10-pi-commerce", 1)),
    # The rules are there and the firewall is not yet; then it is, and nobody has come in by it.
    Point(FIREWALL, "power", step=("os.rename", "ufw.conf", 1)),
    Point(FIREWALL, "run", process=r"^\S*ip6?tables-restore"),
    Point("Come in anew", "controller"),
    Point(VAULT, "controller", on_controller=("os.rename", "secrets.vault")),
    Point("Write each service's secrets", "session", step=("os.rename", "/etc/pi-commerce/secrets/", 4)),
    Point("Write the engine's configuration", "session", step=("os.rename", "daemon.json", 1)),
    Point(ENGINE, "power", process=r"^/usr/bin/dpkg .*--unpack", path=CONTAINERD),
    Point(CLEAR_UP, "controller", process=r"^dpkg .*--configure"),
    Point("Let a greedy container run into its limit", "engine", process=r"^docker run"),
    Point("Build the image where this version is missing", "engine", process=r"-m pip install"),
    # With the key and without its certificate.
    Point("Write nginx's configuration and the entrance's settings", "session", step=("os.rename", "tls/cert.pem", 1)),
    Point("Write the Compose files", "session", step=("os.rename", "/etc/pi-commerce/compose/", 3)),
    Point("Start PostgreSQL", "power", process=r"postgres.* --single"),
    Point("Make the databases and their roles", "session", process=r"^postgres: .* CREATE DATABASE"),
    Point(SERVICES, "power", shell=MIGRATING),
    Point(SCHEMA, "controller", step=("subprocess.Popen", "psql", 2)),
    Point(WORKFLOWS, "run", process=r"^node .*import:workflow"),
    Point(WORKFLOWS, "session", step=("http.client.send", "/publish", 2)),
    Point("Write the backup program, its plan and its hours", "run", step=("os.rename", "cron.d", 1)),
]

# Settings that change on a machine that has been running.
CHANGES = {
    "docker_log_max_size": "11m",
    "rate_limiter_policies": {"instagram": {"limit": 99, "window_seconds": 60}},
    "services_memory": {"n8n": "1300M"},
    "ssh_max_auth_tries": 2,
}
CHANGED_RUN = [
    Point(SSH, "session", step=("subprocess.Popen", "systemctl reload ssh", 1)),
    Point("Write the engine's configuration", "run", step=("subprocess.Popen", "try-restart docker", 1)),
    Point("Write the policies and the source", "line", step=("os.rename", "policies.json", 1)),
    Point(SERVICES, "engine", shell=REPLACING),
    Point(SERVICES, "line", process=COMPOSE),
]
# What Compose leaves when it is killed at the worst moment of a replacement: the new container has not got its name.
UNNAMED = """
until docker info >/dev/null 2>&1; do sleep 0.2; done
docker rename pi-commerce-redis-1 1f2e3d4c5b6a_pi-commerce-redis-1
"""
# All that may differ when they are in force.
CHANGED = [
    "containers>pi-commerce-n8n-1>host>Memory",
    "files>/etc/docker/daemon.json",
    "files>/etc/pi-commerce/compose/n8n.yml",
    "files>/etc/pi-commerce/rate_limiter/policies.json",
    "files>/etc/ssh/sshd_config.d/10-pi-commerce.conf",
    "ssh",
]

ORDER = {
    "source": "instagram",
    "total_cents": 100,
    "currency": "EUR",
    "items": [{"sku": "PEN", "quantity": 1, "price_cents": 100}],
}
# Into a schema of its own before there is one of ours.
KEEPSAKE = "CREATE SCHEMA keepsake; CREATE TABLE keepsake.kept AS SELECT 42 AS answer;"

# Changes, how they are taken back, and where in the digest which words show them.
NOTICED = [
    (
        "echo >> /etc/pi-commerce/proxy/nginx.conf",
        "sed -i '$d' /etc/pi-commerce/proxy/nginx.conf",
        "shared>files>/etc/pi-commerce/proxy/nginx.conf",
    ),
    (
        "chmod 0640 /etc/sysctl.d/90-pi-commerce.conf",
        "chmod 0644 /etc/sysctl.d/90-pi-commerce.conf",
        "shared>files>/etc/sysctl.d/90-pi-commerce.conf",
    ),
    (
        "chown 1 /etc/cron.d/pi-commerce-backup",
        "chown 0 /etc/cron.d/pi-commerce-backup",
        "shared>files>/etc/cron.d/pi-commerce-backup",
    ),
    (
        "printf x >> /etc/pi-commerce/secrets/redis_users",
        "truncate -s -1 /etc/pi-commerce/secrets/redis_users",
        "own>/etc/pi-commerce/secrets/redis_users",
    ),
    (
        "docker stop pi-commerce-proxy-1",
        "docker start pi-commerce-proxy-1",
        "shared>containers>pi-commerce-proxy-1>state: 'running' -> 'exited'",
    ),
    (
        "docker create --name stray registry.test:5000/python:3.13",
        "docker rm stray",
        "shared>containers>stray>state: None -> 'created'",
    ),
    (
        f"{PSQL} -c 'GRANT CONNECT ON DATABASE shop TO n8n'",
        f"{PSQL} -c 'REVOKE ALL ON DATABASE shop FROM n8n'",
        "n8n=c/shop",
    ),
    (f"{PSQL} -c 'ALTER ROLE shop CREATEDB'", f"{PSQL} -c 'ALTER ROLE shop NOCREATEDB'", "role shopfalsefalsetrue"),
    (f"{PSQL} -d shop -c 'CREATE TABLE stray ()'", f"{PSQL} -d shop -c 'DROP TABLE stray'", "shared>schemas>shop"),
    (
        f"{PSQL} -d n8n -c \"UPDATE workflow_entity SET active = false WHERE name = 'Health echo'\"",
        f"{PSQL} -d n8n -c \"UPDATE workflow_entity SET active = true WHERE name = 'Health echo'\"",
        "Health echo|f|",
    ),
    ("useradd stray", "userdel stray", "stray:x:"),
    ("systemctl disable cron", "systemctl enable cron", "shared>units"),
    ("hostname other", "hostname shop-pi", "['other'"),
    (
        "cp -a /etc/ufw /run/ufw.kept && ufw allow 4711/tcp",
        # UFW's own files differ from ours in form.
        "ufw delete allow 4711/tcp && cp -a /run/ufw.kept/. /etc/ufw && rm -r /run/ufw.kept",
        "4711/tcp",
    ),
    ("iptables -w -I DOCKER-USER -j RETURN", "iptables -w -D DOCKER-USER -j RETURN", "-A DOCKER-USER -j RETURN"),
    ("pi-commerce-guard arm /etc/sudoers.d --seconds 600", "pi-commerce-guard restore", "shared>guard"),
    ("sysctl net.ipv4.tcp_syncookies=0", "sysctl net.ipv4.tcp_syncookies=1", "net.ipv4.tcp_syncookies = 0"),
    ("touch /etc/pi-commerce/.file_tree-x", "rm /etc/pi-commerce/.file_tree-x", "'/etc/pi-commerce/.file_tree-x'"),
    ("mkdir /tmp/ansible_apt_payload_x", "rmdir /tmp/ansible_apt_payload_x", "'/tmp/ansible_apt_payload_x'"),
]


def sql(pi: Pi, database: str, query: str) -> str:
    """Answer of a query."""
    return pi.shell(f"{PSQL} -d {database} <<'SQL'\n{query}\nSQL").strip()


def settled(pi: Pi) -> dict[str, Any]:
    """The digest, once every container that has a health check is healthy again, and a night has left its canaries."""
    deadline = time.monotonic() + 120
    while True:
        digest = pi.digest()
        health = {container["health"] for container in digest["shared"]["containers"].values()}
        if health <= {"healthy", None} or time.monotonic() > deadline:
            break
        time.sleep(1)
    pi.shell("grep -qs nightly /var/backups/pi-commerce/state/jobs.json || pi-commerce-backup nightly --wait 300")
    return pi.digest()


@dataclass
class Story:
    """What happened to a machine that was cut off again and again."""

    outcomes: list[Outcome]
    # After the run that was not cut off.
    digest: dict[str, Any]
    # As they were when first made, and at the end.
    secrets: tuple[str, str]
    keepsake: str


def tell(pi: Pi, points: list[Point], *arguments: str) -> Story:
    """Cut off runs at the points until one has ended well."""
    secrets: list[str] = []
    outcomes = []

    def before(point: Point) -> None:
        if point.task == SERVICES:
            sql(pi, "shop", KEEPSAKE)

    for outcome in runs(pi, points, *arguments, before=before):
        outcomes.append(outcome)
        if pi.vault.exists():
            secrets.append(pi.secrets())
    kept = sql(pi, "shop", "SELECT to_regclass('keepsake.kept') IS NOT NULL")
    keepsake = sql(pi, "shop", "SELECT * FROM keepsake.kept; DROP SCHEMA keepsake CASCADE;") if kept == "t" else ""
    return Story(outcomes, settled(pi), (secrets[0], secrets[-1]), keepsake)


@pytest.fixture(scope="module")
def untouched(first_run: machine.Finished) -> dict[str, Any]:
    """What a first run that nobody cut off has made of a machine."""
    return settled(Pi.shared())


@pytest.fixture(scope="module")
def pi(first_run: machine.Finished) -> Iterator[Pi]:
    """A bare machine beside the shared one."""
    bare = Pi.beside()
    bare.make("down")
    bare.make("up", "PLAYBOOK=playbooks/preflight.yml")
    yield bare
    if not os.environ.get("KEEP"):
        bare.make("down")


@pytest.fixture(scope="module")
def story(pi: Pi) -> Story:
    """The first run, cut off at every point."""
    return tell(pi, FIRST_RUN)


def test_state_is_that_of_a_machine_that_was_never_cut_off(story: Story, untouched: dict[str, Any]) -> None:
    assert differences(untouched["shared"], story.digest["shared"]) == set()
    assert untouched["own"].keys() == story.digest["own"].keys()


def test_nothing_is_left_behind(story: Story, pi: Pi) -> None:
    assert story.digest["leftovers"] == []
    assert [path.name for path in pi.state.iterdir() if path.name.startswith(".")] == []


def test_no_secret_is_made_anew_and_each_opens_its_service(story: Story, pi: Pi) -> None:
    first, last = story.secrets
    assert first == last
    known = dict(line.split(": ", 1) for line in last.splitlines())
    for name in ("n8n", "shop"):
        login = f'exec psql -XAtqh 127.0.0.1 -U {name} -d {name} -c "SELECT 7"'
        shell = f"docker exec -i pi-commerce-postgres-1 sh -c 'read -r PGPASSWORD; export PGPASSWORD; {login}'"
        assert pi.shell(f"{shell} <<'END'\n{known[f'{name}_db_password']}\nEND").strip() == "7", name


def test_data_from_between_two_interruptions_is_kept(story: Story) -> None:
    assert story.keepsake == "42"


def test_next_run_changes_nothing(story: Story, pi: Pi) -> None:
    [outcome] = runs(pi, [])
    assert machine.recap(outcome.output)["changed"] == 0, outcome.output[-6000:]
    assert differences(story.digest, settled(pi)) == set()


def test_digest_notices_every_kind_of_change(story: Story, pi: Pi) -> None:
    before = settled(pi)
    pi.shell("\n".join(f"{change} </dev/null" for change, _, _ in NOTICED))
    found = differences(before, pi.digest())
    pi.shell("\n".join(f"{undo} </dev/null" for _, undo, _ in NOTICED))
    for change, _, words in NOTICED:
        assert any(words in difference for difference in found), f"{change}: not noticed in {found}"
    assert differences(before, settled(pi)) == set()


def test_change_of_a_running_machine_that_is_cut_off_is_made_good(story: Story, pi: Pi) -> None:
    before = settled(pi)
    order = {**ORDER, "order_id": f"KEPT-{uuid.uuid4().hex}"}
    assert pi.order(order)["status"] == "saved"
    for outcome in runs(pi, CHANGED_RUN, "-e", json.dumps(CHANGES)):
        if outcome.status != 0:
            pi.shell(UNNAMED)
    after = settled(pi)
    found = differences(before["shared"], after["shared"])
    assert sorted({place.split(":")[0] for place in found}) == CHANGED, found
    assert after["leftovers"] == []
    assert pi.order(order)["status"] == "duplicate"
    assert "maxauthtries 2" in after["shared"]["ssh"]
    # The engine, too, runs with what its file says.
    pi.shell("test /run/docker.pid -nt /etc/docker/daemon.json")


def test_backup_that_is_cut_off_stops_nothing_that_comes_after(story: Story, pi: Pi) -> None:
    watcher = Watcher(pi, Point("", "controller", process="^docker exec .* pg_dump "))
    pi.shell("nohup pi-commerce-backup nightly >/dev/null 2>&1 &")
    assert watcher.line() == "reached"
    pi.shell("kill -9 $(pgrep -f '^python3 -B -m pi_backup nightly')")
    watcher.end()
    pi.shell("pi-commerce-backup nightly")
    pi.shell("pi-commerce-backup ship")
    pi.shell("pi-commerce-backup status")


def test_what_another_run_still_does_is_waited_for_and_not_for_ever(story: Story, pi: Pi) -> None:
    pi.shell("nohup sh -c 'sleep 600; echo BECOME-SUCCESS-of-another' >/dev/null 2>&1 &")
    try:
        refused = pi.module("leftovers", "wait_seconds=1")
        assert refused.status != 0
        for word in ("another run still works", "BECOME-SUCCESS-of-another", "kill"):
            assert word in refused.output, refused.output
    finally:
        pi.shell("kill $(pgrep -f '^sh -c sleep 600; echo BECOME')")
    assert pi.module("leftovers", "wait_seconds=1").status == 0


@pytest.mark.skipif(not os.environ.get("FULL"), reason="FULL=1 gives each point a machine of its own, for hours")
@pytest.mark.parametrize("point", FIRST_RUN, ids=lambda point: point.name)
def test_each_point_by_itself(pi: Pi, point: Point, untouched: dict[str, Any]) -> None:
    pi.make("down")
    pi.make("up", "PLAYBOOK=playbooks/preflight.yml")
    told = tell(pi, [point])
    [after] = runs(pi, [])
    assert after.status == 0
    digest = settled(pi)
    assert differences(untouched["shared"], digest["shared"]) == set()
    assert digest["leftovers"] == []
    assert told.secrets[0] == pi.secrets()
