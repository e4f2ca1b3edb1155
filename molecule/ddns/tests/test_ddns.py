"""The name's program as cron calls it; what it says to its providers, tests/unit/test_ddns.py shows."""

from __future__ import annotations

from typing import Any

import pytest
from testinfra.host import Host

PROGRAM = "/usr/local/sbin/pi-commerce-ddns"


@pytest.fixture
def provider(variables: dict[str, Any]) -> str:
    """Who answers for the names; empty for nobody."""
    return str(variables["ddns_provider"])


def test_program_is_there_where_there_is_a_provider(host: Host, provider: str) -> None:
    assert host.file(PROGRAM).exists == bool(provider)
    assert host.file("/etc/cron.d/pi-commerce-ddns").exists == bool(provider)
    assert not host.file("/usr/local/lib/pi-commerce/ddns/pi_ddns/old.py").exists


def test_cron_comes_when_it_should_and_says_in_the_journal_what_is_wrong(
    host: Host, provider: str, variables: dict[str, Any]
) -> None:
    if not provider:
        pytest.skip("nobody answers for the names: there is no program")
    line = host.file("/etc/cron.d/pi-commerce-ddns").content_string.splitlines()[-1]
    assert line.startswith(f"*/{variables['ddns_minutes']} * * * * root ")
    host.check_output("rm -f /var/lib/pi-commerce/ddns/state.json")
    host.check_output(line.split(" ", 6)[-1])
    told = host.check_output("journalctl -t pi-commerce-ddns --output cat")
    assert "127.0.0.1:8097: does not answer" in told
    status = host.run(f"{PROGRAM} status")
    assert (status.rc, "failed 1 times in a row" in status.stdout) == (1, True)
    assert "pi_ddns_failures 1" in host.check_output(f"cat {variables['ddns_metrics_folder']}/ddns.prom")


def test_token_is_in_a_root_only_file_and_nowhere_else(host: Host, provider: str, variables: dict[str, Any]) -> None:
    if not provider:
        pytest.skip("nobody answers for the names: there is no token")
    secret = host.file("/etc/pi-commerce/secrets/ddns_token")
    assert (secret.mode, secret.user) == (0o400, "root")
    # Written so that the line itself, which the journal has, is none that it finds.
    token = "molecule-8[1]c4-dns-token"
    places = "/etc/pi-commerce/ddns /etc/cron.d /var/log /var/lib/pi-commerce"
    searched = host.run(f"journalctl --output export | grep -ae '{token}'; grep -rse '{token}' {places}")
    assert searched.stdout == ""
    assert host.run(f"runuser -u pi -- {PROGRAM} status").rc == 2


def test_program_goes_and_comes_with_the_provider(
    host: Host, apply: Any, provider: str, variables: dict[str, Any]
) -> None:
    if not provider:
        pytest.skip("nobody answers for the names")
    own = {name: value for name, value in variables.items() if name.startswith(("ddns_", "secrets_values"))}
    gone = apply("ddns", **{**own, "ddns_provider": "", "secrets_values": {}})
    assert gone.returncode == 0, gone.stdout
    assert not host.file(PROGRAM).exists
    again = apply("ddns", **own)
    assert again.returncode == 0, again.stdout
    assert host.file(PROGRAM).exists
