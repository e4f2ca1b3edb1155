"""Every rule of the catalog has a file that breaks it, and the message says where and what."""

from __future__ import annotations

import catalog
import pytest
from catalog_samples import ENABLED, REMOVED, TEXTS, changed


def problems_of(
    texts: dict[str, str],
    enabled: list[str] | str = ENABLED,
    edition: str = "lean",
    required: tuple[str, ...] = (),
) -> list[str]:
    with pytest.raises(catalog.CatalogError) as refused:
        catalog.load(texts, enabled, edition, required)
    assert str(refused.value) == "\n".join(refused.value.problems)
    return refused.value.problems


def test_the_sample_is_valid() -> None:
    assert list(catalog.load(TEXTS, ENABLED, "lean").services) == ["app", "db", "proxy"]


# service, path that is changed, its new value, the key that the message names, what the message says
COMPOSE_RULES = [
    ("db", "x-pj", {}, "x-pj", "unknown key; did you mean 'x-pi'?"),
    ("db", "version", "3", "version", "unknown key; known: configs, networks"),
    ("db", "services/other", {}, "services", "exactly one service, the mapping 'db'; found: db, other"),
    ("db", "services", {"database": {}}, "services", "found: database"),
    ("db", "services", [], "services", "found: an empty list"),
    ("db", "@", "text", "services", "exactly one service"),
    ("db", "@/image", REMOVED, "services.db.image", "missing"),
    ("db", "@/image", "", "services.db.image", "missing"),
    ("db", "@/image", "localhost:5000/postgres", "services.db.image", "not pinned"),
    ("db", "@/image", "postgres@sha256:0123", "services.db.image", "not pinned"),
    ("db", "@/image", "postgres:latest", "services.db.image", "the version not latest"),
    ("db", "@/image", "postgres:${TAG}", "services.db.image", "no image reference"),
    ("db", "@/image", "Postgres:17", "services.db.image", "in lower case"),
    ("db", "@/image", "https://registry.test/postgres:17", "services.db.image", "no image reference"),
    ("db", "@/image", "registry.test//postgres:17", "services.db.image", "no image reference"),
    ("db", "@/user", REMOVED, "services.db.user", "numeric"),
    ("db", "@/user", "postgres", "services.db.user", "numeric"),
    ("db", "@/user", "999", "services.db.user", "uid:gid"),
    ("db", "@/user", "0:999", "services.db.user", "root"),
    ("db", "@/user", "999:0", "services.db.user", "root"),
    ("db", "@/user", 60010, "services.db.user", "quoted"),
    ("db", "@/restart", REMOVED, "services.db.restart", "unless-stopped or always"),
    ("db", "@/restart", "on-failure", "services.db.restart", "unless-stopped or always"),
    ("db", "@/read_only", REMOVED, "services.db.read_only", "must be true"),
    ("db", "@/read_only", "true", "services.db.read_only", "must be true"),
    ("db", "@/cap_drop", REMOVED, "services.db.cap_drop", "must be [ALL]"),
    ("db", "@/cap_drop", ["NET_RAW"], "services.db.cap_drop", "must be [ALL]"),
    ("db", "@/security_opt", REMOVED, "services.db.security_opt", "no-new-privileges:true"),
    (
        "db",
        "@/security_opt",
        ["no-new-privileges:false"],
        "services.db.security_opt",
        "no-new-privileges:true",
    ),
    ("db", "@/privileged", True, "services.db.privileged", "forbidden"),
    ("db", "@/network_mode", "host", "services.db.network_mode", "'host' is forbidden"),
    ("db", "@/pid", "host", "services.db.pid", "'host' is forbidden"),
    ("db", "@/ipc", "host", "services.db.ipc", "'host' is forbidden"),
    ("db", "@/userns_mode", "host", "services.db.userns_mode", "'host' is forbidden"),
    ("db", "@/healthcheck", REMOVED, "services.db.healthcheck", "missing"),
    ("db", "@/healthcheck/test", REMOVED, "services.db.healthcheck.test", "missing"),
    ("db", "@/healthcheck/test", ["NONE"], "services.db.healthcheck.test", "missing"),
    ("db", "@/healthcheck/disable", True, "services.db.healthcheck.disable", "forbidden"),
    ("db", "@/deploy", REMOVED, "services.db.deploy.resources.limits.memory", "missing"),
    (
        "db",
        "@/deploy/resources/limits/memory",
        REMOVED,
        "services.db.deploy.resources.limits.memory",
        "missing",
    ),
    (
        "db",
        "@/deploy/resources/limits/memory",
        "lots",
        "services.db.deploy.resources.limits.memory",
        "'lots'",
    ),
    ("db", "@/deploy/resources/limits/memory", True, "services.db.deploy.resources.limits.memory", "a size"),
    ("db", "@/deploy/resources/limits/memory", 512, "services.db.deploy.resources.limits.memory", "the unit"),
    ("db", "@/deploy/resources/limits/cpus", REMOVED, "services.db.deploy.resources.limits.cpus", "missing"),
    ("db", "@/deploy/resources/limits/cpus", "0", "services.db.deploy.resources.limits.cpus", "cores"),
    ("db", "@/deploy/resources/limits/cpus", "two", "services.db.deploy.resources.limits.cpus", "cores"),
    ("db", "@/deploy/resources/limits/pids", REMOVED, "services.db.deploy.resources.limits.pids", "missing"),
    ("db", "@/deploy/resources/limits/pids", -1, "services.db.deploy.resources.limits.pids", "whole number"),
    ("db", "@/deploy/replicas", 0, "services.db.deploy.replicas", "whole number"),
    ("proxy", "@/ports/0", "8443:8443", "services.proxy.ports[0]", "must name the address"),
    ("proxy", "@/ports/0", 8443, "services.proxy.ports[0]", "must name the address"),
    ("proxy", "@/ports/0", "${ADDRESS}:8443:8443", "services.proxy.ports[0]", "must name the address"),
    ("proxy", "@/ports/0", "192.0.2.300:8443:8443", "services.proxy.ports[0]", "must name the address"),
    ("proxy", "@/ports/0", "192.0.2.1:80-90:80-90", "services.proxy.ports[0]", "one port on either side"),
    ("proxy", "@/ports/0", "192.0.2.1:70000:80", "services.proxy.ports[0]", "from 1 to 65535"),
    ("proxy", "@/ports/0", "192.0.2.1:53:53/sctp", "services.proxy.ports[0]", "tcp or udp"),
    ("proxy", "@/ports/2/host_ip", REMOVED, "services.proxy.ports[2]", "must name the address"),
    ("proxy", "@/ports/2/published", REMOVED, "services.proxy.ports[2]", "must name the address"),
    ("proxy", "@/ports", "192.0.2.1:1:1", "services.proxy.ports", "must be a list"),
    ("proxy", "@/ports/2", "0.0.0.0:8443:8443", "services.proxy.ports", "taken already: 192.0.2.1:8443/tcp"),
    ("db", "@/volumes/1", "/var/run/docker.sock:/docker.sock", "services.db.volumes[1]", "Docker socket"),
    ("db", "@/volumes/1", "/run:/host/run:ro", "services.db.volumes[1]", "Docker socket"),
    ("db", "@/volumes/1", "/:/host:ro", "services.db.volumes[1]", "Docker socket"),
    ("db", "@/volumes/1", "/srv/docker.sock:/docker.sock", "services.db.volumes[1]", "Docker socket"),
    ("db", "@/volumes/1", {"type": "bind", "source": "/run/docker.sock"}, "services.db.volumes[1]", "socket"),
    ("db", "@/volumes/1", "./db:/etc/db", "services.db.volumes[1]", "absolute path"),
    ("db", "@/volumes/1", "/data", "services.db.volumes[1]", "anonymous"),
    ("db", "@/volumes/1", {"type": "volume", "target": "/data"}, "services.db.volumes[1]", "anonymous"),
    ("db", "volumes", REMOVED, "services.db.volumes", "'db_data' is not defined"),
    ("db", "volumes/db_dat", None, "volumes.db_dat", "does not mount it"),
    ("db", "volumes", ["db_data"], "volumes", "must be a mapping of names"),
    ("db", "secrets", REMOVED, "services.db.secrets", "'db_password' is not defined"),
    ("db", "secrets/spare", {"file": "/etc/pi-commerce/secrets/spare"}, "secrets.spare", "does not mount it"),
    (
        "db",
        "secrets/db_password",
        {"file": "/root/db_password"},
        "secrets.db_password",
        "/etc/pi-commerce/sec",
    ),
    ("db", "secrets/db_password", {"environment": "PASSWORD"}, "secrets.db_password", "must be file: /etc"),
    ("db", "@/secrets", "db_password", "services.db.secrets", "must be a list of names"),
    ("db", "@/networks", REMOVED, "services.db.networks", "name the networks"),
    ("app", "@/networks/ap", None, "services.app.networks", "no enabled service defines network 'ap'"),
    ("app", "networks/db", {"internal": False}, "networks.db", "otherwise in templates/services/app.yml.j2"),
    ("app", "@/depends_on/queue", {}, "services.app.depends_on", "add it to services_enabled"),
    ("db", "@/depends_on", ["app"], "services.app.depends_on", "wait for each other (app -> db -> app)"),
]

