"""Variables are judged by what roles document and by what the values mean."""

from __future__ import annotations

import datetime
from typing import Any

import plays
import pytest
import variables
import yaml
from cryptography.hazmat.primitives.asymmetric import ec
from preflight import Finding
from refusal_certificates import certificate, pem

SPECS = variables.role_specs(plays.ROOT / "roles")
NOW = datetime.datetime(2030, 6, 1, tzinfo=datetime.UTC)
KEY = ec.generate_private_key(ec.SECP256R1())
CERTIFICATE = certificate(KEY, 2030, 2031)
CLOUDFLARE = {
    "proxy_entrance": "cloudflare",
    "proxy_pull_authority": CERTIFICATE,
    "proxy_exposure": "public",
    "site_address": "shop.example",
}
PHONE = {"phone": {"number": 100, "public_key": "k" * 43 + "="}}


def good() -> dict[str, Any]:
    """The variables of the virtual Pi that need no rendering, and stand-ins for those that do."""
    common = yaml.safe_load((plays.ROOT / "inventory/group_vars/all.yml").read_text())
    images = {
        name: f"registry.test:5000/{name}:1" for name in ("postgres", "redis", "n8n", "proxy", "python", "restic")
    }
    rendered = {
        "site_address": "192.0.2.10",
        "rate_limiter_image": "ours/rate_limiter:1",
        "webhook_handler_image": "ours/webhook_handler:1",
        "posting_queue_image": "ours/posting_queue:1",
        "wireguard_endpoint": "192.0.2.10",
        "wireguard_mesh": ["shop-pi"],
        "wireguard_peers": {},
    }
    return {**common, "images": images, **rendered}


def judge(names: tuple[str, ...] = (), **changes: Any) -> list[Finding]:
    """Judge the good variables with some of them changed; `names` are there, but could not be rendered."""
    values = {**good(), **changes}
    return variables.judge(SPECS, values, [*values, *names, "ansible_host"], ["catalog_data"], NOW)


def test_good_variables_and_all_defaults_pass() -> None:
    assert judge() == []
    defaults = {
        name: option["default"] for spec in SPECS for name, option in spec["options"].items() if "default" in option
    }
    assert judge(**{name: value for name, value in defaults.items() if "{{" not in str(value)}) == []


def test_number_that_was_typed_is_text_and_passes() -> None:
    assert judge(ssh_port="2222", firewall_ssh_ports=["2222"], backup_ship_minutes="5") == []


@pytest.mark.parametrize("name", sorted(variables.RULES))
def test_every_rule_belongs_to_a_documented_variable(name: str) -> None:
    assert any(name in spec["options"] for spec in SPECS)


