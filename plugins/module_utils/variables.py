"""Judges the variables of an inventory: what every role documents, and what the values mean. Pure."""

from __future__ import annotations

import datetime
import difflib
import ipaddress
import re
import sys
import zoneinfo
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import board_care
import certificates
import wireguard
import yaml
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from catalog import compose
from catalog.place import Place
from preflight import Finding

# Our services judge their settings themselves; their own modules do it here too, before they are on the Pi.
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "files/services/rate_limiter"))
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "files/services/posting_queue"))

from posting_queue.config import CHANNELS, read_plan
from posting_queue.errors import ConfigError as WrongPlan
from rate_limiter.errors import ConfigError
from rate_limiter.policies import read_policies

WHERE = "correct it in the inventory or on the command line"


class Rule(NamedTuple):
    """What a value must be, and whether it is."""

    expect: str
    accepts: Callable[[Any], bool]


def _whole(low: int, high: int) -> Rule:
    return Rule(f"a whole number from {low} to {high}", lambda value: low <= value <= high)


def _matching(expect: str, pattern: str) -> Rule:
    return Rule(expect, lambda value: re.fullmatch(pattern, value) is not None)


def _each(rule: Rule) -> Rule:
    return Rule(f"a list, each {rule.expect}", lambda values: all(rule.accepts(value) for value in values))


def is_address(value: str) -> bool:
    """Whether the text is an IPv4 or IPv6 address."""
    try:
        ipaddress.ip_address(value)
    except ValueError:
        return False
    return True


def is_host(value: str) -> bool:
    """Whether the text is a host name (RFC 1123) or an address."""
    labels = value.split(".")
    # All digits and dots is an address or a slip of the pen, never a name.
    named = not re.fullmatch(r"[\d.]+", value) and len(value) <= 253
    return is_address(value) or (named and all(re.fullmatch(LABEL, label) for label in labels))


def is_network(value: Any) -> bool:
    """Whether the text is a network or an address, IPv4 or IPv6, without bits beyond its prefix."""
    try:
        ipaddress.ip_network(value)
    except (ValueError, TypeError):
        return False
    return isinstance(value, str)


def is_house(value: Any) -> bool:
    """Whether the text is a network that may be somebody's house: not so wide that Docker's networks are in it."""
    if not is_network(value):
        return False
    network = ipaddress.ip_network(value)
    if isinstance(network, ipaddress.IPv4Network):
        return not ipaddress.IPv4Network("172.16.0.0/12").subnet_of(network)
    return network.prefixlen > 0


def is_port(value: Any) -> bool:
    """Whether the text is a port with its protocol, such as 2377/tcp."""
    match = re.fullmatch(r"(\d{1,5})/(tcp|udp)", str(value))
    return match is not None and 0 < int(match[1]) <= 65535


def is_firewall_rule(value: Any) -> bool:
    """Whether an entry of firewall_rules has a name, a port with its protocol, and an exposure."""
    return (
        isinstance(value, Mapping)
        and set(value) == {"name", "port", "protocol", "exposure"}
        and re.fullmatch(IDENTIFIER, str(value["name"])) is not None
        and is_port(f"{value['port']}/{value['protocol']}")
        and value["exposure"] in ("lan", "vpn", "public")
    )


def is_way(value: Any) -> bool:
    """Whether an entry of firewall_reach has a name, a network, and a port with its protocol."""
    return (
        isinstance(value, Mapping)
        and set(value) == {"name", "network", "port", "protocol"}
        and is_network(value["network"])
        and is_port(f"{value['port']}/{value['protocol']}")
    )


def is_time_zone(value: str) -> bool:
    """Whether this computer's time zone database knows the name; a computer without one believes it."""
    known = zoneinfo.available_timezones()
    return not known or value in known


def is_public_key(value: Any) -> bool:
    """Whether the text is one line of authorized_keys."""
    line = str(value).strip()
    return "\n" not in line and re.search(r"(^|\s)(ssh-|ecdsa-|sk-)[\w@.-]+ AAAA[\w+/=]+", line) is not None


def is_login(value: Any) -> bool:
    """Whether an entry of base_users is a name that useradd takes with at least one public key."""
    keys = value.get("authorized_keys") or []
    named = re.fullmatch(LOGIN, str(value.get("name"))) is not None
    return named and bool(keys) and all(map(is_public_key, keys))