PI_RULES = [
    ("db", "x-pi", REMOVED, "x-pi", "must be a mapping with summary, editions"),
    ("db", "x-pi/bakup", [], "x-pi.bakup", "unknown key; did you mean 'backup'?"),
    ("db", "x-pi/summary", REMOVED, "x-pi.summary", "missing; must be one line of text"),
    ("db", "x-pi/summary", "two\nlines", "x-pi.summary", "one line of text"),
    ("db", "x-pi/summary", 5, "x-pi.summary", "one line of text, not 5"),
    ("db", "x-pi/editions", REMOVED, "x-pi.editions", "missing; must be a list"),
    ("db", "x-pi/editions", [], "x-pi.editions", "not empty"),
    ("db", "x-pi/editions", ["leen"], "x-pi.editions[0]", "one of lean, appwrite, not 'leen'"),
    ("db", "x-pi/editions", ["appwrite"], "x-pi.editions", "not made for edition 'lean'"),
    ("db", "x-pi/tier", REMOVED, "x-pi.tier", "missing; must be one of edge, cloud"),
    ("db", "x-pi/tier", "fog", "x-pi.tier", "one of edge, cloud, not 'fog'"),
    ("db", "x-pi/required", "yes", "x-pi.required", "true or false"),
    ("db", "x-pi/exposure", REMOVED, "x-pi.exposure", "missing; must be one of none, lan, vpn, public"),
    ("db", "x-pi/exposure", "wan", "x-pi.exposure", "one of none, lan, vpn, public"),
    ("db", "x-pi/exposure", "vpn", "x-pi.exposure", "is vpn, but the service publishes no port"),
    ("proxy", "x-pi/exposure", "none", "x-pi.exposure", "is none, but the service publishes ports"),
    ("db", "x-pi/probe", REMOVED, "x-pi.probe", "missing; must be a mapping with exactly one of http, exec"),
    ("app", "x-pi/probe/exec", ["true"], "x-pi.probe", "exactly one of http, exec"),
    ("db", "x-pi/probe", {"exek": ["true"]}, "x-pi.probe.exek", "did you mean 'exec'?"),
    ("db", "x-pi/probe/exec", [], "x-pi.probe.exec", "not empty"),
    ("db", "x-pi/probe/exec", [1], "x-pi.probe.exec[0]", "a text (quote it)"),
    ("app", "x-pi/probe/http/prot", 1, "x-pi.probe.http.prot", "did you mean 'port'?"),
    ("app", "x-pi/probe/http/port", 65536, "x-pi.probe.http.port", "a number from 1 to 65535"),
    ("app", "x-pi/probe/http/port", True, "x-pi.probe.http.port", "a number from 1 to 65535"),
    ("app", "x-pi/probe/http/path", "health", "x-pi.probe.http.path", "starts with /"),
    ("app", "x-pi/probe/http/status", 99, "x-pi.probe.http.status", "a number from 100 to 599"),
    ("app", "x-pi/probe/http/tls", 1, "x-pi.probe.http.tls", "true or false"),
    ("app", "x-pi/metrics/path", REMOVED, "x-pi.metrics.path", "missing"),
    ("app", "x-pi/metrics", [], "x-pi.metrics", "must be a mapping with port, path"),
    ("app", "x-pi/backup", REMOVED, "x-pi.backup", "missing; must be a list"),
    ("app", "x-pi/backup", [], "x-pi.backup", "not empty"),
    ("app", "x-pi/backup/0", "app_data", "x-pi.backup[0]", "a mapping with kind"),
    ("app", "x-pi/backup/0/kind", "tar", "x-pi.backup[0].kind", "one of postgres, redis, n8n, volume, none"),
    ("app", "x-pi/backup/0/databases", ["a"], "x-pi.backup[0].databases", "unknown key"),
    ("app", "x-pi/backup/0/volume", REMOVED, "x-pi.backup[0].volume", "missing"),
    ("app", "x-pi/backup/0/volume", "app_dta", "x-pi.backup[0]", "did you mean 'app_data'?"),
    (
        "app",
        "x-pi/backup/0",
        {"kind": "none", "reason": "-"},
        "x-pi.backup",
        "says nothing of volume 'app_data'",
    ),
    (
        "app",
        "x-pi/backup/1",
        {"kind": "volume", "volume": "app_data"},
        "x-pi.backup[1]",
        "has an entry already",
    ),
    ("proxy", "x-pi/backup/0/reason", REMOVED, "x-pi.backup[0].reason", "missing"),
    ("db", "x-pi/backup/0/databases", ["shopp", "app"], "x-pi.backup[0]", "did you mean 'shop'?"),
    ("db", "x-pi/backup/0", {"kind": "none", "reason": "-"}, "x-pi.databases[0]", "covers database 'shop'"),
    ("db", "x-pi/backup/0/spool", REMOVED, "x-pi.backup[0].spool", "missing"),
    ("db", "x-pi/backup/0/spool", "db_data", "x-pi.backup[0]", "has an entry already"),
    (
        "app",
        "x-pi/backup/0",
        {"kind": "redis", "volume": "app_data", "user": "backup", "password_secret": "app_dumper"},
        "x-pi.backup[0].password_secret",
        "no enabled service mounts 'app_dumper'",
    ),
    ("db", "x-pi/databases/0/owner", REMOVED, "x-pi.databases[0].owner", "missing"),
    ("db", "x-pi/databases/0/name", "my shop", "x-pi.databases[0].name", "lower-case letters"),
    (
        "db",
        "x-pi/databases/0/name",
        "app",
        "x-pi.databases[0].name",
        "'app' is taken already by service 'app'",
    ),
    (
        "db",
        "x-pi/databases/0/owner",
        "app",
        "x-pi.databases[0].owner",
        "'app' is taken already by service 'app'",
    ),
    (
        "db",
        "x-pi/secrets",
        REMOVED,
        "x-pi.databases[0].password_secret",
        "no enabled service mounts 'shop_db_",
    ),
    ("db", "x-pi/secrets", ["../key"], "x-pi.secrets[0]", "lower-case letters"),
    ("app", "x-pi/routes/0/path", "hook", "x-pi.routes[0].path", "starts with /"),
    ("app", "x-pi/routes/0/path", "/ok", "x-pi.routes[2].path", "'/ok' is taken already by service 'app'"),
    ("app", "x-pi/routes/0/limit", "none", "x-pi.routes[0].limit", "one of editor, webhook, api"),
    ("app", "x-pi/routes/0/limit", REMOVED, "x-pi.routes[0].limit", "missing"),
    ("app", "x-pi/routes/0/match", "regex", "x-pi.routes[0].match", "one of prefix, exact"),
    ("app", "x-pi/routes/1/upstream_path", "in", "x-pi.routes[1].upstream_path", "starts with /"),
]