BAD = [
    ("backup_folder", "relative/folder"),
    ("backup_folder", "/"),
    ("backup_folder", "/var"),
    ("backup_hour", 24),
    ("backup_hour", -1),
    ("backup_keep", {}),
    ("backup_keep", {"nightly": "2d"}),
    ("backup_keep", {"daily": "30 days"}),
    ("backup_minute", "60"),
    ("backup_recipients", ["ssh-ed25519 AAAAC3Nz"]),
    ("fail2ban_ban_minutes", 0),
    ("fail2ban_find_minutes", 0),
    ("fail2ban_ignore", ["shop.example"]),
    ("fail2ban_max_retry", 1),
    ("firewall_group_ports", {"swarm": ["2377"]}),
    ("firewall_group_ports", {"swarm": "2377/tcp"}),
    ("firewall_rules", [{"name": "mqtt", "port": 1883, "protocol": "tcp"}]),
    ("firewall_rules", [{"name": "mqtt", "port": 1883, "protocol": "tcp", "exposure": "none"}]),
    ("firewall_rules", [{"name": "mqtt", "port": 70000, "protocol": "tcp", "exposure": "lan"}]),
    ("firewall_reach", [{"name": "printer", "network": "192.168.7.20", "port": 9100}]),
    ("firewall_reach", [{"name": "printer", "network": "printer.test", "port": 9100, "protocol": "tcp"}]),
    ("firewall_reach", [{"name": "printer", "network": "192.168.7.20", "port": 9100, "protocol": "icmp"}]),
    ("firewall_sources", {"ssh": ["192.168.7.9/24"]}),
    ("firewall_sources", {"ssh": "192.168.7.0/24"}),
    ("firewall_ssh_ports", [0]),
    ("firewall_ssh_ports", ["ssh"]),
    ("first_boot_keys", ["~/.ssh/id_ed25519.pub"]),
    ("first_boot_keys", ["-----BEGIN OPENSSH"]),
    ("first_boot_keys", ["ssh-ed25519 AAAAC3Nz anna\nssh-ed25519 AAAAC3Nz eve"]),
    ("first_boot_network", {"address": "192.168.7.10/24"}),
    ("first_boot_network", {"address": "192.168.7.10", "gateway": "192.168.7.1", "name_servers": ["192.168.7.1"]}),
    ("first_boot_network", {"address": "192.168.7.10/24", "gateway": "192.168.8.1", "name_servers": ["192.168.7.1"]}),
    ("first_boot_network", {"address": "192.168.7.0/24", "gateway": "192.168.7.1", "name_servers": ["192.168.7.1"]}),
    ("first_boot_network", {"address": "192.168.7.1/24", "gateway": "192.168.7.1", "name_servers": ["192.168.7.1"]}),
    ("first_boot_network", {"address": "192.168.7.10/24", "gateway": "192.168.7.1", "name_servers": []}),
    ("first_boot_network", {"address": "192.168.7.10/24", "gateway": "192.168.7.1", "name_servers": ["dns.example"]}),
    ("guard_seconds", 10),
    ("lan_networks", ["192.168.7.x"]),
    ("lan_networks", ["0.0.0.0/0"]),
    ("lan_networks", ["172.16.0.0/12"]),
    ("ssh_port", 65536),
    ("ssh_port_before", 0),
    ("base_journal_days", 0),
    ("base_journal_mib", 8),
    ("base_modules_off", ["cramfs; reboot"]),
    ("base_services_off", ["cups"]),
    ("base_services_off", ["$(reboot).service"]),
    ("base_sysctl", {"swappiness": 1}),
    ("base_sysctl", {"vm.swappiness": "1\nkernel.sysrq = 1"}),
    ("base_sysctl_where_known", {"-kernel.sysrq": 0}),
    ("updates_healthy_minutes", 0),
    ("updates_held", ['docker"; evil "']),
    ("updates_install_hour", 24),
    ("updates_metrics_folder", "/var"),
    ("updates_origins", ["Debian-Security"]),
    ("updates_origins", ['origin=Debian";']),
    ("updates_pending_days", 0),
    ("updates_stale_days", 1),
    ("updates_watched_seconds", 0),
    # 23:00 without quotes is a number in YAML.
    ("updates_window_from", 1380),
    ("updates_window_from", "24:00"),
    ("updates_window_until", "6"),
    ("backup_prune_places", {"far": {"url": "nowhere"}}),
    ("backup_repositories", {}),
    ("backup_repositories", {"near": {}}),
    ("backup_repositories", {"near": {"url": "relative/folder"}}),
    ("backup_repositories", {"near": {"url": "/backups", "password": "in plain sight"}}),
    ("backup_repositories", {"far": {"url": "rest:https://pi:in-plain-sight@nas.example/pi"}}),
    ("backup_repositories", {"far": {"url": "s3:https://s3.example/pi", "secrets": {"AWS_ACCESS_KEY_ID": 1}}}),
    ("backup_repositories", {"far": {"url": "rest:https://nas.example/pi", "ca": "/etc/ssl/nas.pem"}}),
    ("backup_repositories", {"far away": {"url": "/backups"}}),
    ("backup_ship_minutes", 0),
    ("backup_ship_minutes", 7),
    ("backup_ship_minutes", 30),
    ("backup_spool_mib", 16),
    ("base_hostname", "shop.example"),
    ("base_hostname", "-shop"),
    ("base_timezone", "Mars/Olympus"),
    ("base_users", [{"name": "Anna Smith", "authorized_keys": ["ssh-ed25519 AAAAC3Nz anna"]}]),
    ("base_users", [{"name": "anna", "authorized_keys": ["not a key"]}]),
    ("base_users", [{"name": "anna", "authorized_keys": []}]),
    ("ddns_api", "http://dns.example"),
    ("ddns_ca", "/etc/ssl/dns.pem"),
    ("ddns_minutes", 7),
    ("ddns_minutes", 60),
    ("ddns_names", ["https://shop.example"]),
    ("ddns_names", ["192.0.2.10"]),
    ("ddns_refresh_hours", 0),
    ("ddns_resolver", "dns.example"),
    ("ddns_sources", {}),
    ("ddns_sources", {"4": []}),
    ("ddns_sources", {"5": ["https://see.example"]}),
    ("ddns_sources", {"4": ["http://see.example"]}),
    ("ddns_stale_minutes", 1),
    ("docker_insecure_registries", ["registry.test"]),
    ("docker_log_max_file", 0),
    ("docker_log_max_size", "10 MB"),
    ("drill_budget_minutes", 5),
    ("drill_day", 29),
    ("drill_hour", 24),
    ("drill_kept_reports", 0),
    ("drill_minute", -1),
    ("drill_night_hours", 12),
    ("drill_overdue_days", 0),
    ("drill_parts", 0),
    ("drill_window_minutes", 0),
    ("n8n_heap_mib", 383),
    ("n8n_start_seconds", 29),
    ("probe_seconds", 0),
    ("n8n_owner_email", "owner@localhost"),
    ("n8n_owner_email", "owner at example.com"),
    ("notify_flush_minutes", 0),
    ("notify_flush_minutes", 7),
    ("notify_keep_days", 0),
    ("notify_metrics_folder", "/var"),
    ("notify_outbox_kib", 16),
    ("notify_outbox_messages", 9),
    ("notify_repeat_hours", 0),
    ("notify_targets", {"my phone": {"url_secret": "notify_phone_url"}}),
    ("notify_targets", {"phone": {}}),
    ("notify_targets", {"phone": "notify_phone_url"}),
    ("notify_targets", {"phone": {"url_secret": "tgram://123:in-plain-sight/1"}}),
    ("notify_targets", {"phone": {"url_secret": "notify_phone_url", "level": "panic"}}),
    ("notify_targets", {"phone": {"url_secret": "notify_phone_url", "url": "tgram://123:in-plain-sight/1"}}),
    ("posting_queue_accounts", {"main": 17841400000000000}),
    ("posting_queue_accounts", {"main": "my_shop"}),
    ("posting_queue_accounts", {"Main Street": "17841400000000000"}),
    ("posting_queue_confidence", 1.1),
    ("posting_queue_give_up_hours", 0),
    ("posting_queue_graph_version", "26"),
    ("posting_queue_schedule", {"pinboard": {"times": ["09:00"]}}),
    ("posting_queue_schedule", {"instagram": {"times": ["9 am"]}}),
    ("posting_queue_schedule", {"instagram": {"times": ["09:00"], "every_hours": 3}}),
    ("posting_queue_schedule", {"instagram": {"every_hours": 3, "posts": 0}}),
    ("power_metrics_folder", "/var"),
    ("power_time_servers", ["ntp://time.example"]),
    ("power_ups_drain_seconds", 5),
    ("power_ups_driver", "usbhid ups"),
    ("power_ups_halt", ""),
    ("power_ups_halt", "sync\npoweroff"),
    ("power_ups_port", "a b"),
    ("power_ups_settings", {"desc": 'the "good" one'}),
    ("power_ups_settings", {"[other]": "x"}),
    ("power_watchdog_seconds", 3),
    ("power_watchdog_seconds", 301),
    ("preflight_data_mount", "mnt/ssd"),
    ("preflight_disk_min_mib", -1),
    ("preflight_ram_min_mib", -1),
    ("preflight_reserve_mib", -1),
    ("preflight_soak_minutes", -1),
    ("proxy_acme_ca", "/etc/ssl/acme.pem"),
    ("proxy_acme_email", "nobody"),
    ("proxy_acme_server", "acme.example"),
    ("proxy_bind_address", "everywhere"),
    ("proxy_cloudflare_ca", "x"),
    ("proxy_cloudflare_lists", ["http://www.cloudflare.com/ips-v4"]),
    ("proxy_pull_authority", "/etc/ssl/pull.pem"),
    ("proxy_sources", {"editor": []}),
    ("proxy_sources", {"editor": ["10.66.0.1/24"]}),
    ("proxy_https_port", 0),
    ("proxy_https_port", 65536),
    ("proxy_limits", {"api": {"rate": "fast", "burst": 1, "body": "1m"}}),
    ("proxy_limits", {"api": {"rate": "1r/s", "burst": 1}}),
    ("proxy_limits", {"api": 5}),
    ("webhook_handler_consumers", {"orders": {"url": "n8n:5678"}}),
    ("webhook_handler_consumers", {"tasks": {"kind": "celery", "task": "shop.event", "queue": "urgent"}}),
    ("webhook_handler_consumers", {"orders": {"url": "http://n8n:5678/x", "concurrency": 0}}),
    ("webhook_handler_consumers", {"orders": {"url": "http://n8n:5678/x", "retries": 3}}),
    ("webhook_handler_endpoints", {}),
    ("webhook_handler_endpoints", {"amazon": {}}),
    ("webhook_handler_endpoints", {"paypal": {}}),
    ("webhook_handler_endpoints", {"stripe": {"shop": "corner.myshopify.com"}}),
    ("webhook_handler_endpoints", {"shopify/Second": {}}),
    ("webhook_handler_endpoints", {"custom": {"max_body_bytes": 1}}),
    ("webhook_handler_endpoints", {"shipping": {"encoding": "rot13"}}),
    ("webhook_handler_keeping", {"payload_days": 0}),
    ("webhook_handler_keeping", {"forever": 1}),
    ("webhook_handler_routes", [{"endpoint": "amazon", "topics": ["*"], "consumers": ["orders"]}]),
    ("webhook_handler_routes", [{"endpoint": "custom", "topics": [], "consumers": ["orders"]}]),
    ("rate_limiter_callers", []),
    ("rate_limiter_callers", ["Night Script"]),
    ("site_address", "https://shop.example"),
    ("site_address", "shop.example:8443"),
    ("site_address", "192.0.2.300"),
    ("site_address", ""),
    ("ssh_max_auth_tries", 0),
    ("stack_wait_seconds", 0),
    ("storage_disk", "/dev/sda"),
    ("storage_disk", "/dev/disk/by-id/usb-Maker_Disk_1-0:0-part1"),
    ("storage_disk", "/dev/disk/by-id/dm-name-old-data"),
    ("storage_erase_serial", "0123 4567"),
    ("storage_layout", [{"name": "free", "shares": {"buffer": 1}}]),
    ("storage_layout", [{"name": "cache", "path": "/var/lib/docker", "shares": {"cache": 0}}]),
    ("storage_layout", [{"name": "cache", "path": "/data", "shares": {"cache": 10}}]),
    ("storage_layout", [{"name": name, "path": "/mnt/one", "shares": {"one": 1}} for name in ("one", "two")]),
    ("storage_reboot_hours", -1),
    ("storage_unmap_bridges", ["174c"]),
    ("thermal_celsius", {"warm": 65, "high": 75, "critical": 80}),
    ("thermal_celsius", {"warm": 75, "high": 75, "critical": 80, "restore": 70}),
    ("thermal_celsius", {"warm": 65, "high": 75, "critical": 80, "restore": 79}),
    ("thermal_celsius", {"warm": 65, "high": 75, "critical": 95, "restore": 70}),
    ("thermal_every_seconds", 1),
    ("thermal_fan_curve", []),
    ("thermal_fan_curve", [{"celsius": 55, "percent": 40}]),
    ("thermal_fan_curve", [{"celsius": 80, "percent": 100}]),
    ("thermal_fan_curve", [{"celsius": 60, "percent": 40}, {"celsius": 55, "percent": 100}]),
    ("thermal_fan_curve", [{"celsius": 50, "percent": 100}, {"celsius": 55, "percent": 40}]),
    ("thermal_fan_curve", [{"celsius": 40 + step, "percent": 100} for step in range(5)]),
    ("thermal_fan_pin", 28),
    ("thermal_hysteresis", 0),
    ("thermal_metrics_folder", "metrics"),
    ("thermal_quiet_minutes", 0),
    ("thermal_shed_seconds", 5),
    ("wireguard_endpoint", "shop.example:51820"),
    ("wireguard_network", "10.66.0.1/24"),
    ("wireguard_network6", "10.66.0.0/24"),
    ("wireguard_number", 0),
    ("wireguard_peers", {"phone": {"number": 100}}),
    ("wireguard_port", 0),
]