def is_first_network(value: Mapping[str, Any]) -> bool:
    """Whether the mapping is empty, or an address of its own in a network, a gateway beside it, and name servers."""
    if not value:
        return True
    servers = value.get("name_servers")
    if set(value) != {"address", "gateway", "name_servers"} or not isinstance(servers, list) or not servers:
        return False
    try:
        interface = ipaddress.ip_interface(value["address"])
        gateway = ipaddress.ip_address(value["gateway"])
    except (ValueError, TypeError):
        return False
    network = interface.network
    ends = (network.network_address, network.broadcast_address)
    return (
        "/" in value["address"]
        and interface.ip not in ends
        and gateway in network
        and gateway not in (*ends, interface.ip)
        and all(is_address(str(server)) for server in servers)
    )


def is_limit(value: Any) -> bool:
    """Whether a request class of the proxy has a rate, a burst and a body size that nginx takes."""
    return (
        isinstance(value, Mapping)
        and set(value) == {"rate", "burst", "body"}
        and re.fullmatch(r"[1-9]\d*r/[sm]", str(value["rate"])) is not None
        and re.fullmatch(r"\d+", str(value["burst"])) is not None
        and re.fullmatch(r"[1-9]\d*[kmg]?", str(value["body"])) is not None
    )


def is_repository(name: Any, value: Any) -> bool:
    """Whether an entry of backup_repositories has a name, a URL without a password, PEM, and texts as settings."""
    if not isinstance(value, Mapping) or set(value) - {"url", "ca", "environment", "secrets"}:
        return False
    given = {**value.get("environment", {}), **value.get("secrets", {})}
    return (
        re.fullmatch(r"[a-z][a-z0-9_]*", str(name)) is not None
        and re.fullmatch(r"/\S+|(rest|sftp|s3|b2|rclone|azure|gs|swift):\S+", str(value.get("url"))) is not None
        and re.search(r"//[^/@]*:[^/@]*@", str(value["url"])) is None
        and re.fullmatch(PEM, value.get("ca", "")) is not None
        and all(re.fullmatch(r"[A-Z][A-Z0-9_]*", str(key)) and isinstance(given[key], str) for key in given)
    )


def is_target(name: Any, value: Any) -> bool:
    """Whether an entry of notify_targets has a name, the name of a secret, and perhaps a level."""
    return (
        isinstance(value, Mapping)
        and {"url_secret"} <= set(value) <= {"url_secret", "level"}
        and re.fullmatch(IDENTIFIER, str(name)) is not None
        and re.fullmatch(IDENTIFIER, str(value["url_secret"])) is not None
        and value.get("level", "info") in ("info", "warning", "critical")
    )


def is_sysctl(values: Mapping[Any, Any]) -> bool:
    """Whether each name is one of a kernel setting, and each value fits into a line."""
    return all(
        re.fullmatch(r"[a-z0-9_][a-z0-9_-]*(\.[A-Za-z0-9_-]+)+", str(name)) and re.fullmatch(r"[^\n]+", str(value))
        for name, value in values.items()
    )


def is_time_of_day(value: str) -> bool:
    """Whether the text is a time of day, HH:MM."""
    return re.fullmatch(r"([01]\d|2[0-3]):[0-5]\d", value) is not None


def is_layout(rows: list[Mapping[str, Any]]) -> bool:
    """Whether each volume of storage_layout has a name and shares above 0, and no name or path stands there twice."""
    names = [row.get("name") for row in rows]
    paths = [path for row in rows for path in (row.get("path"), *(row.get("binds") or [])) if path]
    return (
        (bool(paths) or not rows)
        and all(re.fullmatch(IDENTIFIER, str(name)) for name in names)
        and all(isinstance(path, str) and re.fullmatch(r"/[^/\s]+(/[^/\s]+)+", path) for path in paths)
        and all(isinstance(row.get("shares"), Mapping) and row["shares"] for row in rows)
        and all(isinstance(share, int) and share > 0 for row in rows for share in row["shares"].values())
        and all(re.fullmatch(r"[0-7]{4}", str(row.get("mode", "0755"))) for row in rows)
        and len({*names, *paths}) == len(names) + len(paths)
    )


def is_vpn_network(value: str, version: int, longest: int) -> bool:
    """Whether the text is a network of that IP version with room for members."""
    if not wireguard.is_network(value):
        return False
    network = ipaddress.ip_network(value)
    return network.version == version and network.prefixlen <= longest