@pytest.mark.parametrize(("service", "path", "value", "key", "message"), COMPOSE_RULES + PI_RULES)
def test_a_broken_rule_is_named(service: str, path: str, value: object, key: str, message: str) -> None:
    problems = problems_of(changed(service, path, value))
    # A definition that two files share, and a circle, are reported in the other one of the two.
    files = [f"templates/services/{name}.yml.j2: {key}: " for name in {service, "app", "db"}]
    assert [line for line in problems if line.startswith(tuple(files)) and message in line], problems


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("services:\n  db: {\n", "line 3 of the rendered text is not valid YAML"),
        (
            "services: {}\nx-pi: 1\nservices: {}\n",
            "line 3 of the rendered text is not valid YAML: key 'services'",
        ),
        ("services: {}\n---\nservices: {}\n", "not valid YAML: but found another document"),
        ("services: \x07\n", "not valid YAML"),
        ("services: 2026-13-01\n", "not valid YAML: month must be"),
        ("services: !!python/object:os.system {}\n", "line 1 of the rendered text is not valid YAML"),
        ("? [services]\n: {}\n", "not valid YAML: found unhashable key"),
        ("- services\n", "must be a Compose document"),
        ("", "must be a Compose document (a mapping with services and x-pi), not empty"),
    ],
)
def test_a_text_that_is_no_document_is_the_only_problem(text: str, message: str) -> None:
    (problem,) = problems_of({**TEXTS, "db": text})
    assert problem.startswith("templates/services/db.yml.j2: ")
    assert message in problem