@pytest.mark.parametrize(("name", "value"), BAD)
def test_impossible_value_is_refused(name: str, value: Any) -> None:
    findings = judge(**{name: value})
    assert [finding.check for finding in findings] == [name]
    assert "must be" in findings[0].found
    assert "argument_specs.yml" in findings[0].remedy


def test_class_of_requests_that_is_none_is_refused() -> None:
    """It would be open for everybody, and look as if it were not."""
    limits = {"editor": {"rate": "50r/s", "burst": 100, "body": "16m"}}
    assert judge(proxy_limits=limits, proxy_sources={"editor": ["10.66.0.0/24"]}) == []
    (finding,) = judge(proxy_limits=limits, proxy_sources={"editors": ["10.66.0.0/24"]})
    assert (finding.check, "editors" in finding.found, "editor" in finding.remedy) == ("proxy_sources", True, True)


BAD_POLICIES = {
    "rate_limiter_policies.shop.limit": {"shop": {"limit": 0, "window_seconds": 1}},
    "rate_limiter_policies.shop.also[0]": {"shop": {"limit": 1, "window_seconds": 1, "also": [{"limit": 1}]}},
    "rate_limiter_policies.shop.time_zone": {
        "shop": {"algorithm": "calendar", "limit": 1, "period": "day", "time_zone": "Mars/Olympus"}
    },
    "rate_limiter_policies.shop.on_failure": {"shop": {"limit": 1, "window_seconds": 1, "on_failure": "pray"}},
    "rate_limiter_policies": {},
}


