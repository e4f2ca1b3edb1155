"""Only what is enabled is derived, and everything that is enabled."""

from __future__ import annotations

from typing import Any

Data = dict[str, Any]


def test_each_enabled_service_is_probed_and_no_other(variables: Data, facts: Data) -> None:
    probed = {probe["service"] for probe in facts["catalog_data"]["probes"]}
    assert probed == set(variables["services_enabled"])


def test_limits_are_the_machines_own(variables: Data, facts: Data) -> None:
    limits = {row["service"]: row["limit_mib"] for row in facts["catalog_data"]["capacity"]}
    assert set(limits) == set(variables["services_enabled"])
    for service, limit in variables["services_memory"].items():
        assert limits[service] == int(limit.removesuffix("M")), service


def test_only_the_proxy_is_published(variables: Data, facts: Data) -> None:
    published = facts["catalog_data"]["published_ports"]
    assert [(row["service"], row["host_port"]) for row in published] == [("proxy", variables["proxy_https_port"])]


def test_secrets_go_to_enabled_services_only(variables: Data, facts: Data) -> None:
    for secret in facts["catalog_data"]["secret_files"]:
        assert set(secret["services"]) <= set(variables["services_enabled"]), secret["name"]
    named = " ".join(secret["name"] for secret in facts["catalog_data"]["secret_files"])
    assert ("n8n" in named) == ("n8n" in variables["services_enabled"])