IDENTIFIER = r"[a-z][a-z0-9_]*"
LOGIN = r"[a-z_][a-z0-9_-]{0,31}"
PEM = r"(-----BEGIN CERTIFICATE-----\n[\w+/=\n]+-----END CERTIFICATE-----\n?)*"
SPANS = ("hourly", "daily", "weekly", "monthly", "yearly")
PERIOD = r"([1-9]\d*[hdmy])+"
LABEL = r"[a-z0-9A-Z]([a-z0-9A-Z-]{0,61}[a-z0-9A-Z])?"
_MIB = _whole(0, 1024 * 1024)
WEBHOOK = r"(shopify|stripe|paypal|shipping|telegram|meta|custom)(/[a-z0-9][a-z0-9-]{0,40})?"
# What an endpoint may have besides what its provider alone has.
_OF_WEBHOOKS = {
    "store": str,
    "tolerance_seconds": int,
    "max_body_bytes": int,
    "changing": bool,
}
_OF_PROVIDERS = {"shopify": ("shop",), "paypal": ("webhook_id",), "shipping": ("header", "prefix", "encoding")}
_OF_CONSUMERS = {
    "kind": str,
    "url": str,
    "task": str,
    "queue": str,
    "format": str,
    "concurrency": int,
    "timeout_seconds": int,
}
# The handler's own bounds (config.py there), lowest and highest.
_OF_KEEPING = {
    "payload_days": (1, 3650),
    "dead_days": (1, 3650),
    "key_days": (4, 3650),
    "payload_mib": (1, 1024 * 1024),
    "waiting_events": (100, 10_000_000),
    "give_up_hours": (1, 24 * 365),
}


def _is(value: Any, kind: type | None) -> bool:
    """Whether a value is of a kind; Ansible's own texts and numbers are of a class below it, and true is no number."""
    return kind is not None and isinstance(value, kind) and (kind is bool or not isinstance(value, bool))


def is_webhook(name: Any, value: Any) -> bool:
    """Whether an entry of webhook_handler_endpoints has the name of a provider and what belongs to it."""
    if not re.fullmatch(WEBHOOK, str(name)) or not isinstance(value, Mapping):
        return False
    provider = str(name).partition("/")[0]
    kinds = _OF_WEBHOOKS | dict.fromkeys(_OF_PROVIDERS.get(provider, ()), str)
    return (
        all(_is(value[key], kinds.get(key)) for key in value)
        and re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,62}", value.get("store", "main")) is not None
        and 1 <= value.get("tolerance_seconds", 300) <= 30 * 86400
        and 1024 <= value.get("max_body_bytes", 1024) <= 8 * 1024 * 1024
        and value.get("encoding", "hex") in ("hex", "base64")
        and (provider != "paypal" or bool(value.get("webhook_id")))
    )


def is_webhook_consumer(name: Any, value: Any) -> bool:
    """Whether an entry of webhook_handler_consumers is an address or a task."""
    if not re.fullmatch(IDENTIFIER, str(name)) or not isinstance(value, Mapping):
        return False
    kind = value.get("kind", "http")
    addressed = re.fullmatch(r"https?://\S+", str(value.get("url", ""))) is not None
    tasked = bool(value.get("task")) and str(value.get("queue", "celery")).startswith("celery")
    return (
        all(_is(value[key], _OF_CONSUMERS.get(key)) for key in value)
        and {"http": addressed, "celery": tasked}.get(kind, False)
        and value.get("format", "raw") in ("raw", "order")
        and 1 <= value.get("concurrency", 4) <= 64
        and 1 <= value.get("timeout_seconds", 30) <= 300
    )


def is_posting_schedule(value: Mapping[str, Any]) -> bool:
    """Whether every entry of posting_queue_schedule is a channel with places, as the service will read it."""
    try:
        for channel, plan in value.items():
            read_plan(plan, channel)
    except WrongPlan:
        return False
    return set(value) <= set(CHANNELS)


def is_keeping(value: Mapping[str, Any]) -> bool:
    """Whether every entry of webhook_handler_keeping is one, within its bounds."""
    return all(
        key in _OF_KEEPING and _is(number, int) and _OF_KEEPING[key][0] <= number <= _OF_KEEPING[key][1]
        for key, number in value.items()
    )


