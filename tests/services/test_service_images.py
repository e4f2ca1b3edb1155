"""Our images behave like the upstream ones: each is really run, as hardened as the stack runs it.

What they need and how they answer is what the Compose files of the catalog rely on.
"""

from __future__ import annotations

import socket
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from docker import DockerClient
from docker.models.containers import Container
from docker.models.networks import Network
from images import DEFAULT_SUITE, IMAGES, Image, host_arch, load_table, push, pushed_id

TABLE = load_table((IMAGES / "images.yml").read_text(), DEFAULT_SUITE, host_arch())
USERS = {
    "postgres": "999:999",
    "valkey": "999:1000",
    "nginx": "101:101",
    "n8n": "1000:1000",
    "registry": "1000:1000",
    "python": "10001:10001",
}
PASSWORD = "correct horse battery"
QUIET_N8N = {
    "N8N_DIAGNOSTICS_ENABLED": "false",
    "N8N_VERSION_NOTIFICATIONS_ENABLED": "false",
    "N8N_TEMPLATES_ENABLED": "false",
    "N8N_PERSONALIZATION_ENABLED": "false",
    "N8N_COMMUNITY_PACKAGES_ENABLED": "false",
    "N8N_DISABLED_MODULES": "insights,mcp,mcp-registry,chat-hub,instance-ai,agents,workflow-builder,"
    "quick-connect,dynamic-credentials,token-exchange,otel,oauth-server,breaking-changes",
    "NODE_OPTIONS": "--max-old-space-size=512",
}
READY = "http.get('http://127.0.0.1:5678/healthz/readiness',r=>process.exit(r.statusCode==200?0:1))"

Run = Callable[..., Container]


@pytest.fixture
def network(engine: DockerClient) -> Iterator[Network]:
    network = engine.networks.create(f"images-test-{uuid.uuid4().hex[:8]}", internal=True)
    yield network
    network.remove()


def new_volume(engine: DockerClient) -> Iterator[str]:
    volume = engine.volumes.create(f"images-test-{uuid.uuid4().hex[:8]}")
    yield volume.name
    volume.remove()


volume = pytest.fixture(new_volume)
second_volume = pytest.fixture(new_volume)


@pytest.fixture
def run(engine: DockerClient, network: Network, volume: str, second_volume: str) -> Iterator[Run]:
    """Start hardened containers of our images by name; they go before the network and volumes they use."""
    started: list[Container] = []

    def start(image: str, command: list[str] | None = None, **options: object) -> Container:
        tag = TABLE[image].tag
        if not engine.images.list(tag):
            pytest.fail(f"image {tag} is missing: run `make images`")
        options.setdefault("network", network.name)
        container = engine.containers.create(
            tag,
            command,
            user=USERS[image],
            read_only=True,
            cap_drop=["ALL"],
            security_opt=["no-new-privileges"],
            mem_limit="1500m",
            pids_limit=200,
            **options,
        )
        started.append(container)
        container.start()
        return container

    yield start
    for container in reversed(started):
        container.remove(force=True, v=True)


def shell(container: Container, *command: str, **environment: str) -> tuple[int, str]:
    """Run a command in a container; return status and output."""
    code, output = container.exec_run(list(command), environment=environment)
    return code, output.decode()


def wait_for(container: Container, *command: str, seconds: float = 60, **environment: str) -> None:
    """Repeat a command in a container until it succeeds; fail with the container's log when it does not."""
    end = time.monotonic() + seconds
    while True:
        container.reload()
        if container.status != "running":
            pytest.fail(f"{container.image.tags} ended by itself:\n{container.logs(tail=30).decode()}")
        code, output = shell(container, *command, **environment)
        if code == 0:
            return
        if time.monotonic() > end:
            pytest.fail(f"{command} failed for {seconds} s: {output}\n{container.logs(tail=30).decode()}")
        time.sleep(0.2)


# --- PostgreSQL -----------------------------------------------------------------------------------------


