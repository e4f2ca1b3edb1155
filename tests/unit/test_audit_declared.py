"""What the audit believes to be wanted is what the roles would write."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import network_state
import plays
import pytest
import wireguard

PASSWORD = "the password of this test"
NETWORK = {
    **network_state.state("", "port 22\n", socket=False),
    "attached": ["192.168.7.0/24"],
    "neighbours": ["192.168.7.0/24"],
}
DEBIAN_13 = {
    "os_id": "debian",
    "os_version": "13",
    "apt_mirror": "http://mirror.test/debian",
    "network": NETWORK,
    "ipv6": True,
    "wireguard_module": True,
    "kernel": "6.12.0",
}
# In a process of its own, as Ansible reads its settings once; prints what each check makes of the plays.
READ = """
import json, sys
sys.path.insert(0, "ops")
import checks
from declared import CannotRead, Site
extra_vars, facts = json.loads(sys.argv[1]), json.loads(sys.argv[2])
try:
    steps = list(Site("inventory/virtual", tuple(extra_vars)).steps("shop-pi", facts))
    made = {check.name: check for check in checks.make(steps)}
except CannotRead as problem:
    sys.exit(str(problem))
print(json.dumps({
    "files": made["files"].wanted,
    "swept": sorted(made["files"].swept),
    "packages": made["packages"].wanted,
    "name": made["identity"].host_name,
    "places": made["volumes"].places,
    "links": made["identity"].links,
    "kernel": made["kernel"].wanted,
    "people": made["people"].question(),
    "services": made["containers"].stack.catalog["services"],
    "compose": made["containers"].stack.files,
    "firmware": made["firmware"].settings,
    "watchdog": made["watchdog"].seconds,
    "databases": [entry["name"] for entry in made["databases"].wanted[0]["databases"]],
    "workflows": [entry["file"] for wanted in made["workflows"].wanted for entry in wanted["workflows"]],
}))
"""


def read(state: Path, facts: dict[str, Any] = DEBIAN_13, **variables: Any) -> subprocess.CompletedProcess[str]:
    """What the audit wants of a virtual Pi whose vault file is in `state`."""
    environment = {
        **os.environ,
        "PI_STATE": str(state),
        "ANSIBLE_CONFIG": str(plays.ROOT / "ansible.cfg"),
        "ANSIBLE_VAULT_PASSWORD_FILE": str(state / "password"),
    }
    extra = [json.dumps(variables)] if variables else []
    command = [sys.executable, "-c", READ, json.dumps(extra), json.dumps(facts)]
    return subprocess.run(
        command, cwd=plays.ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False
    )


def wanted(state: Path, facts: dict[str, Any] = DEBIAN_13, **variables: Any) -> dict[str, Any]:
    """The same, which must succeed."""
    done = read(state, facts, **variables)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture(scope="module")
def unmade(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A machine whose vault file does not exist yet, with a vault password."""
    state = tmp_path_factory.mktemp("state")
    (state / "password").write_text(PASSWORD)
    return state