# What types and choices cannot say, by variable. Sizes and ports of services are judged by the catalog.
RULES: dict[str, Rule] = {
    "backup_folder": _matching("an absolute path below another folder", r"/[^/\s]+(/[^/\s]+)+"),
    "backup_hour": _whole(0, 23),
    "backup_keep": Rule(
        "a mapping with hourly, daily, weekly or monthly, each a time such as 30d",
        lambda keep: bool(keep) and all(span in SPANS and re.fullmatch(PERIOD, str(keep[span])) for span in keep),
    ),
    "backup_minute": _whole(0, 59),
    "backup_recipients": _each(_matching("a public key of age (age1...)", r"age1[02-9ac-hj-np-z]{58}")),
    "backup_prune_places": Rule(
        "a mapping like backup_repositories, or {}",
        lambda places: all(is_repository(name, places[name]) for name in places),
    ),
    "backup_repositories": Rule(
        "a mapping of names (near, far), each with a url without a password, perhaps ca (PEM), environment, secrets",
        lambda places: bool(places) and all(is_repository(name, places[name]) for name in places),
    ),
    "backup_ship_minutes": Rule("a divisor of 60, at most 15", lambda value: 0 < value <= 15 and 60 % value == 0),
    "backup_spool_mib": _whole(64, 65536),
    "base_hostname": _matching("a host name without dots: letters, digits and -", LABEL),
    "base_journal_days": _whole(1, 3650),
    "base_journal_mib": _whole(16, 65536),
    "base_modules_off": _each(_matching("the name of a kernel module", r"[A-Za-z0-9_-]+")),
    "base_services_off": _each(
        _matching("a unit with its kind, such as cups.service", r"[\w.@-]+\.(service|socket|timer)")
    ),
    "base_sysctl": Rule("a mapping of kernel settings such as vm.swappiness, each a number or a text", is_sysctl),
    "base_sysctl_where_known": Rule("a mapping of kernel settings, each a number or a text", is_sysctl),
    "base_timezone": Rule("a name from the time zone database, such as Europe/Berlin", is_time_zone),
    "base_users": _each(Rule("a login name with public keys as in authorized_keys", is_login)),
    "ddns_ca": _matching("empty or certificates in PEM form", PEM),
    "ddns_api": _matching("empty or a URL that begins with https://", r"(https://\S+)?"),
    "ddns_minutes": Rule("a divisor of 60, at most 30", lambda value: 0 < value <= 30 and 60 % value == 0),
    "ddns_names": Rule(
        "a list of host names", lambda names: all(is_host(name) and not is_address(name) for name in names)
    ),
    "ddns_resolver": _matching("a URL that begins with https://", r"https://\S+"),
    "ddns_refresh_hours": _whole(1, 720),
    "ddns_sources": Rule(
        "a mapping with 4, 6 or both, each a list of URLs that begin with https://",
        lambda sources: (
            bool(sources)
            and {str(family) for family in sources} <= {"4", "6"}
            and all(urls and all(re.fullmatch(r"https://\S+", url) for url in urls) for urls in sources.values())
        ),
    ),
    "ddns_stale_minutes": _whole(10, 10080),
    "docker_insecure_registries": _each(_matching("host:port", r"[a-z0-9.-]+:\d{1,5}")),
    "docker_log_max_file": _whole(1, 1000),
    "docker_log_max_size": _matching("a size such as 10m", r"[1-9]\d*[kmg]"),
    "drill_budget_minutes": _whole(10, 40320),
    "drill_day": _whole(1, 28),
    "drill_hour": _whole(0, 23),
    "drill_kept_reports": _whole(1, 1000),
    "drill_minute": _whole(0, 59),
    "drill_night_hours": _whole(24, 168),
    "drill_overdue_days": _whole(1, 366),
    "drill_parts": _whole(1, 120),
    "drill_window_minutes": _whole(1, 1440),
    "fail2ban_ban_minutes": _whole(1, 1440),
    "fail2ban_find_minutes": _whole(1, 1440),
    "fail2ban_ignore": _each(Rule("an address or a network such as 192.168.7.0/24", is_network)),
    "fail2ban_max_retry": _whole(2, 100),
    "firewall_group_ports": Rule(
        "a mapping of inventory groups, each a list of ports such as 2377/tcp",
        lambda groups: all(
            isinstance(ports, list) and all(is_port(port) for port in ports) for ports in groups.values()
        ),
    ),
    "firewall_reach": _each(Rule("a mapping with name, network, port and protocol (tcp or udp)", is_way)),
    "firewall_rules": _each(Rule("a mapping with name, port, protocol (tcp or udp) and exposure", is_firewall_rule)),
    "firewall_sources": Rule(
        "a mapping of names (ssh, proxy), each a list of networks such as 192.168.7.0/24",
        lambda names: all(
            isinstance(networks, list) and all(is_network(network) for network in networks)
            for networks in names.values()
        ),
    ),
    # Text where an ssh_port was typed.
    "firewall_ssh_ports": _each(Rule("a port", lambda value: is_port(f"{value}/tcp"))),
    "first_boot_keys": _each(Rule("a public key as in authorized_keys, on one line", is_public_key)),
    "first_boot_network": Rule(
        "empty (DHCP), or an address with its prefix (192.168.178.10/24), a gateway in that network and name_servers",
        is_first_network,
    ),
    "guard_seconds": _whole(20, 3600),
    "lan_networks": _each(Rule("the network of a house such as 192.168.7.0/24, with no container in it", is_house)),
    "n8n_heap_mib": _whole(384, 65536),
    "n8n_start_seconds": _whole(30, 3600),
    "n8n_owner_email": _matching("an e-mail address", r"[^\s@\"'<>]+@([a-z0-9A-Z-]+\.)+[a-zA-Z][a-z0-9A-Z-]+"),
    "notify_flush_minutes": Rule("a divisor of 60, at most 15", lambda value: 0 < value <= 15 and 60 % value == 0),
    "notify_keep_days": _whole(1, 365),
    "notify_metrics_folder": _matching("an absolute path below another folder", r"/[^/\s]+(/[^/\s]+)+"),
    "notify_outbox_kib": _whole(64, 65536),
    "notify_outbox_messages": _whole(10, 10000),
    "notify_repeat_hours": _whole(1, 720),
    "notify_targets": Rule(
        "a mapping of names (phone), each with url_secret, the name of a secret, perhaps a level (info...)",
        lambda targets: all(is_target(name, targets[name]) for name in targets),
    ),
    "posting_queue_accounts": Rule(
        "a mapping of stores (main), each with the number of an Instagram account as a text",
        lambda accounts: all(
            re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,62}", str(store))
            and re.fullmatch(r"\d{1,30}", str(number))
            and isinstance(number, str)
            for store, number in accounts.items()
        ),
    ),
    "posting_queue_confidence": Rule("a number from 0 to 1", lambda value: 0 <= value <= 1),
    "posting_queue_give_up_hours": _whole(1, 720),
    "posting_queue_graph_version": _matching("a version of the Graph API, like v26.0", r"v\d+\.\d+"),
    "posting_queue_schedule": Rule(
        f"a mapping with some of {', '.join(CHANNELS)}, each with times or every_hours, and posts",
        is_posting_schedule,
    ),
    "power_metrics_folder": _matching("an absolute path below another folder", r"/[^/\s]+(/[^/\s]+)+"),
    "power_time_servers": _each(Rule("a host name or an address", is_host)),
    "power_ups_drain_seconds": _whole(10, 3600),
    "power_ups_driver": _matching(
        "empty, or the name of one of NUT's drivers such as usbhid-ups", r"([a-z][a-z0-9_-]*)?"
    ),
    "power_ups_halt": _matching("a command in one line", r"\S[^\n]*"),
    "power_ups_port": _matching("auto, a device, or a file, without blanks", r"[^\s\"]+"),
    "power_ups_settings": Rule(
        "a mapping of names of NUT's settings, each a text or a number",
        lambda settings: all(
            re.fullmatch(r"[A-Za-z][\w.-]*", str(name)) and re.fullmatch(r'[^"\n]*', str(settings[name]))
            for name in settings
        ),
    ),
    "power_watchdog_seconds": Rule("0, or a whole number from 5 to 300", lambda value: value == 0 or 5 <= value <= 300),
    "preflight_data_mount": _matching("empty or an absolute path", r"(/[^/\s]+)*"),
    "preflight_disk_min_mib": Rule("MiB, not negative", lambda value: value >= 0),
    "preflight_ram_min_mib": _MIB,
    "preflight_reserve_mib": _MIB,
    "preflight_soak_minutes": _whole(0, 1440),
    "probe_seconds": _whole(1, 600),
    "proxy_acme_ca": _matching("empty or certificates in PEM form", PEM),
    "proxy_acme_email": _matching(
        "empty or an e-mail address", r"([^\s@\"'<>]+@([a-z0-9A-Z-]+\.)+[a-zA-Z][a-z0-9A-Z-]+)?"
    ),
    "proxy_acme_server": _matching("a URL that begins with https://", r"https://\S+"),
    "proxy_bind_address": Rule("an address", is_address),
    "proxy_cloudflare_ca": _matching("empty or certificates in PEM form", PEM),
    "proxy_cloudflare_lists": _each(_matching("a URL that begins with https://", r"https://\S+")),
    "proxy_https_port": _whole(1, 65535),
    "proxy_limits": Rule(
        "a mapping of request classes, each with rate (10r/s), burst and body (1m)",
        lambda limits: all(is_limit(limit) for limit in limits.values()),
    ),
    "proxy_pull_authority": _matching("empty or certificates in PEM form", PEM),
    "proxy_sources": Rule(
        "a mapping of request classes, each a list of networks such as 10.66.0.0/24",
        lambda sources: all(networks and all(map(wireguard.is_network, networks)) for networks in sources.values()),
    ),
    "rate_limiter_callers": Rule(
        "a list of names of lower-case letters, digits and _, not empty",
        lambda names: bool(names) and all(re.fullmatch(IDENTIFIER, name) for name in names),
    ),
    "site_address": Rule("a host name or an address, without https:// and without a port", is_host),
    "ssh_max_auth_tries": _whole(1, 100),
    "ssh_port": _whole(1, 65535),
    "ssh_port_before": _whole(1, 65535),
    "stack_wait_seconds": _whole(1, 86400),
    "storage_disk": _matching(
        "empty, or a whole disk below /dev/disk/by-id (not one of its partitions)",
        r"(/dev/disk/by-id/(?!dm-|lvm-|md-)(?!\S*-part\d+$)[^/\s]+)?",
    ),
    "storage_erase_serial": _matching("empty, or a serial number without spaces", r"\S*"),
    "storage_layout": Rule(
        "empty, or a list of volumes, each with a name, shares and perhaps a path of its own; no two alike", is_layout
    ),
    "storage_reboot_hours": _whole(0, 720),
    "storage_unmap_bridges": _each(_matching("vendor:product, such as 174c:55aa", r"[0-9a-f]{4}:[0-9a-f]{4}")),
    "thermal_celsius": Rule(
        "warm < high < critical and restore at least 5 below critical, whole numbers from 30 to 85", board_care.is_heat
    ),
    "thermal_every_seconds": _whole(5, 60),
    "thermal_fan_curve": Rule(
        "one to four steps {celsius (30 to 75), percent}, each hotter and no slower, the last with 100 percent",
        board_care.is_curve,
    ),
    "thermal_fan_pin": _whole(board_care.PINS[0], board_care.PINS[-1]),
    "thermal_hysteresis": _whole(1, 10),
    "thermal_metrics_folder": _matching("an absolute path below another folder", r"/[^/\s]+(/[^/\s]+)+"),
    "thermal_quiet_minutes": _whole(1, 1440),
    "thermal_shed_seconds": _whole(15, 3600),
    "updates_healthy_minutes": _whole(1, 120),
    "updates_held": _each(
        _matching("a regular expression of letters, digits and [.+*?|()^$-]", r"[\w.+*?|()^$\[\]-]+")
    ),
    "updates_install_hour": _whole(0, 23),
    "updates_metrics_folder": _matching("an absolute path below another folder", r"/[^/\s]+(/[^/\s]+)+"),
    "updates_origins": _each(
        _matching("a pattern such as origin=Debian,label=Debian-Security", r'(\w+=[^=,"]+)(,\w+=[^=,"]+)*')
    ),
    "updates_pending_days": _whole(1, 90),
    "updates_stale_days": _whole(2, 90),
    "updates_watched_seconds": _whole(5, 3600),
    "updates_window_from": Rule('a time of day in quotes, such as "04:00"', is_time_of_day),
    "updates_window_until": Rule('a time of day in quotes, such as "06:00"', is_time_of_day),
    "webhook_handler_consumers": Rule(
        "a mapping of names (orders), each with a url, or with kind celery, a task and a queue that starts with celery",
        lambda consumers: all(is_webhook_consumer(name, consumers[name]) for name in consumers),
    ),
    "webhook_handler_endpoints": Rule(
        "a mapping of providers (custom, shopify/second), each with what it may have; paypal needs its webhook_id",
        lambda endpoints: bool(endpoints) and all(is_webhook(name, endpoints[name]) for name in endpoints),
    ),
    "webhook_handler_keeping": Rule(f"a mapping with some of {', '.join(_OF_KEEPING)}", is_keeping),
    "webhook_handler_routes": Rule(
        "a list, each with an endpoint (custom), topics and consumers",
        lambda routes: all(
            re.fullmatch(WEBHOOK, route["endpoint"]) and route["topics"] and route["consumers"] for route in routes
        ),
    ),
    "wireguard_endpoint": Rule(
        "empty, or a host name or an address without a port", lambda value: not value or is_host(value)
    ),
    "wireguard_network": Rule("an IPv4 network such as 10.66.0.0/24", lambda value: is_vpn_network(value, 4, 30)),
    "wireguard_network6": Rule(
        "empty, or an IPv6 network such as fd66:66:66::/64", lambda value: not value or is_vpn_network(value, 6, 126)
    ),
    "wireguard_number": _whole(1, 65534),
    "wireguard_peers": Rule(
        "a mapping of names (phone), each with a number and a public_key, perhaps an endpoint (host:port) and networks",
        lambda peers: all(wireguard.is_peer(name, peers[name]) for name in peers),
    ),
    "wireguard_port": _whole(1, 65535),
}