@pytest.fixture
def start_postgres(run: Run, volume: str, tmp_path: Path) -> Callable[..., Container]:
    tmp_path.chmod(0o755)
    (tmp_path / "password").write_text(PASSWORD + "\n")
    scripts = tmp_path / "initdb.d"
    scripts.mkdir()
    (scripts / "10.sql").write_text("CREATE TABLE from_sql (n int); INSERT INTO from_sql VALUES (41);")
    (scripts / "20.sh").write_text(
        'psql -v ON_ERROR_STOP=1 -U "$POSTGRES_USER" -d "$POSTGRES_DB" -c "UPDATE from_sql SET n = n + 1"\n'
    )

    def start(**options: object) -> Container:
        environment = {
            "POSTGRES_USER": "shop",
            "POSTGRES_DB": "shop_db",
            "POSTGRES_PASSWORD_FILE": "/run/secrets/password",
            "POSTGRES_INITDB_ARGS": "--data-checksums --auth-local=trust",
        }
        options.setdefault("environment", environment)
        return run(
            "postgres",
            ["postgres", "-c", "max_connections=23"],
            tmpfs={"/var/run/postgresql": "uid=999,gid=999", "/tmp": ""},
            volumes=[
                f"{volume}:/var/lib/postgresql/data",
                f"{tmp_path}/password:/run/secrets/password:ro",
                f"{scripts}:/docker-entrypoint-initdb.d:ro",
            ],
            **options,
        )

    return start


READY_PG = ("pg_isready", "--quiet", "--host=127.0.0.1", "--username=shop", "--dbname=shop_db")


def sql(container: Container, query: str, password: str = PASSWORD) -> tuple[int, str]:
    """Run a query over the network, with a password, as a client elsewhere would."""
    address = next(iter(container.attrs["NetworkSettings"]["Networks"].values()))["IPAddress"]
    code, output = shell(
        container, "psql", "-h", address, "-U", "shop", "-d", "shop_db", "-Atqc", query, PGPASSWORD=password
    )
    return code, output.strip()


def test_postgres_settles_what_its_environment_says(start_postgres: Callable[..., Container]) -> None:
    server = start_postgres()
    wait_for(server, *READY_PG)
    assert sql(server, "SELECT n FROM from_sql") == (0, "42"), "both init scripts ran, in order"
    assert sql(server, "SHOW max_connections") == (0, "23")
    assert sql(server, "SHOW data_checksums") == (0, "on")
    assert sql(server, "CREATE EXTENSION vector; SELECT '[1,2]'::vector <-> '[4,6]'") == (0, "5")
    code, output = sql(server, "SELECT 1", password="wrong")
    assert code != 0
    assert "password authentication failed" in output


def test_postgres_keeps_data_and_password_when_made_anew(start_postgres: Callable[..., Container]) -> None:
    first = start_postgres()
    wait_for(first, *READY_PG)
    assert sql(first, "CREATE TABLE kept AS SELECT 7 AS n")[0] == 0
    first.stop(timeout=20)
    first.reload()
    assert first.attrs["State"]["ExitCode"] == 0, "the image's stop signal is a clean shutdown"
    second = start_postgres(environment={})
    wait_for(second, *READY_PG)
    assert sql(second, "SELECT n FROM kept") == (0, "7")
    assert "database system was not properly shut down" not in second.logs().decode()


def test_postgres_refuses_a_database_without_a_password(start_postgres: Callable[..., Container]) -> None:
    server = start_postgres(environment={"POSTGRES_USER": "shop"})
    assert server.wait(timeout=30)["StatusCode"] == 1
    assert "POSTGRES_PASSWORD" in server.logs().decode()


# --- Valkey ---------------------------------------------------------------------------------------------


