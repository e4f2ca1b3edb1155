"""Bad input is refused with what, where and the remedy, and nothing on the Pi is touched."""

from __future__ import annotations

import json

import machine
import pytest

# Everything a run could touch: files with their change times, containers, images, enabled units.
SNAPSHOT = """
find /etc /usr/local /opt /var/lib/pi-commerce /root -xdev -type f -printf '%p %C@ %m %u\\n' 2>/dev/null | sort
docker ps --all --no-trunc --format '{{.ID}} {{.State}}' | sort
docker images --no-trunc --quiet | sort
systemctl list-unit-files --state=enabled --no-legend
"""


def extra(**variables: object) -> tuple[str, str]:
    """Variables as ansible-playbook takes them."""
    return "-e", json.dumps(variables)


REFUSALS = {
    "does not fit": (extra(services_memory={"n8n": "4G"}), ["do not fit", "n8n", "4096", "services_memory"]),
    "unknown service": (extra(services_enabled=["postgres", "proxy", "nothing"]), ["nothing"]),
    "dependency missing": (
        extra(services_enabled=["postgres", "redis", "n8n", "proxy"]),
        ["n8n.yml.j2", "rate_limiter", "services_enabled"],
    ),
    "wrong type": (extra(docker_log_max_file="many"), ["docker_log_max_file", "int"]),
    "wrong choice": (extra(edition="deluxe"), ["edition", "lean", "deluxe"]),
    "wrong list": (extra(preflight_architectures={"arm": True}), ["preflight_architectures"]),
    "wrong architecture": (extra(preflight_architectures=["aarch64"]), ["x86_64", "preflight_architectures"]),
    "too little memory": (extra(preflight_ram_min_mib=7000), ["3793 MiB", "preflight_ram_min_mib"]),
    "no board": (extra(hardware_root="/nowhere"), ["board", "hardware_root"]),
    "too little disk": (extra(preflight_disk_min_mib=10**9), ["free disk", "preflight_disk_min_mib"]),
    "unreadable memory limit": (
        extra(services_memory={"redis": "lots"}),
        ["redis.yml.j2", "memory", "lots"],
    ),
    "image without version": (
        extra(images={"postgres": "postgres", "redis": "r:1", "n8n": "n:1", "proxy": "p:1", "python": "p:1"}),
        ["postgres.yml.j2", "image"],
    ),
    "weak password": (extra(secrets_values={"n8n_owner_password": "changeme"}), ["n8n_owner_password"]),
    "default password": (extra(secrets_values={"postgres_password": "postgres1234"}), ["postgres_password"]),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_refused_and_nothing_changed(case: str) -> None:
    arguments, words = REFUSALS[case]
    before = machine.pi(SNAPSHOT)
    refused = machine.playbook("site.yml", *arguments)
    assert refused.status != 0, refused.output[-3000:]
    for word in words:
        assert word in refused.output, f"{word!r} is not named:\n{refused.output[-3000:]}"
    assert machine.recap(refused.output)["changed"] == 0
    assert machine.pi(SNAPSHOT) == before


@pytest.mark.parametrize(
    ("password", "words"), [("wrong\n", ["secrets.vault.yml", "password"]), (None, ["vault", "password"])]
)
def test_wrong_or_missing_vault_password(
    password: str | None, words: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    vault = machine.STATE / "secrets.vault.yml"
    before, sealed = machine.pi(SNAPSHOT), vault.read_bytes()
    given = None
    if password is not None:
        file = tmp_path_factory.mktemp("vault") / "password"
        file.write_text(password)
        given = str(file)
    refused = machine.playbook("site.yml", ANSIBLE_VAULT_PASSWORD_FILE=given)
    assert refused.status != 0
    for word in words:
        assert word in refused.output, refused.output[-3000:]
    assert vault.read_bytes() == sealed
    assert machine.pi(SNAPSHOT) == before


def test_engine_that_ignores_memory_limits_is_refused() -> None:
    """A client that drops the limits stands in for a kernel that ignores them."""
    machine.pi(
        "rm /run/pi-commerce-memory-limit\n"
        "cat > /usr/local/bin/docker <<'SHIM'\n"
        "#!/bin/bash\n"
        'kept=(); while [ $# -gt 0 ]; do case $1 in --memory*) shift ;; *) kept+=("$1") ;; esac; shift; done\n'
        'exec /usr/bin/docker "${kept[@]}"\n'
        "SHIM\n"
        "chmod 0755 /usr/local/bin/docker"
    )
    try:
        refused = machine.playbook("playbooks/stack.yml")
    finally:
        machine.pi("rm /usr/local/bin/docker")
    assert refused.status != 0, refused.output[-3000:]
    assert "cmdline.txt" in refused.output, refused.output[-3000:]
    accepted = machine.playbook("playbooks/stack.yml")
    assert accepted.status == 0, accepted.output[-3000:]
    machine.pi("test -e /run/pi-commerce-memory-limit")


def test_the_snapshot_notices_a_change() -> None:
    before = machine.pi(SNAPSHOT)
    machine.pi("touch /etc/pi-commerce-probe")
    assert machine.pi(SNAPSHOT) != before
    machine.pi("rm /etc/pi-commerce-probe")
    assert machine.pi(SNAPSHOT) == before