def role_specs(roles: Path) -> list[dict[str, Any]]:
    """Every role below the folder with its documented options, as `{role, options}`."""
    found = []
    for path in sorted(roles.glob("*/meta/argument_specs.yml")):
        spec = yaml.safe_load(path.read_text(encoding="utf-8"))["argument_specs"]["main"]
        found.append({"role": path.parts[-3], "options": spec["options"]})
    return found


def judge(
    specs: list[dict[str, Any]],
    values: Mapping[str, Any],
    names: Iterable[str],
    known: Iterable[str],
    now: datetime.datetime,
) -> list[Finding]:
    """Everything that is wrong with the variables of a host.

    Args:
        specs: what `role_specs` returns.
        values: rendered values by name; those that could not be rendered are left out.
        names: names of all variables of the host.
        known: names that carry a role's prefix and are in order (facts the roles set).
        now: the time at which certificates have to be valid.
    """
    given = {str(name) for name in names}
    problems = [finding for spec in specs for finding in _check_role(spec, values, given)]
    options = {option for spec in specs for option in spec["options"]}
    prefixes = tuple(f"{spec['role']}_" for spec in specs)
    unknown = sorted({name for name in given if name.startswith(prefixes)} - options - set(known))
    problems += [_unknown(name, options) for name in unknown]
    if not problems:
        problems += _check_images(values.get("images", {}))
        problems += _check_pair(values.get("proxy_certificate", ""), values.get("proxy_certificate_key", ""), now)
        problems += _check_entrance(values)
        problems += _check_numbers(values)
        problems += _check_window(values)
        problems += _check_sources(values.get("proxy_sources", {}), values.get("proxy_limits", {}))
        problems += _check_policies(values.get("rate_limiter_policies"))
        problems += _check_routes(values.get("webhook_handler_routes", []), values.get("webhook_handler_consumers", {}))
    return problems