def test_valkey_obeys_its_acl_file_and_keeps_data(run: Run, volume: str, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "users.acl").write_text(f"user default off\nuser shop on >{PASSWORD.replace(' ', '')} ~* +@all\n")
    login = {"REDISCLI_AUTH": PASSWORD.replace(" ", "")}

    def start() -> Container:
        server = run(
            "valkey",
            ["valkey-server", "--appendonly", "yes", "--aclfile", "/etc/users.acl"],
            volumes=[f"{volume}:/data", f"{tmp_path}/users.acl:/etc/users.acl:ro"],
        )
        wait_for(server, "sh", "-c", "valkey-cli --user shop ping | grep -q PONG", seconds=20, **login)
        return server

    first = start()
    assert "NOAUTH" in shell(first, "valkey-cli", "get", "x")[1]
    assert shell(first, "redis-cli", "--user", "shop", "set", "x", "7", **login)[1].strip() == "OK"
    first.stop(timeout=10)
    assert shell(start(), "valkey-cli", "--user", "shop", "get", "x", **login)[1].strip() == "7"


# --- nginx ----------------------------------------------------------------------------------------------


def test_nginx_serves_the_mounted_configuration(run: Run, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "shop.conf").write_text("server { listen 8080; location / { return 200 'from the shop'; } }")
    server = run(
        "nginx",
        volumes=[f"{tmp_path}:/etc/nginx/conf.d:ro"],
        tmpfs={"/tmp": ""},
    )
    wait_for(server, "wget", "-qO", "/dev/null", "http://127.0.0.1:8080/", seconds=20)
    assert shell(server, "wget", "-qO-", "http://127.0.0.1:8080/")[1] == "from the shop"
    logs = server.logs(stdout=True, stderr=False).decode()
    assert '"GET / HTTP/1.1" 200' in logs, "requests are logged to the container's output"
    server.stop(timeout=10)
    server.reload()
    assert server.attrs["State"]["ExitCode"] == 0


# --- Python ---------------------------------------------------------------------------------------------

# A whole package as pip takes it, so that the test needs no index.
MAKE_WHEEL = """
import base64, hashlib, zipfile
info = "hello_shop-1.0.dist-info"
files = {
    "hello_shop.py": "WORD = 'served'",
    f"{info}/METADATA": "Metadata-Version: 2.1\\nName: hello-shop\\nVersion: 1.0\\n",
    f"{info}/WHEEL": "Wheel-Version: 1.0\\nGenerator: test\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n",
}
files[f"{info}/RECORD"] = "".join(f"{name},,\\n" for name in [*files, f"{info}/RECORD"])
path = "/scratch/hello_shop-1.0-py3-none-any.whl"
with zipfile.ZipFile(path, "w") as wheel:
    for name, text in files.items():
        wheel.writestr(name, text)
digest = hashlib.sha256(open(path, "rb").read()).hexdigest()
open("/scratch/requirements.txt", "w").write(f"hello-shop==1.0 --hash=sha256:{digest}\\n")
open("/scratch/wrong.txt", "w").write(f"hello-shop==1.0 --hash=sha256:{'0' * 64}\\n")
"""


def test_python_installs_hashed_wheels_for_its_user_and_into_a_venv(engine: DockerClient, run: Run) -> None:
    service = run("python", ["sleep", "120"], network="none", tmpfs={"/scratch": "uid=10001,exec", "/tmp": ""})
    assert shell(service, "python", "-c", MAKE_WHEEL) == (0, "")
    install = "install --quiet --no-cache-dir --no-index --find-links /scratch --require-hashes -r /scratch/"
    assert shell(service, "python3", "-m", "venv", "/scratch/venv")[0] == 0
    code, output = shell(service, "sh", "-c", f"/scratch/venv/bin/pip {install}wrong.txt")
    assert code != 0
    assert "DO NOT MATCH THE HASHES" in output
    for command, python in (
        (f"/scratch/venv/bin/pip {install}requirements.txt", "/scratch/venv/bin/python"),
        (f"pip {install}requirements.txt --user", "python"),
    ):
        code, output = shell(service, "sh", "-c", command, HOME="/scratch")
        assert code == 0, output
        assert shell(service, python, "-c", "import hello_shop as h; print(h.WORD)", HOME="/scratch") == (
            0,
            "served\n",
        )


