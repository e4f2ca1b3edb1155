"""A night's copy, made as cron makes it, and the shop restored from it."""

from __future__ import annotations

from typing import Any

import pytest
from testinfra.host import Host

PSQL = "docker exec -i pi-commerce-postgres-1 psql -U postgres -XAtq -v ON_ERROR_STOP=1"


@pytest.fixture(scope="module")
def folder(variables: dict[str, Any]) -> str:
    """Where the nights lie."""
    return str(variables["backup_folder"])


@pytest.fixture(scope="module")
def night(host: Host, folder: str, variables: dict[str, Any]) -> str:
    """The folder of a night that cron's line has just made, with a row that was there before."""
    host.check_output(
        f"{PSQL} -d shop -c %s", "DROP TABLE IF EXISTS molecule; CREATE TABLE molecule AS SELECT 'kept' AS word"
    )
    lines = host.file("/etc/cron.d/pi-commerce-backup").content_string.splitlines()
    [path] = [line for line in lines if line.startswith("PATH=")]
    minute, hour, *days, user, command = lines[-1].split()
    assert (int(minute), int(hour), days) == (variables["backup_minute"], variables["backup_hour"], ["*"] * 3)
    host.check_output(f"runuser -u {user} -- env -i {path} {command}")
    host.check_output(f"{PSQL} -d shop -c 'DROP TABLE molecule'")
    return f"{folder}/{sorted(host.file(folder).listdir())[-2]}"


def test_shop_is_restored_from_it(host: Host, night: str) -> None:
    host.check_output(f"cd {night} && sha256sum --check --quiet SHA256SUMS")
    host.check_output(f"{PSQL} -c 'CREATE DATABASE molecule_restore'")
    try:
        restore = "docker exec -i pi-commerce-postgres-1 pg_restore -U postgres --exit-on-error -d molecule_restore"
        host.check_output(f"{restore} < {night}/postgres-shop.dump")
        assert host.check_output(f"{PSQL} -d molecule_restore -c 'SELECT word FROM molecule'") == "kept"
    finally:
        host.check_output(f"{PSQL} -c 'DROP DATABASE molecule_restore'")


def test_all_data_is_in_it(host: Host, night: str) -> None:
    parts = set(host.file(night).listdir())
    assert {"postgres-roles.sql", "postgres-shop.dump", "postgres-n8n.dump"} <= parts
    assert "appendonly" in host.check_output(f"tar --list --file {night}/redis-redis_data.tar.gz")
    assert host.run(f"tar --list --file {night}/n8n-n8n_data.tar.gz").rc == 0


def test_nobody_but_root_reads_it(host: Host, night: str) -> None:
    for path in (night, f"{night}/postgres-roles.sql"):
        assert host.run(f"runuser -u pi -- cat {path}/. {path}").rc != 0
        assert "Permission denied" in host.run(f"runuser -u pi -- ls {path}").stderr


def test_only_nights_beyond_their_days_are_gone(host: Host, folder: str, night: str) -> None:
    kept = host.file(folder).listdir()
    assert "2020-01-01T02-30-00" not in kept
    assert {"2020-01-02T02-30-00", "holiday-photos"} <= set(kept)


def test_second_one_at_the_same_time_gives_up(host: Host, folder: str, night: str) -> None:
    before = host.file(folder).listdir()
    refused = host.run(f"flock {folder}/.lock pi-commerce-backup")
    assert refused.rc == 1
    assert "another backup is running" in refused.stderr
    assert host.file(folder).listdir() == before