def _check_routes(routes: list[Mapping[str, Any]], consumers: Mapping[str, Any]) -> list[Finding]:
    """Events go to consumers that are declared."""
    unknown = sorted({name for route in routes for name in route["consumers"]} - set(consumers))
    return [
        Finding(
            "refuse",
            "webhook_handler_routes",
            f"'{name}' is no consumer",
            "declare it in webhook_handler_consumers or take it out",
        )
        for name in unknown
    ]


def _unknown(name: str, options: set[str]) -> Finding:
    near = difflib.get_close_matches(name, sorted(options), n=1)
    remedy = f"did you mean {near[0]}?" if near else "take it out"
    return Finding("refuse", name, "unknown variable: no role reads it", remedy)


def _check_role(spec: dict[str, Any], values: Mapping[str, Any], given: set[str]) -> list[Finding]:
    """One role's variables against its specification and, where that is met, against RULES."""
    described = f"{WHERE}; roles/{spec['role']}/meta/argument_specs.yml describes it"
    problems = []
    typed: dict[str, Any] = {}
    for name, option in spec["options"].items():
        if name in given and name not in values:
            continue
        value = {name: values[name]} if name in values else {}
        checked = ArgumentSpecValidator({name: option}).validate(value)
        if checked.error_messages:
            # A message may quote the value.
            hidden = f"is not of type {option['type']}" if value else "is missing"
            found = hidden if option.get("no_log") else "; ".join(checked.error_messages)
            problems.append(Finding("refuse", name, found, described))
        elif value:
            typed[name] = checked.validated_parameters[name]
    for name, value in typed.items():
        rule = RULES.get(name)
        if rule and not rule.accepts(value):
            problems.append(Finding("refuse", name, f"is {value!r}, must be {rule.expect}", described))
    return problems


