"""What is derived from the catalog is what its files declare."""

from __future__ import annotations

import itertools
import json
import random
from typing import Any

import catalog
import pytest
from catalog_samples import ENABLED, TEXTS, changed


@pytest.fixture
def derived() -> dict[str, Any]:
    return catalog.as_dict(catalog.load(TEXTS, ENABLED, "lean"), derived_secrets=["db_password"])


def test_everything_derived_is_plain_data(derived: dict[str, Any]) -> None:
    assert json.loads(json.dumps(derived)) == derived


def test_published_ports(derived: dict[str, Any]) -> None:
    keys = ("service", "host_ip", "host_port", "container_port", "protocol", "exposure")
    assert [tuple(port[key] for key in keys) for port in derived["published_ports"]] == [
        ("proxy", "192.0.2.1", 8443, 8443, "tcp", "lan"),
        ("proxy", "::1", 8080, 8080, "udp", "lan"),
        ("proxy", "127.0.0.1", 9000, 9001, "tcp", "lan"),
    ]


def test_networks_and_who_reaches_whom(derived: dict[str, Any]) -> None:
    assert derived["networks"] == [
        {"name": "app", "way_out": False, "services": ["app", "proxy"]},
        {"name": "db", "way_out": False, "services": ["app", "db"]},
        {"name": "edge", "way_out": True, "services": ["proxy"]},
    ]
    assert derived["reach"] == [["app", "db"], ["app", "proxy"]]


def test_network_whose_bridge_has_a_name_has_no_way_out() -> None:
    named = "edge: {driver_opts: {com.docker.network.bridge.name: pi-edge}}"
    texts = {**TEXTS, "proxy": TEXTS["proxy"].replace("edge: {}", named)}
    rows = catalog.as_dict(catalog.load(texts, list(texts), "lean"))["networks"]
    assert {"name": "edge", "way_out": False, "services": ["proxy"]} in rows


def test_routes_come_longest_path_first(derived: dict[str, Any]) -> None:
    routes = derived["routes"]
    assert [(route["path"], route["match"], route["limit"]) for route in routes] == [
        ("/hook/", "prefix", "webhook"),
        ("/ok", "exact", "api"),
        ("/", "prefix", "editor"),
    ]
    assert {(route["service"], route["host"], route["exposure"]) for route in routes} == {("app", "app", "none")}
    assert [(route["port"], route["upstream_path"]) for route in routes] == [
        (3001, "/in/"),
        (3000, ""),
        (3000, ""),
    ]


def test_the_backup_program_learns_what_lies_where_and_who_waits_for_whom(derived: dict[str, Any]) -> None:
    app, db = (next(row for row in derived["backup_services"] if row["name"] == name) for name in ("app", "db"))
    assert app == {
        "name": "app",
        "image": "registry.test/app:1.2.3@sha256:0123",
        "uid": 1000,
        "gid": 1000,
        "needs": ["db"],
        "databases": ["app"],
        "stores": [{"kind": "volume", "volume": "app_data"}],
    }
    assert db["stores"] == [
        {"kind": "postgres", "databases": ["app", "shop"], "volume": "db_data", "spool": "db_spool"}
    ]
    order = [row["name"] for row in derived["backup_services"]]
    assert order.index("db") < order.index("app")


def test_a_dump_without_names_covers_every_database(derived: dict[str, Any]) -> None:
    assert derived["backup_manifest"] == [
        {"service": "app", "kind": "volume", "volume": "app_data"},
        {"service": "db", "kind": "postgres", "databases": ["app", "shop"], "volume": "db_data", "spool": "db_spool"},
        {"service": "proxy", "kind": "none", "reason": "rendered again"},
    ]
    assert [(entry["name"], entry["service"]) for entry in derived["databases"]] == [
        ("app", "app"),
        ("shop", "db"),
    ]


def test_probes_and_scrape_targets(derived: dict[str, Any]) -> None:
    assert derived["probes"] == [
        {"service": "app", "kind": "http", "port": 3000, "path": "/health", "status": 200, "tls": False},
        {"service": "db", "kind": "exec", "command": ["pg_isready"]},
        {"service": "proxy", "kind": "http", "port": 8443, "path": "/", "status": 204, "tls": True},
    ]
    assert derived["scrape_targets"] == [{"service": "app", "target": "app:3000", "path": "/metrics"}]