@pytest.fixture(scope="module")
def state(unmade: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A machine with all its secrets."""
    state = tmp_path_factory.mktemp("state")
    (state / "password").write_text(PASSWORD)
    names = re.search(r"lacks (.+);", read(unmade).stderr)
    assert names is not None
    make = {"vault_secrets": {"path": str(state / "secrets.vault.yml"), "names": names[1].split(", ")}}
    status, output = plays.play(state, [make], password=PASSWORD)
    assert status == 0, output
    return state


@pytest.fixture(scope="module")
def usual(state: Path) -> dict[str, Any]:
    """What the audit wants of this machine where nobody asks for anything else."""
    return wanted(state)


def test_machine_that_was_never_set_up_is_told_so(unmade: Path) -> None:
    refused = read(unmade)
    assert refused.returncode == 1
    assert "secrets.vault.yml: lacks backup_far_password, backup_near_password, " in refused.stderr
    assert ", far_access, n8n_db_password" in refused.stderr
    assert "run site.yml first" in refused.stderr


def test_disk_for_the_data_is_looked_at_where_one_is_declared(state: Path, usual: dict[str, Any]) -> None:
    assert "/etc/pi-commerce/storage/settings.json" not in usual["files"]
    found = wanted(state, storage_disk="/dev/disk/by-id/usb-Maker_Disk_1-0:0")
    assert "/etc/systemd/system/docker.service.d/pi-commerce-storage.conf" in found["files"]
    assert "lvm2" in found["packages"]
    assert "/var/lib/docker/volumes" in found["places"]


def test_everything_is_read_from_the_plays(usual: dict[str, Any]) -> None:
    paths = set(usual["files"])
    assert {f"/etc/pi-commerce/compose/{file}" for file in usual["compose"]} <= paths
    assert {
        "/etc/cron.d/pi-commerce-backup",
        "/etc/docker/daemon.json",
        "/etc/pi-commerce/build/rate_limiter/Dockerfile",
        "/etc/pi-commerce/monitoring/targets.json",
        "/etc/pi-commerce/proxy/nginx.conf",
        "/etc/pi-commerce/secrets/n8n_owner_password_hash",
        "/etc/ssh/sshd_config.d/10-pi-commerce.conf",
        "/etc/sysctl.d/90-pi-commerce.conf",
    } <= paths
    assert {"/etc/pi-commerce/compose", "/etc/pi-commerce/secrets"} <= set(usual["swept"])
    assert usual["files"]["/etc/pi-commerce/secrets"] == [None, 0o700, "root", "root"]
    assert usual["files"]["/etc/pi-commerce/secrets/n8n_db_password"][1:] == [0o400, "1000", "1000"]
    assert {"cron", "docker.io"} <= set(usual["packages"])
    assert usual["name"] == "shop-pi"
    assert usual["links"] == {"/etc/localtime": "/usr/share/zoneinfo/Europe/Berlin"}
    assert usual["kernel"]["net.ipv4.tcp_syncookies"] == "1"
    assert sorted(usual["databases"]) == ["n8n", "shop"]
    assert "health-echo.json" in usual["workflows"]


def test_variables_change_what_is_wanted(state: Path, usual: dict[str, Any]) -> None:
    before = usual["files"]
    person = {"name": "ann", "authorized_keys": ["ssh-ed25519 AAAA ann@home"]}
    changed = wanted(state, base_timezone="Pacific/Auckland", base_users=[person], ssh_max_auth_tries=2)
    after = changed["files"]
    assert changed["links"] == {"/etc/localtime": "/usr/share/zoneinfo/Pacific/Auckland"}
    assert "ann" in changed["people"]
    other = {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)}
    assert {
        "/etc/ssh/sshd_config.d/10-pi-commerce.conf",
        "/etc/sudoers.d/90-pi-commerce",
        "/etc/pi-commerce/compose/n8n.yml",
    } <= other
    assert "/etc/docker/daemon.json" not in other


def test_what_is_included_while_running_depends_on_the_machine(state: Path, usual: dict[str, Any]) -> None:
    source = "/etc/apt/sources.list.d/pi-commerce-docker.sources"
    assert source not in usual["files"]
    assert source in wanted(state, {**DEBIAN_13, "os_version": "12"})["files"]


def test_body_of_the_board_is_looked_at_as_it_is_declared(state: Path, usual: dict[str, Any]) -> None:
    assert (usual["firmware"], usual["watchdog"], "nut-server" in usual["packages"]) == ([], 0, False)
    assert usual["packages"]["chrony"]
    cared_for = wanted(state, thermal_fan="ice_tower", power_watchdog=True, power_ups_driver="usbhid-ups")
    assert cared_for["firmware"] == ["dtoverlay=gpio-fan,gpiopin=14,temp=55000"]
    assert cared_for["watchdog"] == 60
    assert cared_for["packages"]["nut-server"]
    assert {"/etc/nut/upsmon.conf", "/etc/pi-commerce/power/settings.json"} <= set(cared_for["files"])
    old = wanted(state, {**DEBIAN_13, "kernel": "6.6.51+rpt-rpi-v8"}, power_watchdog=True)
    assert old["watchdog"] == 14


def test_way_in_from_afar_is_looked_at_where_there_is_one(state: Path, usual: dict[str, Any]) -> None:
    before = set(usual["files"])
    phone = {"number": 100, "public_key": wireguard.public_key(wireguard.new_private_key())}
    found = wanted(
        state,
        {**DEBIAN_13, "wireguard_module": False},
        wireguard_peers={"phone": phone},
        proxy_entrance="cloudflare",
        proxy_pull_authority="x",
        ddns_provider="duckdns",
        secrets_values={"far_access": "x", "ddns_token": "y"},
    )
    assert found["files"]["/etc/wireguard/wg0.conf"][1:] == [0o600, "root", "root"]
    assert {"wireguard-go", "wireguard-tools"} <= set(found["packages"])
    others = {path for path in set(found["files"]) - before if not path.startswith("/usr/local/lib/pi-commerce/ddns/")}
    assert others == {
        "/etc/cron.d/pi-commerce-ddns",
        "/etc/cron.d/pi-commerce-vpn",
        "/etc/pi-commerce/ddns/settings.json",
        "/etc/pi-commerce/proxy/tls/pull.pem",
        "/etc/pi-commerce/secrets/ddns_token",
        "/etc/wireguard",
        "/etc/wireguard/endpoints",
        "/etc/wireguard/wg0.conf",
        "/usr/local/sbin/pi-commerce-ddns",
        "/usr/local/sbin/pi-commerce-vpn",
    }
    # With a name of its own, a token is asked for.
    assert "lacks ddns_token" in read(state, ddns_provider="duckdns").stderr


def test_what_cannot_be_rendered_is_refused(state: Path) -> None:
    refused = read(state, base_timezone="{{ nowhere_set }}")
    assert refused.returncode == 1
    assert "nowhere_set" in refused.stderr