def test_python_installs_into_the_system_at_build_time(engine: DockerClient) -> None:
    """As a service's Dockerfile does it: root, no venv, no override of an external manager."""
    script = (
        'mkdir /scratch && python -c "$MAKE" && '
        "pip install --quiet --no-cache-dir --no-index --find-links /scratch --require-hashes "
        "--requirement /scratch/requirements.txt && "
        "python3 -c 'import hello_shop as h; print(h.WORD)'"
    )
    build = engine.containers.run(
        TABLE["python"].tag,
        ["sh", "-c", script],
        environment={"MAKE": MAKE_WHEEL},
        network="none",
        detach=True,
    )
    try:
        status = build.wait(timeout=60)["StatusCode"]
        assert (status, build.logs(stderr=False).decode()) == (0, "served\n"), build.logs().decode()
    finally:
        build.remove(force=True)


# --- registry -------------------------------------------------------------------------------------------


def test_registry_takes_and_gives_an_image(engine: DockerClient, run: Run, volume: str) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    registry = run(
        "registry",
        network="bridge",
        ports={"5000/tcp": ("127.0.0.1", port)},
        volumes=[f"{volume}:/var/lib/registry"],
    )
    wait_for(registry, "wget", "-qO", "/dev/null", "http://127.0.0.1:5000/v2/", seconds=20)
    address = f"127.0.0.1:{port}"
    image: Image = TABLE["base"]
    assert pushed_id(address, image.name, image.version) is None
    push(engine, [image], address)
    assert pushed_id(address, image.name, image.version) == engine.images.get(image.tag).id
    pulled = engine.images.pull(f"{address}/{image.name}", image.version)
    engine.images.remove(f"{address}/{image.name}:{image.version}")
    assert pulled.id == engine.images.get(image.tag).id


# --- n8n ------------------------------------------------------------------------------------------------


def test_n8n_is_ready_on_postgres(run: Run, start_postgres: Callable[..., Container], second_volume: str) -> None:
    database = start_postgres(name=f"images-test-{uuid.uuid4().hex[:8]}")
    wait_for(database, *READY_PG)
    n8n = run(
        "n8n",
        environment={
            **QUIET_N8N,
            "DB_TYPE": "postgresdb",
            "DB_POSTGRESDB_HOST": database.name,
            "DB_POSTGRESDB_DATABASE": "shop_db",
            "DB_POSTGRESDB_USER": "shop",
            "DB_POSTGRESDB_PASSWORD": PASSWORD,
            "N8N_ENCRYPTION_KEY": uuid.uuid4().hex,
        },
        tmpfs={"/tmp": "", "/home/node/.cache": "uid=1000,gid=1000"},
        volumes=[f"{second_volume}:/home/node/.n8n"],
    )
    wait_for(n8n, "node", "-e", READY, seconds=180)
    assert int(sql(database, "SELECT count(*) FROM migrations")[1]) > 100, "its tables are in PostgreSQL"
    code, output = shell(n8n, "n8n", "list:workflow")
    assert code == 0, output
    n8n.stop(timeout=30)
    n8n.reload()
    assert n8n.attrs["State"]["ExitCode"] == 0, "tini passes the stop signal on"


def test_n8n_takes_its_arguments_as_the_command(run: Run, volume: str) -> None:
    """SQLite too: the compiled module works, and a fresh volume is writable for the user."""
    n8n = run(
        "n8n",
        ["list:workflow"],
        environment=QUIET_N8N,
        network="none",
        tmpfs={"/tmp": "", "/home/node/.cache": "uid=1000,gid=1000"},
        volumes=[f"{volume}:/home/node/.n8n"],
    )
    assert n8n.wait(timeout=120)["StatusCode"] == 0, n8n.logs().decode()
