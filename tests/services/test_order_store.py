"""The order store in a real PostgreSQL: no store sees or touches another one's rows, and money adds up."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import asyncpg
import pytest
from intake_parts import SCHEMA, Parts, database
from test_intake import sql

TABLES = (
    *("carts", "customers", "email_templates", "inbox", "inventory", "metrics", "orders", "order_items", "outbox"),
    *("api_calls", "experiments", "payments", "posts", "products", "publications", "scheduled_tasks", "shipments"),
    "variants",
)
ONE, TWO = "1", "2"
# A row of each table in the store that the setting names; {0} makes it unique.
ROWS = {
    "customers": "INSERT INTO customers (email) VALUES ('c{0}@example.com')",
    "products": "INSERT INTO products (handle, title, category) VALUES ('h{0}', 'Mug', 'Mugs')",
    "variants": "INSERT INTO variants (product_id, sku, price_cents, currency)"
    " SELECT id, 'SKU{0}', 100, 'EUR' FROM products WHERE handle = 'h{0}'",
    "inventory": "INSERT INTO inventory (variant_id, quantity) SELECT id, 3 FROM variants WHERE sku = 'SKU{0}'",
    "carts": "INSERT INTO carts (token) VALUES ('t{0}')",
    "orders": "INSERT INTO orders (source, order_id, total_cents, currency, raw)"
    " VALUES ('test', 'O{0}', 1, 'EUR', '{{}}')",
    "order_items": "INSERT INTO order_items (order_id, line, sku, quantity, price_cents)"
    " SELECT id, 1, 'SKU{0}', 1, 1 FROM orders WHERE order_id = 'O{0}'",
    "payments": "INSERT INTO payments (order_id, provider, reference, amount_cents, currency, status)"
    " SELECT id, 'test', 'P{0}', 1, 'EUR', 'paid' FROM orders WHERE order_id = 'O{0}'",
    "shipments": "INSERT INTO shipments (order_id, carrier, tracking_number)"
    " SELECT id, 'test', 'T{0}' FROM orders WHERE order_id = 'O{0}'",
    "posts": "INSERT INTO posts (channel, external_id) VALUES ('instagram', 'E{0}')",
    "publications": "INSERT INTO publications (post_id) SELECT id FROM posts WHERE external_id = 'E{0}'",
    "experiments": "INSERT INTO experiments (name) VALUES ('x{0}')",
    "email_templates": "INSERT INTO email_templates (name, subject, body) VALUES ('m{0}', 's', 'b')",
    "scheduled_tasks": "INSERT INTO scheduled_tasks (task, key, due_at) VALUES ('t', 'k{0}', now())",
    "metrics": "INSERT INTO metrics (name, value) VALUES ('m{0}', 1)",
    "api_calls": "INSERT INTO api_calls (api, operation) VALUES ('a{0}', 'get')",
    "inbox": "INSERT INTO inbox (endpoint, event_id, topic) VALUES ('custom', 'e{0}', 't')",
    "outbox": "INSERT INTO outbox (inbox_id, consumer) SELECT id, 'shop' FROM inbox WHERE event_id = 'e{0}'",
}


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parts]:
    """PostgreSQL with the schema, and two stores with a row in every table each."""
    with database(tmp_path_factory.mktemp("store")) as made:
        sql(made, "INSERT INTO stores (name) VALUES ('second')")
        for store in (ONE, TWO):
            for statement in ROWS.values():
                sql(made, statement.format(store), store=store)
        yield made


def count(parts: Parts, table: str, store: str) -> int:
    return int(sql(parts, f"SELECT count(*) FROM {table}", store=store)[0][0])


def test_every_table_of_a_store_is_isolated_and_tried_here(parts: Parts) -> None:
    found = sql(
        parts,
        "SELECT relname, relrowsecurity AND relforcerowsecurity AS forced"
        " FROM pg_class JOIN pg_attribute ON attrelid = pg_class.oid"
        " WHERE relnamespace = 'shop'::regnamespace AND relkind = 'r' AND attname = 'store_id'",
    )
    assert {row["relname"] for row in found} == set(TABLES) == set(ROWS)
    assert all(row["forced"] for row in found)


@pytest.mark.parametrize("table", TABLES)
def test_a_store_sees_its_own_rows_alone(parts: Parts, table: str) -> None:
    assert count(parts, table, ONE) == count(parts, table, TWO) == 1
    assert count(parts, table, "*") == 2
    assert count(parts, table, "") == 0, "two stores and none named: nothing is seen"
    assert count(parts, table, "3") == 0


@pytest.mark.parametrize("table", TABLES)
def test_a_store_changes_and_removes_nothing_of_another(parts: Parts, table: str) -> None:
    for statement in (
        f"UPDATE {table} SET store_id = store_id WHERE store_id = 2",
        f"DELETE FROM {table} WHERE store_id = 2",
    ):
        sql(parts, statement, store=ONE)
    assert count(parts, table, TWO) == 1


@pytest.mark.parametrize("table", TABLES)
def test_a_row_does_not_move_to_another_store(parts: Parts, table: str) -> None:
    with pytest.raises(asyncpg.PostgresError, match=r"row-level security|violates foreign key"):
        sql(parts, f"UPDATE {table} SET store_id = 2", store=ONE)


def test_nothing_is_written_into_another_store_or_into_none(parts: Parts) -> None:
    insert = "INSERT INTO customers (store_id, email) VALUES ($1, 'x@example.com')"
    with pytest.raises(asyncpg.InsufficientPrivilegeError, match="row-level security"):
        sql(parts, insert, 2, store=ONE)
    for store in ("", "3"):
        with pytest.raises(asyncpg.PostgresError, match=r"row-level security|not-null|foreign key"):
            sql(parts, "INSERT INTO customers (email) VALUES ('x@example.com')", store=store)


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO order_items (store_id, order_id, line, sku, quantity, price_cents)"
        " SELECT 2, id, 9, 'x', 1, 1 FROM orders WHERE store_id = 1",
        "INSERT INTO payments (store_id, order_id, provider, reference, amount_cents, currency, status)"
        " SELECT 2, id, 'x', 'x', 1, 'EUR', 'paid' FROM orders WHERE store_id = 1",
        "INSERT INTO outbox (store_id, inbox_id, consumer) SELECT 2, id, 'other' FROM inbox WHERE store_id = 1",
        "UPDATE orders SET customer_id = (SELECT id FROM customers WHERE store_id = 2) WHERE store_id = 1",
    ],
)
def test_no_row_points_into_another_store_not_even_from_a_service_of_all(parts: Parts, statement: str) -> None:
    with pytest.raises(asyncpg.ForeignKeyViolationError):
        sql(parts, statement, store="*")


def test_the_same_number_is_another_order_in_another_store(parts: Parts) -> None:
    insert = "INSERT INTO orders (source, order_id, total_cents, currency, raw) VALUES ('test', 'SAME', 1, 'EUR', '{}')"
    for store in (ONE, TWO):
        sql(parts, insert, store=store)
        with pytest.raises(asyncpg.UniqueViolationError):
            sql(parts, insert, store=store)
    sql(parts, "DELETE FROM orders WHERE order_id = 'SAME'")


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO orders (source, order_id, total_cents, currency, raw) VALUES ('t', 'B', -1, 'EUR', '{}')",
        "INSERT INTO orders (source, order_id, total_cents, currency, raw) VALUES ('t', 'B', 1, 'eur', '{}')",
        "UPDATE inventory SET reserved = quantity + 1",
        "UPDATE inventory SET quantity = -1",
        "UPDATE orders SET status = 'lost'",
        "UPDATE posts SET status = 'scheduled'",
        "UPDATE posts SET status = 'published'",
        "UPDATE posts SET confidence = 1.2",
        "UPDATE outbox SET state = 'dead', settled_at = now()",
        "INSERT INTO customers (email) VALUES ('nobody')",
        "UPDATE stores SET name = 'Not a name'",
    ],
)
def test_what_cannot_be_is_refused(parts: Parts, statement: str) -> None:
    with pytest.raises(asyncpg.CheckViolationError):
        sql(parts, statement, store=ONE)


def test_one_store_alone_needs_no_name(tmp_path_factory: pytest.TempPathFactory) -> None:
    with database(tmp_path_factory.mktemp("alone")) as alone:
        sql(alone, ROWS["customers"].format("1"), store="")
        assert count(alone, "customers", "") == 1
        # An order that was there before there were stores belongs to the first one.
        assert sql(alone, "SELECT name FROM stores")[0]["name"] == "main"


def test_sample_data_are_put_in_once_for_each_store(parts: Parts) -> None:
    def seeded(store: str) -> str:
        part = parts.parts["postgres"]
        return part.psql((SCHEMA / "samples/shop.sql").read_text(), store=store).strip()

    assert [seeded("main"), seeded("main"), seeded("second")] == ["200", "0", "200"]
    numbers: dict[str, Any] = {
        "SELECT count(*) FROM products WHERE handle LIKE 'sample%'": 100,
        "SELECT count(DISTINCT category) FROM products WHERE handle LIKE 'sample%'": 10,
        "SELECT count(*) FROM customers WHERE name LIKE 'Sample%'": 50,
        "SELECT count(*) FROM orders WHERE source = 'sample'": 200,
        "SELECT count(*) FROM inventory JOIN variants ON id = variant_id WHERE sku LIKE 'SAMPLE%'": 100,
        "SELECT count(*) FROM orders WHERE source = 'sample' AND total_cents <> (SELECT sum(quantity * price_cents)"
        " FROM order_items WHERE order_items.order_id = orders.id)": 0,
    }
    for query, number in numbers.items():
        assert [sql(parts, query, store=store)[0][0] for store in (ONE, TWO)] == [number, number], query
    with pytest.raises(AssertionError, match="not known"):
        seeded("nowhere")


def test_orders_of_before_keep_their_store(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The migration on a shop that has sold already."""

    async def before(connection: asyncpg.Connection) -> None:
        await connection.execute(
            "INSERT INTO public.orders (source, order_id, total_cents, currency, raw)"
            " VALUES ('x', 'OLD', 5, 'EUR', '{}')"
        )
        await connection.execute("INSERT INTO public.order_items SELECT id, 1, 'MUG', 1, 5 FROM public.orders")

    with database(tmp_path_factory.mktemp("before"), after_first=before) as old:
        rows = sql(old, "SELECT store_id, status FROM orders JOIN order_items USING (store_id)", store="")
        assert [tuple(row) for row in rows] == [(1, "new")]