def test_anchors_and_merge_keys_are_not_taken_for_repeated_keys() -> None:
    text = TEXTS["db"].replace("  db: {internal: true}", "  db: &one {internal: true}\n  two: {<<: *one}")
    loaded = catalog.load({**TEXTS, "db": text}, ENABLED, "lean")
    assert loaded.services["db"].defines["networks"]["two"] == {"internal": True}


def test_all_problems_are_reported_at_once() -> None:
    texts = {**changed("db", "x-pi/tier", "fog"), "app": changed("app", "@/image", "app:latest")["app"]}
    problems = problems_of(texts, [*ENABLED, "grafana"])
    assert len(problems) == 3
    for part in ("x-pi.tier", "services.app.image", "services_enabled: 'grafana' has no file"):
        assert any(part in problem for problem in problems)


@pytest.mark.parametrize(
    ("enabled", "edition", "required", "message"),
    [
        (
            [*ENABLED, "prxy"],
            "lean",
            {},
            "services_enabled: 'prxy' has no file templates/services/prxy.yml.j2; did",
        ),
        (["proxy"], "appwrite", (), "services_enabled: 'db' is required and may not be switched off"),
        (["app", "db"], "lean", ("proxy",), "services_enabled: 'proxy' is required"),
        ("db", "lean", (), "services_enabled: must be a list of service names, not the text 'db'"),
        (ENABLED, "large", (), "edition: must be one of lean, appwrite, not 'large'"),
        (
            ENABLED,
            "appwrite",
            {},
            "app.yml.j2: x-pi.editions: the service is not made for edition 'appwrite'",
        ),
        (["proxy", "db"], "lean", (), "no enabled service defines network 'app'"),
        (["app", "proxy"], "lean", (), "services.app.depends_on: service 'db' is not enabled; add it"),
    ],
)
def test_a_choice_of_services_that_cannot_run_is_refused(
    enabled: list[str] | str, edition: str, required: tuple[str, ...], message: str
) -> None:
    problems = problems_of(TEXTS, enabled, edition, required)
    assert [problem for problem in problems if message in problem], problems