def _check_images(images: Mapping[str, Any]) -> list[Finding]:
    """Every image reference, also of those images that no service runs as it is."""
    refused: list[str] = []
    for name, image in images.items():
        compose.image(image, Place(refused, "images", str(name)))
    return [Finding("refuse", "images", message, f"{WHERE}; write registry/name:version") for message in refused]


def _check_pair(certificate: str, key: str, now: datetime.datetime) -> list[Finding]:
    """The proxy's certificate and key."""
    problem = certificates.pair_problem(certificate, key, now)
    remedy = "set both proxy_certificate and proxy_certificate_key to a valid PEM pair, or neither"
    return [Finding("refuse", "proxy_certificate", problem, remedy)] if problem else []


def _check_numbers(values: Mapping[str, Any]) -> list[Finding]:
    """The numbers of the VPN's members, in its networks; one that could not be rendered has a message of its own."""
    networks = wireguard.Networks(values.get("wireguard_network", ""), values.get("wireguard_network6", ""))
    peers = values.get("wireguard_peers", {})
    numbers = {"wireguard_number": values.get("wireguard_number", 1)}
    numbers |= {f"wireguard_peers.{name}": entry["number"] for name, entry in peers.items()}
    problems = []
    for place, number in numbers.items():
        try:
            networks.addresses(int(number))
        except wireguard.WireguardError as error:
            problems.append(Finding("refuse", place, str(error), f"{WHERE}, or beside the inventory (peers.yml)"))
    return problems


