"""The automation modules against a real PostgreSQL and a real n8n, run by Ansible as tasks of a play."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from automation_stack import OWNER, ROOT, SHOP_CREDENTIAL, Answer, Result, Stack, files, make_stack, run_module
from docker import DockerClient
from n8n_api import OwnerSession
from rate_limiter_server import POLICIES, RateLimiter, build_image
from redis_server import RedisServer
from waiting import wait_until

SHOP_SQL = sorted((ROOT / "files/schema/shop").glob("*.sql"))
ECHO, INTAKE, EXTRA = "piHealthEcho0001", "piOrderIntake001", "piExtraForTests1"


@pytest.fixture(scope="module")
def postgres(engine: DockerClient, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """PostgreSQL with the databases and the schema, all made by the modules."""
    for stack in make_stack(engine, tmp_path_factory.mktemp("automation")):
        assert stack.databases().changed
        assert migrate(stack, shop_files()).changed
        yield stack


@pytest.fixture(scope="module")
def limiter(postgres: Stack, redis: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RateLimiter]:
    """One that answers n8n alone."""
    build_image(postgres.engine)
    server = RateLimiter(
        postgres.engine,
        redis,
        tmp_path_factory.mktemp("limiter-of-n8n"),
        policies=json.dumps({"policies": POLICIES}),
        password=redis.limiter_password,
        tokens={"n8n": postgres.limiter_token},
    )
    try:
        server.ready()
        yield server
    finally:
        server.remove()


@pytest.fixture(scope="module")
def stack(postgres: Stack, limiter: RateLimiter) -> Iterator[Stack]:
    """Make n8n run too, with the workflows of the project and the real rate limiter beside it."""
    postgres.network.connect(limiter.container, aliases=["rate_limiter"])
    try:
        postgres.start_n8n()
        # The module itself waits until n8n is ready.
        predicted = postgres.workflows(declared(), "--check", "--diff")
        assert postgres.sql("SELECT count(*) FROM workflow_entity") == "0"
        created = postgres.workflows(declared())
        assert created.changed, created.output
        assert created.values["actions"] == predicted.values["actions"]
        yield postgres
    finally:
        postgres.network.disconnect(limiter.container)


def migrate(stack: Stack, migrations: dict[str, str], *options: str, database: str = "shop") -> Any:
    entries = [{"name": name, "sql": sql} for name, sql in migrations.items()]
    arguments = {"database": database, "owner": database, "migrations": entries}
    return stack.module("postgres_migrations", arguments, *options)


def shop_files() -> dict[str, str]:
    return {path.name: path.read_text() for path in SHOP_SQL}


def order(order_id: str, **changes: Any) -> dict[str, Any]:
    return {
        "order_id": order_id,
        "source": "instagram",
        "total_cents": 4990,
        "currency": "EUR",
        "items": [{"sku": "MUG-1", "quantity": 2, "price_cents": 2495}],
        **changes,
    }


def intake(stack: Stack, document: object) -> Answer:
    return stack.webhook("POST", "order-intake", document)


# --- Databases ------------------------------------------------------------------------------------------


def test_databases_stay_as_they_are_when_nothing_changed(postgres: Stack) -> None:
    again = postgres.databases()
    assert not again.changed
    assert again.values["changes"] == []


def test_a_database_is_for_its_owner_alone(postgres: Stack) -> None:
    assert postgres.login("shop", postgres.passwords["shop"], "shop") == (True, "1\n")
    entered, said = postgres.login("shop", postgres.passwords["shop"], "n8n")
    assert not entered
    assert "permission denied for database" in said


def test_drift_of_roles_and_databases_is_repaired(postgres: Stack) -> None:
    postgres.sql("ALTER ROLE shop CREATEDB; GRANT CONNECT ON DATABASE shop TO PUBLIC, n8n;")
    postgres.sql("ALTER SCHEMA public OWNER TO postgres", "shop")
    postgres.sql("ALTER DATABASE n8n OWNER TO postgres")
    predicted = postgres.databases("--check")
    assert postgres.sql("SELECT rolcreatedb FROM pg_roles WHERE rolname = 'shop'") == "t"
    repaired = postgres.databases()
    assert predicted.values["changes"] == repaired.values["changes"]
    assert repaired.values["changes"] == [
        "make role shop a plain login role",
        "give database n8n to role n8n",
        "revoke database shop from PUBLIC, n8n",
        "give schema public of database shop to its owner",
    ]
    assert not postgres.databases().changed


def test_password_is_rotated_and_never_written_anywhere(postgres: Stack) -> None:
    old, new = postgres.passwords["shop"], "rotated-Qf7!'\"\\ pass"
    rotated = postgres.databases("--diff", "-vvv", shop=new)
    assert rotated.values["changes"] == ["set the password of role shop"]
    assert postgres.login("shop", new, "shop")[0]
    assert "password authentication failed" in postgres.login("shop", old, "shop")[1]
    assert not postgres.databases().changed
    log = postgres.postgres.logs().decode()
    assert "ALTER ROLE" in log, "the log has every statement"
    assert new not in log + rotated.output
    assert postgres.databases(shop=old).changed


@pytest.mark.parametrize(
    ("database", "message"),
    [
        ({"name": "shop-2", "owner": "shop"}, "name 'shop-2' is not usable"),
        ({"name": "shop", "owner": "Shop"}, "owner of 'shop' 'Shop' is not usable"),
        ({"name": "postgres", "owner": "shop"}, "'postgres' belongs to PostgreSQL itself"),
        ({"name": "other", "owner": "postgres"}, "must not be owned by the superuser"),
        (
            {"name": "other", "owner": "other", "password": "ключ"},
            "the password of role 'other' must be printable ASCII",
        ),
    ],
)
def test_unusable_databases_are_refused(postgres: Stack, database: dict[str, str], message: str) -> None:
    refused = postgres.module("postgres_databases", {"databases": [{"password": "x-9-x", **database}]})
    assert message in refused.values["msg"]


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ({"name": "one", "owner": "me", "password": "x-9-x"}, "'one' is listed twice"),
        ({"name": "two", "owner": "me", "password": "y-9-y"}, "role 'me' is given two different passwords"),
    ],
)
def test_databases_that_contradict_are_refused(postgres: Stack, second: dict[str, str], message: str) -> None:
    first = {"name": "one", "owner": "me", "password": "x-9-x"}
    assert message in postgres.module("postgres_databases", {"databases": [first, second]}).values["msg"]


def test_a_container_that_is_away_is_named_but_check_mode_predicts(postgres: Stack) -> None:
    wanted = {
        "container": "no-such-container",
        "databases": [{"name": "a", "owner": "a", "password": "x-9-x"}],
    }
    assert "'no-such-container' cannot be reached" in postgres.module("postgres_databases", wanted).values["msg"]
    predicted = postgres.module("postgres_databases", wanted, "--check")
    assert predicted.values["changes"] == ["create role a", "create database a"]


# --- Migrations -----------------------------------------------------------------------------------------


def test_migrations_are_applied_once_and_as_the_owner(postgres: Stack) -> None:
    assert not migrate(postgres, shop_files()).changed
    assert postgres.sql("SELECT tableowner FROM pg_tables WHERE tablename = 'orders'", "shop") == "shop"
    more = {**shop_files(), "902_note.sql": "ALTER TABLE shop.orders ADD note text; -- it's :new\n"}
    assert migrate(postgres, more, "--check").values["applied"] == ["902_note.sql"]
    assert migrate(postgres, more).values["applied"] == ["902_note.sql"]
    assert not migrate(postgres, more).changed


def test_two_runs_at_once_apply_a_migration_once(postgres: Stack, tmp_path: Path) -> None:
    files = {**shop_files(), "903_slow.sql": "SELECT pg_sleep(3); CREATE TABLE slow ();"}
    entries = [{"name": name, "sql": sql} for name, sql in files.items()]
    arguments = {"container": postgres.postgres.name, "database": "shop", "owner": "shop", "migrations": entries}

    def run(name: str) -> Result:
        (tmp_path / name).mkdir()
        return run_module(tmp_path / name, "postgres_migrations", arguments)

    with ThreadPoolExecutor() as pool:
        results = list(pool.map(run, ["first", "second"]))
    assert [result.values.get("msg") for result in results] == [None, None]
    assert any(result.changed for result in results)
    assert postgres.sql("SELECT count(*) FROM schema_migrations WHERE name = '903_slow.sql'", "shop") == "1"
    postgres.sql("DROP TABLE shop.slow; DELETE FROM schema_migrations WHERE name = '903_slow.sql'", "shop")


def test_an_edited_migration_is_refused(postgres: Stack) -> None:
    edited = {name: sql + "SELECT 1;" for name, sql in shop_files().items()}
    message = migrate(postgres, edited).values["msg"]
    assert "001_orders.sql was edited" in message
    assert "add a new migration" in message


def test_a_migration_before_an_applied_one_is_refused(postgres: Stack) -> None:
    late = migrate(postgres, {**shop_files(), "000_late.sql": "SELECT 1"})
    assert "000_late.sql would come before" in late.values["msg"]


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("CREATE TABLE half (a int); INSERT INTO half VALUES ('x');", "invalid input syntax"),
        ("CREATE TABLE half (a int); COMMIT;", "transaction commands"),
        ("CREATE TABLE half (a text DEFAULT 'open quote);", "unterminated quoted string"),
    ],
)
def test_a_failing_migration_leaves_nothing(postgres: Stack, sql: str, message: str) -> None:
    steps = {
        "001_whole.sql": "CREATE TABLE IF NOT EXISTS whole (a int)",
        "002_half.sql": sql,
        "003_x.sql": "SELECT 1",
    }
    failed = migrate(postgres, steps, database="n8n").values["msg"]
    assert "002_half.sql failed and was rolled back" in failed
    assert message in failed
    assert postgres.sql("SELECT string_agg(name, ',') FROM schema_migrations") == "001_whole.sql"
    assert postgres.sql("SELECT to_regclass('half') IS NULL") == "t"


@pytest.mark.parametrize(
    ("name", "sql", "message"),
    [("1_short.sql", "SELECT 1", "not a usable name"), ("004_empty.sql", " \n", "'004_empty.sql' is empty")],
)
def test_an_unusable_migration_is_refused(postgres: Stack, name: str, sql: str, message: str) -> None:
    assert message in migrate(postgres, {name: sql}).values["msg"]


def test_a_missing_database_is_named(postgres: Stack) -> None:
    message = migrate(postgres, shop_files(), database="nowhere").values["msg"]
    assert "database 'nowhere' does not exist" in message
    assert migrate(postgres, shop_files(), "--check", database="nowhere").changed


# --- Workflows ------------------------------------------------------------------------------------------


def traces(stack: Stack) -> str:
    """Everything a run could leave behind in n8n, as text."""
    return stack.sql(
        'SELECT id, "updatedAt", "versionId", "activeVersionId" FROM workflow_entity ORDER BY id;'
        'SELECT count(*) FROM workflow_history; SELECT id, "updatedAt", md5(data) FROM credentials_entity;'
        "SELECT count(*) FROM user_api_keys"
    )


def another_workflow() -> dict[str, Any]:
    """A third workflow: GET /webhook/extra."""
    extra = files()["health-echo.json"]
    extra.update(id=EXTRA, name="Extra")
    for node in extra["nodes"]:
        node["id"] = node["id"].replace("5ea17000", "e7000000")
    extra["nodes"][0].update(webhookId="e7000000-0000-4000-9000-000000000001")
    extra["nodes"][0]["parameters"]["path"] = "extra"
    return extra


def declared() -> dict[str, Any]:
    """The files of the project and the third one."""
    return {**files(), "extra.json": another_workflow()}


def body_of(workflow: dict[str, Any]) -> dict[str, Any]:
    """What the public API takes of a workflow."""
    return {key: workflow[key] for key in ("name", "nodes", "connections", "settings")}


def test_a_run_without_changes_leaves_no_trace(stack: Stack) -> None:
    before = traces(stack)
    again = stack.workflows(declared())
    assert not again.changed
    assert again.values["actions"] == []
    assert traces(stack) == before
    assert before.endswith("\n0"), "no API key is left"


def test_health_echo_answers(stack: Stack) -> None:
    answer = stack.webhook("GET", "health-echo?token=a%20b")
    assert answer.status == 200
    assert (answer.body["status"], answer.body["echo"]) == ("ok", "a b")


def test_an_order_is_saved_once(stack: Stack) -> None:
    document = order("A-1", items=[{"sku": f"MUG-{n}", "quantity": n, "price_cents": 100} for n in (1, 2)])
    first, second = intake(stack, document), intake(stack, document)
    assert (first.status, first.body["status"]) == (201, "saved")
    assert (second.status, second.body) == (200, {"status": "duplicate", "id": first.body["id"]})
    assert (
        stack.sql("SELECT total_cents, raw->>'order_id' FROM shop.orders WHERE order_id = 'A-1'", "shop") == "4990|A-1"
    )
    query = f"SELECT line, sku, quantity FROM shop.order_items WHERE order_id = {int(first.body['id'])} ORDER BY line"
    assert stack.sql(query, "shop") == "1|MUG-1|1\n2|MUG-2|2"
    other = intake(stack, order("A-1", source="facebook"))
    assert other.status == 201, "the same number from another source is another order"


def test_the_same_order_at_the_same_moment_is_saved_once(stack: Stack) -> None:
    answers: list[Answer] = []
    threads = [threading.Thread(target=lambda: answers.append(intake(stack, order("B-1")))) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answer.status for answer in answers) == [200, 200, 200, 200, 201]
    assert len({answer.body["id"] for answer in answers}) == 1


@pytest.mark.parametrize(
    ("document", "field"),
    [
        (order(""), "order_id"),
        (order("C-1", source="nobody"), "source"),
        (order("C-1", total_cents=-1), "total_cents"),
        (order("C-1", total_cents=1.5), "total_cents"),
        (order("C-1", currency="euro"), "currency"),
        (order("C-1", items=[]), "items"),
        (order("C-1", items=["MUG"]), "items[0]"),
        (order("C-1", items=[{"sku": "MUG", "quantity": 0, "price_cents": 1}]), "items[0].quantity"),
        (order("C-1", note="\0"), "body"),
        ([order("C-1")], "body"),
    ],
)
def test_a_bad_order_is_refused_with_the_field_named(stack: Stack, document: object, field: str) -> None:
    answer = intake(stack, document)
    assert answer.status == 422, answer
    assert answer.body["field"] == field


def test_more_orders_than_the_limit_are_put_off(stack: Stack) -> None:
    answers = [intake(stack, order(f"D-{number}", source="shopify")) for number in range(40)]
    refused = [number for number, answer in enumerate(answers) if answer.status == 429]
    assert refused, [answer.status for answer in answers]
    assert 0 < answers[refused[0]].body["retry_after"] <= 1
    assert stack.sql(f"SELECT count(*) FROM shop.orders WHERE order_id = 'D-{refused[0]}'", "shop") == "0"


def test_without_the_rate_limiter_nothing_is_saved(stack: Stack, limiter: RateLimiter) -> None:
    stack.network.disconnect(limiter.container)
    try:
        answer = intake(stack, order("E-1"))
    finally:
        stack.network.connect(limiter.container, aliases=["rate_limiter"])
    assert (answer.status, answer.body["status"]) == (503, "unavailable")
    wait_until(lambda: intake(stack, order("E-1")).status == 201, 20, "the limiter is back")


def test_without_its_table_an_order_is_answered_with_503(stack: Stack) -> None:
    stack.sql("ALTER TABLE shop.orders RENAME TO away", "shop")
    try:
        answer = intake(stack, order("F-1"))
    finally:
        stack.sql("ALTER TABLE shop.away RENAME TO orders", "shop")
    assert (answer.status, answer.body["status"]) == (503, "unavailable")
    assert intake(stack, order("F-1")).status == 201


def test_an_update_leaves_no_gap_and_ssrf_stays_out(stack: Stack) -> None:
    """Two files change at once; the second asks a service of this network that is not on the SSRF list."""
    changed = declared()
    answer = changed["health-echo.json"]["nodes"][1]["parameters"]
    answer["responseBody"] = answer["responseBody"].replace("status: 'ok'", "status: 'new'")
    [ask] = [node for node in changed["order-intake.json"]["nodes"] if node["name"] == "Ask rate limiter"]
    ask["parameters"]["url"] = "http://n8n:5678/healthz"
    seen: list[tuple[int, Any]] = []
    stop = threading.Event()

    def poll() -> None:
        while not stop.is_set():
            reply = stack.webhook("GET", "health-echo?token=t")
            seen.append((reply.status, (reply.body or {}).get("status")))

    poller = threading.Thread(target=poll)
    poller.start()
    try:
        updated = stack.workflows(changed, "--diff")
        assert updated.values["actions"] == [
            f"update Health echo ({ECHO})",
            f"update Order intake ({INTAKE})",
        ]
        wait_until(lambda: seen[-1] == (200, "new"), 10, "the new version is live")
    finally:
        stop.set()
        poller.join()
    assert {status for status, _ in seen} == {200}
    assert seen[0] == (200, "ok")
    assert not stack.workflows(changed).changed
    wait_until(lambda: intake(stack, order("G-1")).status == 503, 10, "the changed intake is live")
    assert stack.workflows(declared()).changed
    wait_until(lambda: intake(stack, order("G-1")).status == 201, 10, "the declared intake is live again")


def test_drift_is_repaired(stack: Stack) -> None:
    edited = another_workflow()
    edited["nodes"][1]["parameters"]["responseBody"] = "{}"
    with OwnerSession(stack.api(), OWNER, stack.owner_password, {"update", "unpublish"}) as owner:
        owner.unpublish(ECHO)
        owner.update(INTAKE, {**body_of(files()["order-intake.json"]), "name": "Edited by hand"})
        # Edited and published, then put back without publishing: the editor shows the file, the edit is live.
        owner.update(EXTRA, body_of(edited))
        path, key = (
            f"/api/v1/workflows/{EXTRA}?publishIfActive=false",
            {"x-n8n-api-key": owner._key["rawApiKey"]},
        )
        assert stack.api().call("PUT", path, key, body_of(another_workflow())).status == 200
    assert stack.webhook("GET", "health-echo").status == 404
    repaired = stack.workflows(declared())
    assert repaired.values["actions"] == [
        f"publish Health echo ({ECHO})",
        f"update Order intake ({INTAKE})",
        f"publish Extra ({EXTRA})",
    ]
    assert stack.webhook("GET", "health-echo").status == 200
    assert stack.sql("SELECT count(*) FROM user_api_keys") == "0"
    assert not stack.workflows(declared()).changed


def test_owner_may_come_again_in_the_second_he_left(stack: Stack) -> None:
    """What n8n gives at a login holds no more than the second of it, and the one that was given back is void."""
    wait_until(lambda: time.time() % 1 < 0.1, 5, "a second begins")
    for _ in range(2):
        with OwnerSession(stack.api(), OWNER, stack.owner_password, set()) as owner:
            assert owner.node_types()


def test_an_unknown_node_is_refused_before_anything_changes(stack: Stack) -> None:
    broken = declared()
    broken["order-intake.json"]["nodes"][1]["type"] = "n8n-nodes-base.doesNotExist"
    broken["health-echo.json"]["nodes"][0]["typeVersion"] = 99
    before = traces(stack)
    message = stack.workflows(broken).values["msg"]
    assert "node 'Check fields': this n8n has no node type n8n-nodes-base.doesNotExist" in message
    assert "health-echo.json: node 'Probe': this n8n has no version 99 of n8n-nodes-base.webhook" in message
    assert traces(stack) == before


def test_an_undeclared_credential_is_refused(stack: Stack) -> None:
    broken = declared()
    [save] = [node for node in broken["order-intake.json"]["nodes"] if "postgres" in node.get("credentials", {})]
    save["credentials"]["postgres"]["id"] = "nobodyKnowsThis0"
    message = stack.workflows(broken).values["msg"]
    assert "order-intake.json: node 'Save once' uses credential 'Shop database' (nobodyKnowsThis0)" in message


def test_a_wrong_owner_is_refused(stack: Stack) -> None:
    changed = declared()
    changed["health-echo.json"]["name"] = "Another name"
    refused = stack.workflows(changed, owner_email="nobody@shop.test", owner_password="not-the-password-0")
    assert "n8n refused the login of its owner nobody@shop.test" in refused.values["msg"]
    assert "not-the-password-0" not in refused.output


def test_an_order_is_taken_from_the_webhook_handler_alone(stack: Stack) -> None:
    token, stack.webhook_token = stack.webhook_token, "guessed"
    try:
        assert intake(stack, order("Z-1")).status == 403
    finally:
        stack.webhook_token = token
    assert stack.sql("SELECT count(*) FROM shop.orders WHERE order_id = 'Z-1'", "shop") == "0"


def test_a_rotated_password_reaches_n8n(stack: Stack) -> None:
    stack.databases(shop="another-secret-4711")
    rotated = stack.workflows(declared(), "--diff", "-vvv")
    assert rotated.values["actions"] == [f"import credential Shop database ({SHOP_CREDENTIAL})"]
    assert "another-secret-4711" not in rotated.output
    assert intake(stack, order("H-1")).status == 201
    assert not stack.workflows(declared()).changed
    code, left = stack.n8n.exec_run(["find", "/tmp", "-type", "f", "-name", "tmp.*"])
    assert (code, left) == (0, b""), "the file n8n read is gone"


def test_a_lost_credential_is_imported_again(stack: Stack) -> None:
    stack.sql(f"DELETE FROM credentials_entity WHERE id = '{SHOP_CREDENTIAL}'")
    assert stack.workflows(declared()).changed
    assert intake(stack, order("I-1")).status == 201


def test_a_removed_file_is_unpublished_not_deleted(stack: Stack) -> None:
    assert stack.webhook("GET", "extra").status == 200
    assert stack.workflows(files()).values["actions"] == [f"unpublish Extra ({EXTRA})"]
    assert stack.webhook("GET", "extra").status == 404
    assert stack.sql(f"SELECT name FROM workflow_entity WHERE id = '{EXTRA}'") == "Extra"
    assert not stack.workflows(files()).changed