@pytest.mark.parametrize(("where", "policies"), BAD_POLICIES.items())
def test_a_limit_that_the_service_would_refuse_is_refused_here(where: str, policies: dict[str, Any]) -> None:
    (finding,) = judge(rate_limiter_policies=policies)
    assert finding.check == where
    assert "expected" in finding.found or "missing" in finding.found


def test_every_rule_is_tripped() -> None:
    assert set(variables.RULES) == {name for name, _ in BAD}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("site_address", "shop.example"),
        ("site_address", "2001:db8::1"),
        ("base_hostname", "shop-pi"),
        ("n8n_owner_email", "anna.smith+shop@mail.shop.example"),
        ("base_users", [{"name": "anna", "authorized_keys": ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5 anna@home"]}]),
        ("base_users", [{"name": "anna", "authorized_keys": ['command="echo hi" ssh-rsa AAAAB3NzaC1yc2E= anna']}]),
        ("base_users", [{"name": "anna", "authorized_keys": ["sk-ssh-ed25519@openssh.com AAAAGnNr key"]}]),
        ("preflight_data_mount", "/var/lib/docker"),
        ("first_boot_keys", ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5 anna@home"]),
        ("first_boot_network", {"address": "192.168.7.10/24", "gateway": "192.168.7.1", "name_servers": ["9.9.9.9"]}),
        ("first_boot_network", {"address": "fd12::10/64", "gateway": "fd12::1", "name_servers": ["fd12::1"]}),
        ("backup_hour", "5"),
    ],
)
def test_possible_value_passes(name: str, value: Any) -> None:
    assert judge(**{name: value}) == []


def test_type_and_choice_come_from_the_documentation() -> None:
    findings = judge(docker_log_max_file="many", edition="deluxe")
    assert {finding.check for finding in findings} == {"docker_log_max_file", "edition"}
    assert all("roles/" in finding.remedy for finding in findings)


def test_value_that_may_be_a_secret_is_not_repeated() -> None:
    findings = judge(secrets_values="canary-5d1f-secret")
    assert [finding.check for finding in findings] == ["secrets_values"]
    assert "canary" not in str(findings)


def test_missing_variable_is_named_but_one_that_was_not_rendered_is_left_to_its_own_message() -> None:
    values = {name: value for name, value in good().items() if name != "edition"}
    assert [f.check for f in variables.judge(SPECS, values, values, [], NOW)] == ["edition"]
    assert variables.judge(SPECS, values, [*values, "edition"], [], NOW) == []


def test_unknown_variable_is_named_with_its_neighbour() -> None:
    findings = judge(backup_huor=3, stack_of_cards=1, catalog_data={}, unrelated=1)
    assert [finding.check for finding in findings] == ["backup_huor", "stack_of_cards"]
    assert findings[0].remedy == "did you mean backup_hour?"
    assert findings[1].remedy


def test_every_image_is_judged_also_one_that_no_service_runs_as_it_is() -> None:
    findings = judge(images={**good()["images"], "python": "python:latest"})
    assert [finding.check for finding in findings] == ["images"]
    assert "python" in findings[0].found


@pytest.mark.parametrize(
    ("certificate", "key", "problem"),
    [
        (CERTIFICATE, "", "proxy_certificate_key is empty"),
        ("", pem(KEY), "proxy_certificate is empty"),
        ("text", pem(KEY), "no certificate in PEM form"),
        (CERTIFICATE, "text", "no PEM private key"),
        (CERTIFICATE, pem(KEY, b"locked"), "without a password"),
        (CERTIFICATE, pem(ec.generate_private_key(ec.SECP256R1())), "does not belong"),
        (certificate(KEY, 2020, 2021), pem(KEY), "not today"),
        (certificate(KEY, 2031, 2032), pem(KEY), "not today"),
    ],
)
def test_certificate_that_would_not_work_is_refused(certificate: str, key: str, problem: str) -> None:
    findings = judge(proxy_certificate=certificate, proxy_certificate_key=key)
    assert [finding.check for finding in findings] == ["proxy_certificate"]
    assert problem in findings[0].found
    assert "set both" in findings[0].remedy


def test_certificate_with_its_key_passes() -> None:
    assert judge(proxy_certificate=CERTIFICATE, proxy_certificate_key=pem(KEY)) == []


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"proxy_entrance": "cloudflare", "proxy_exposure": "public"}, ["proxy_pull_authority is empty"]),
        (
            {"proxy_entrance": "cloudflare", "proxy_pull_authority": CERTIFICATE, "proxy_exposure": "vpn"},
            ["proxy_exposure is vpn: Cloudflare could not come"],
        ),
        (
            {**CLOUDFLARE, "wireguard_peers": PHONE, "wireguard_endpoint": "shop.example"},
            ["wireguard_endpoint is shop.example: Cloudflare, to which it leads, has no VPN"],
        ),
        ({**CLOUDFLARE, "wireguard_endpoint": "shop.example"}, []),
        ({**CLOUDFLARE, "wireguard_peers": PHONE, "wireguard_endpoint": "house.example"}, []),
        ({**CLOUDFLARE, "wireguard_peers": PHONE, "site_address": "192.0.2.10"}, []),
        ({"proxy_entrance": "acme"}, ["ddns_provider is empty", "site_address is 192.0.2.10"]),
        (
            {"proxy_entrance": "acme", "ddns_provider": "duckdns", "site_address": "shop-pi"},
            ["site_address is shop-pi"],
        ),
        ({"proxy_entrance": "acme", "ddns_provider": "duckdns", "site_address": "shop.example"}, []),
        ({"proxy_entrance": "cloudflare", "proxy_pull_authority": CERTIFICATE, "proxy_exposure": "public"}, []),
    ],
)
def test_way_of_the_entrance_needs_what_belongs_to_it(changes: dict[str, Any], told: list[str]) -> None:
    found = [str(finding) for finding in judge(**changes)]
    assert len(found) == len(told)
    assert all(text in finding for text, finding in zip(told, found, strict=True))


def test_numbers_of_the_vpn_fit_into_its_network() -> None:
    peers = {"phone": {"number": 300, "public_key": "k" * 43 + "="}}
    found = judge(wireguard_number=255, wireguard_peers=peers)
    assert [finding.check for finding in found] == ["wireguard_number", "wireguard_peers.phone"]
    assert "number 300 does not fit into wireguard_network " in found[1].found
    assert judge(wireguard_number=255, wireguard_peers=peers, wireguard_network="10.66.0.0/16") == []
    assert variables.judge(SPECS, {}, [*good(), "ansible_host"], [], NOW) == []


@pytest.mark.parametrize(
    ("begin", "end", "minutes"), [("04:00", "04:00", 0), ("04:00", "10:30", 390), ("23:55", "00:00", 5)]
)
def test_window_for_restarts_is_neither_a_moment_nor_the_whole_night(begin: str, end: str, minutes: int) -> None:
    [found] = judge(updates_window_from=begin, updates_window_until=end)
    assert (found.check, found.found) == ("updates_window_until", f"is {minutes} minutes after updates_window_from")
    assert judge(updates_window_from="23:30", updates_window_until="04:00") == []