def test_a_service_that_is_required_in_another_edition_may_be_missing() -> None:
    text = changed("app", "x-pi/required", True)["app"]
    reduced = changed("proxy", "@/networks", ["edge"])["proxy"]
    catalog.load({"db": TEXTS["db"], "app": text, "proxy": reduced}, ["db", "proxy"], "appwrite")


def test_a_secret_belongs_to_one_user() -> None:
    texts = changed("proxy", "@/secrets", ["db_password"])
    texts["proxy"] += "secrets: {db_password: {file: /etc/pi-commerce/secrets/db_password}}\n"
    (problem,) = problems_of(texts)
    assert "proxy.yml.j2: services.proxy.secrets: 'db_password' belongs to user 999:999 of service 'db'" in problem


@pytest.mark.parametrize("address", ["127.0.0.1", "192.0.2.1", "0.0.0.0"])  # noqa: S104 - refused, not bound
def test_a_host_port_is_taken_once_for_all_services(address: str) -> None:
    texts = changed("db", "@/ports", [f"{address}:9000:5432"])
    problems = [problem for problem in problems_of(texts) if "taken already" in problem]
    assert len(problems) == (0 if address == "192.0.2.1" else 1)


@pytest.mark.parametrize("port", ["192.0.2.1:8443:53/udp", "192.0.2.2:8443:53", "[::]:8443:53"])
def test_another_protocol_address_or_family_is_another_port(port: str) -> None:
    catalog.load(changed("proxy", "@/ports/3", port), ENABLED, "lean")


@pytest.mark.parametrize(
    ("written", "mib"),
    [("64M", 64), ("512m", 512), ("1g", 1024), ("1.5GiB", 1536), ("96MB", 96), (67108865, 65), ("8192k", 8)],
)
def test_memory_is_read_as_compose_does(written: str | int, mib: int) -> None:
    loaded = catalog.load(changed("db", "@/deploy/resources/limits/memory", written), ENABLED, "lean")
    assert loaded.services["db"].memory_mib == mib
