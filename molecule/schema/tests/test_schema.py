"""The shop's tables: they keep what is right, refuse what is wrong, and belong to the shop alone."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from testinfra.host import Host

ROOT = Path(__file__).resolve().parents[3]
ORDER = """
    INSERT INTO orders (source, order_id, total_cents, currency, raw)
    VALUES ('molecule', '{number}', {total}, 'EUR', '{{}}')
"""
Sql = Callable[..., Any]


@pytest.fixture
def sql(host: Host) -> Sql:
    """Runs statements in one transaction that is taken back, as the shop's role; returns the command that ran."""

    def run(*statements: str, role: str = "shop") -> Any:
        script = "; ".join(["BEGIN", f"SET ROLE {role}", *statements, "ROLLBACK"])
        return host.run(
            "docker exec pi-commerce-postgres-1 psql -U postgres -XAtq -v ON_ERROR_STOP=1 -d shop -c %s", script
        )

    return run


@pytest.fixture(scope="module")
def folder(scenario: str) -> Path:
    """The SQL files of this scenario."""
    own = ROOT / "molecule" / scenario / "schema"
    return (own if own.exists() else ROOT / "files/schema") / "shop"


def test_each_file_is_applied_once(sql: Sql, folder: Path) -> None:
    names = sql("SELECT name FROM schema_migrations ORDER BY name").stdout.split()
    for path in folder.iterdir():
        assert names.count(path.name) == 1
    assert sql("SELECT count(*) FROM customers").rc == 0 or not (folder / "002_customers.sql").exists()


def test_order_is_kept_once_and_a_bad_one_refused(sql: Sql) -> None:
    good, bad = ORDER.format(number="M-1", total=4990), ORDER.format(number="M-2", total=-1)
    assert sql(good, "SELECT count(*) FROM orders WHERE order_id = 'M-1'").stdout.strip() == "1"
    assert "orders_source_order_id_key" in sql(good, good).stderr
    assert "orders_total_cents_check" in sql(bad).stderr


def test_tables_are_the_shops_alone(sql: Sql) -> None:
    assert sql("SELECT count(*) FROM orders").rc == 0
    # Those of the real files are in a schema that others do not even see into.
    refused = sql("SELECT count(*) FROM orders", role="n8n").stderr
    assert "permission denied for table orders" in refused or 'relation "orders" does not exist' in refused


def test_edited_history_is_refused(apply: Callable[..., Any], folder: Path, tmp_path: Path, sql: Sql) -> None:
    shutil.copytree(folder, tmp_path / "shop")
    with (tmp_path / "shop/001_orders.sql").open("a") as file:
        file.write("DROP TABLE orders;\n")
    refused = apply("schema", schema_folder=str(tmp_path))
    assert refused.returncode != 0
    assert "001_orders.sql was edited after it had been applied" in refused.stdout
    assert sql("SELECT count(*) FROM orders").rc == 0