def test_secrets(derived: dict[str, Any]) -> None:
    assert derived["secret_files"] == [
        {
            "name": "app_db_password",
            "path": "/etc/pi-commerce/secrets/app_db_password",
            "uid": 1000,
            "gid": 1000,
            "services": ["app"],
        },
        {
            "name": "db_password",
            "path": "/etc/pi-commerce/secrets/db_password",
            "uid": 999,
            "gid": 999,
            "services": ["db"],
        },
    ]
    assert derived["secret_names"] == ["app_db_password", "app_owner_password", "shop_db_password"]


def test_order_images_and_docs(derived: dict[str, Any]) -> None:
    assert derived["services"] == ["app", "db", "proxy"]
    assert derived["start_order"].index("db") < derived["start_order"].index("app")
    assert derived["images"][0] == {"service": "app", "image": "registry.test/app:1.2.3@sha256:0123"}
    assert [(row["service"], row["memory_mib"], row["cpus"], row["backup"]) for row in derived["docs_table"]] == [
        ("app", 1536, 0.5, ["volume"]),
        ("db", 512, 2.0, ["postgres"]),
        ("proxy", 64, 1.0, []),
    ]


def test_a_plan_that_fits(derived: dict[str, Any]) -> None:
    plan = catalog.capacity_plan(derived["capacity"], ram_mib=2624, reserve_mib=512)
    assert plan == {
        "rows": [
            {"service": "app", "limit_mib": 1536, "required": False},
            {"service": "db", "limit_mib": 512, "required": True},
            {"service": "proxy", "limit_mib": 64, "required": False},
        ],
        "services_mib": 2112,
        "reserve_mib": 512,
        "ram_mib": 2624,
        "spare_mib": 0,
        "fits": True,
        "could_switch_off": ["app", "proxy"],
    }
    assert "switched off" not in catalog.render_plan(plan)


def test_a_plan_that_does_not_fit_says_what_could_go(derived: dict[str, Any]) -> None:
    plan = catalog.capacity_plan(derived["capacity"], ram_mib=2623, reserve_mib=512)
    assert not plan["fits"]
    assert catalog.render_plan(plan).splitlines() == [
        "app                     1536 MiB",
        "db                       512 MiB  required",
        "proxy                     64 MiB",
        "--------------------------------",
        "all services            2112 MiB",
        "reserved for the host    512 MiB",
        "memory of this Pi       2623 MiB",
        "MISSING                    1 MiB",
        "Could be switched off (services_enabled): app, proxy",
    ]


def test_what_others_depend_on_is_not_offered_for_switching_off() -> None:
    loaded = catalog.load(changed("proxy", "@/depends_on", ["app"]), ENABLED, "lean")
    plan = catalog.capacity_plan(catalog.capacity_rows(loaded), 1024, 0)
    assert plan["could_switch_off"] == ["proxy"]


def test_every_replica_counts() -> None:
    loaded = catalog.load(changed("app", "@/deploy/replicas", 3), ENABLED, "lean")
    assert {row["service"]: row["limit_mib"] for row in catalog.capacity_rows(loaded)}["app"] == 3 * 1536


def test_sums_equal_what_is_declared() -> None:
    """For catalogs made at random: the plan's sum is that of the files, who shares a network can reach."""
    draw = random.Random(4)  # noqa: S311 - reproducible, not secret
    for _ in range(25):
        limits = {f"s{number}": draw.randint(6, 900) for number in range(draw.randint(1, 6))}
        joined = {name: {name, *draw.sample(sorted(limits), draw.randint(0, len(limits)))} for name in limits}
        texts = {}
        for name, mib in limits.items():
            text = TEXTS["proxy"].replace("  proxy:", f"  {name}:").replace("  edge: {}", f"  {name}: {{}}")
            text = text.replace("67108864", f"{mib}M").replace("[edge, app]", str(sorted(joined[name])))
            texts[name] = text.replace("exposure: lan", "exposure: none").replace(ports_of(text), "")
        derived = catalog.as_dict(catalog.load(texts, list(limits), "lean"))
        plan = catalog.capacity_plan(derived["capacity"], 4096, 512)
        assert plan["services_mib"] == sum(limits.values()) == sum(row["limit_mib"] for row in plan["rows"])
        assert plan["spare_mib"] == 4096 - 512 - sum(limits.values())
        assert derived["reach"] == [
            [one, two] for one, two in itertools.combinations(sorted(limits), 2) if joined[one] & joined[two]
        ]


def ports_of(text: str) -> str:
    """The ports block of the sample proxy."""
    return text[text.index("    ports:") : text.index("    deploy:")]