def _check_window(values: Mapping[str, Any]) -> list[Finding]:
    """The window for restarts: a machine that has started less than six hours ago does not start again."""
    ends = [str(values.get(f"updates_window_{end}", "")).split(":") for end in ("from", "until")]
    if any(len(end) != 2 for end in ends):
        return []
    begin, end = (int(hour) * 60 + int(minute) for hour, minute in ends)
    minutes = (end - begin) % 1440
    if 10 <= minutes <= 360:
        return []
    remedy = "set updates_window_from and updates_window_until ten minutes to six hours apart"
    return [Finding("refuse", "updates_window_until", f"is {minutes} minutes after updates_window_from", remedy)]


def _check_sources(sources: Mapping[str, Any], classes: Mapping[str, Any]) -> list[Finding]:
    """Request classes for some networks alone: one that is misspelt would stay open for everybody."""
    return [
        Finding("refuse", "proxy_sources", f"names {name}, which is no class", f"name one of {', '.join(classes)}")
        for name in sources
        if name not in classes
    ]


def _check_policies(policies: Any) -> list[Finding]:
    """The limits of third-party APIs, as the service will read them."""
    if policies is None:
        return []
    try:
        read_policies({"policies": policies})
    except ConfigError as error:
        where, _, problem = str(error).partition(": ")
        name = f"rate_limiter_policies{where.removeprefix('policies')}"
        return [Finding("refuse", name, problem, f"{WHERE}; files/services/rate_limiter/README.md has all keys")]
    return []


def _check_entrance(values: Mapping[str, Any]) -> list[Finding]:
    """What the way of the entrance needs besides."""
    way = str(values.get("proxy_entrance"))
    public = "." in str(values.get("site_address")) and not is_address(str(values.get("site_address")))
    needed = {
        "cloudflare": [
            (
                values.get("proxy_pull_authority"),
                "proxy_pull_authority is empty: anybody at Cloudflare could come",
                "set it",
            ),
            (
                values.get("proxy_exposure") == "public",
                f"proxy_exposure is {values.get('proxy_exposure')}: Cloudflare could not come",
                "set it to public",
            ),
            (
                not (public and values.get("wireguard_peers"))
                or values.get("wireguard_endpoint") != values.get("site_address"),
                f"wireguard_endpoint is {values.get('wireguard_endpoint')}: Cloudflare, to which it leads, has no VPN",
                "set it to a name or address of the house",
            ),
        ],
        "acme": [
            (
                values.get("ddns_provider"),
                "ddns_provider is empty: nobody can prove the name to an authority",
                "set it",
            ),
            (
                public,
                f"site_address is {values.get('site_address')}: no public authority vouches for that",
                "set a public name",
            ),
        ],
    }
    return [
        Finding("refuse", "proxy_entrance", f"is {way}, and {problem}", f"{remedy}, or set proxy_entrance to lan")
        for met, problem, remedy in needed.get(way, [])
        if not met
    ]
