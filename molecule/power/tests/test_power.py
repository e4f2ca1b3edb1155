"""Watchdog, clock, and a battery that is low: with the real NUT, its driver for tests, and the real databases."""

from __future__ import annotations

import time
from typing import Any

import pytest
from testinfra.host import Host

WRITERS = {"n8n", "rate_limiter", "webhook_handler", "posting_queue"}
STORES = {"redis", "postgres"}
SERVICES = {"proxy", *WRITERS, *STORES}
ON_LINE = "ups.status: OL\nbattery.charge: 100\nbattery.runtime: 3600\n"
ON_BATTERY = "ups.status: OB DISCHRG\nbattery.charge: 61\nbattery.runtime: 900\n"
LOW = "ups.status: OB LB\nbattery.charge: 9\nbattery.runtime: 60\n"


@pytest.fixture(scope="module")
def ups(variables: dict[str, Any]) -> None:
    """Only where there is one."""
    if not variables["power_ups_driver"]:
        pytest.skip("no UPS is declared")


def pretend(host: Host, text: str) -> None:
    """Have the UPS tell this, and wait until it does."""
    host.check_output(
        f"printf '{text}' > /etc/nut/molecule.dev.new && mv /etc/nut/molecule.dev.new /etc/nut/molecule.dev"
    )
    status = text.partition("\n")[0].partition(": ")[2]
    deadline = time.monotonic() + 60
    # With the order to shut down NUT says FSD before it.
    while not host.run("upsc ups@127.0.0.1 ups.status").stdout.strip().endswith(status):
        assert time.monotonic() < deadline, f"the UPS does not say {status}"
        time.sleep(0.5)


def told(host: Host, title: str) -> int:
    """How often the real notify was given a title; it has no target, so it stands in the journal."""
    said = host.check_output("journalctl -t pi-commerce-notify --output cat")
    return sum(f"no target takes it: {title} |" in line for line in said.splitlines())


def states(host: Host) -> set[str]:
    """Whether the services run."""
    names = " ".join(f"pi-commerce-{name}-1" for name in SERVICES)
    return set(host.check_output(f"docker inspect --format '{{{{.State.Status}}}}' {names}").split())


def test_systemd_is_told_of_the_watchdog(host: Host, variables: dict[str, Any]) -> None:
    told = host.check_output("systemctl show --property RuntimeWatchdogUSec --value")
    assert told == (f"{variables['power_watchdog_seconds']}s" if variables["power_watchdog"] else "0")


def test_clock_is_kept_by_chrony_and_not_in_a_container(host: Host, variables: dict[str, Any]) -> None:
    assert host.service("chrony").is_enabled
    assert not host.package("systemd-timesyncd").is_installed
    # It would be that of the computer around it.
    assert host.check_output("systemctl show --property ConditionResult --value chrony") == "no"
    files = host.check_output("systemctl show --property EnvironmentFiles chrony").splitlines()
    assert "/etc/chrony/pi-commerce.env" in files[-1]
    assert "-s" in host.file("/etc/chrony/pi-commerce.env").content_string.split("DAEMON_OPTS=")[1]
    settings = host.check_output("chronyd -p -f /etc/chrony/chrony.conf").splitlines()
    assert "rtconutc" in settings
    for server in variables["power_time_servers"]:
        assert any(server in line for line in [*settings, *host.file(sources()).content_string.splitlines()])


def sources() -> str:
    """Servers of our own."""
    return "/etc/chrony/sources.d/90-pi-commerce.sources"


def test_time_is_kept_every_minute(host: Host) -> None:
    lines = host.file("/etc/cron.d/pi-commerce-clock").content_string.splitlines()
    *_, command = lines[-1].split(maxsplit=6)
    drift = "/var/lib/chrony/chrony.drift"
    host.check_output(f"echo '0.0 0.0' > {drift}; touch --date '1 hour ago' {drift}")
    try:
        host.check_output(command)
        assert abs(int(host.check_output(f"stat --format %Y {drift}")) - time.time()) < 60
    finally:
        host.check_output(f"rm {drift}")


@pytest.mark.usefixtures("ups")
def test_only_this_machine_and_only_root_and_nut_know_how_to_end_it(host: Host) -> None:
    listening = [line for line in host.check_output("ss -Hltn").splitlines() if ":3493" in line]
    assert listening
    assert all("127.0.0.1:3493" in line for line in listening)
    for name in ("upsd.users", "upsmon.conf"):
        file = host.file(f"/etc/nut/{name}")
        assert (file.mode, file.user, file.group) == (0o640, "root", "nut")
    assert "old.py" not in host.file("/usr/local/lib/pi-commerce/power/pi_power").listdir()


@pytest.mark.usefixtures("ups")
def test_power_cut_is_told_once_and_its_end(host: Host, variables: dict[str, Any]) -> None:
    lines = host.file("/etc/cron.d/pi-commerce-power").content_string.splitlines()
    assert lines[-1].startswith("* * * * * root nice pi-commerce-power look")
    pretend(host, ON_BATTERY)
    for _ in range(2):
        host.check_output("pi-commerce-power look")
    pretend(host, ON_LINE)
    host.check_output("pi-commerce-power look")
    assert (told(host, "The shop runs on battery"), told(host, "The mains are back")) == (1, 1)
    figures = host.file(f"{variables['power_metrics_folder']}/power.prom").content_string
    assert 'pi_power_ups_status{flag="OL"} 1' in figures
    assert "pi_power_battery_percent 100" in figures


@pytest.mark.usefixtures("ups")
def test_low_battery_saves_the_shop_and_ends_the_machine(host: Host) -> None:
    """NUT itself calls the program. Last, because NUT takes back no order to shut down."""
    psql = "docker exec pi-commerce-postgres-1 psql -U postgres -XAtc"
    before = host.check_output(f"{psql} 'SELECT checkpoint_time FROM pg_control_checkpoint()'")
    dump = host.check_output("docker volume inspect --format '{{.Mountpoint}}' pi-commerce_redis_data") + "/dump.rdb"
    saved = host.run(f"stat --format %Y {dump}").stdout
    host.check_output("rm -f /run/molecule-halted")
    pretend(host, LOW)
    deadline = time.monotonic() + 400
    while not host.file("/run/molecule-halted").exists:
        assert time.monotonic() < deadline, host.run("journalctl -u nut-monitor --output cat").stdout
        time.sleep(1)
    assert states(host) == {"exited"}
    said = host.check_output("journalctl -u nut-monitor --output cat")
    steps = [line.partition(": ")[0] for line in said.splitlines() if ": done in" in line]
    settled = steps.index("settle")
    # The way in first, the databases last.
    assert steps[:3] == ["which services run", "remember them", "stop proxy"]
    assert sorted(steps[3:settled]) == sorted(f"stop {name}" for name in WRITERS)
    assert sorted(steps[settled + 1 :]) == sorted(f"stop {name}" for name in STORES)
    assert host.run(f"stat --format %Y {dump}").stdout > saved
    # At the next boot.
    host.check_output("systemctl stop nut-monitor.service; rm -f /etc/killpower")
    # They forget the order to shut down when they start.
    host.check_output(f"printf '{ON_LINE}' > /etc/nut/molecule.dev")
    host.check_output("systemctl restart nut-driver@ups.service nut-server.service")
    pretend(host, ON_LINE)
    host.check_output("rm /run/molecule-halted; systemctl start nut-monitor.service")
    host.check_output("systemctl start pi-commerce-power-boot.service")
    while states(host) != {"running"}:
        assert time.monotonic() < deadline
        time.sleep(1)
    assert not host.file("/var/lib/pi-commerce/power/stopped.json").exists
    assert host.check_output("systemctl is-enabled pi-commerce-power-boot.service") == "enabled"
    while host.run(f"{psql} 'SELECT 1'").rc:
        assert time.monotonic() < deadline
        time.sleep(1)
    assert host.check_output(f"{psql} 'SELECT checkpoint_time FROM pg_control_checkpoint()'") != before
    log = host.check_output("docker logs pi-commerce-postgres-1 2>&1 | tail -n 30")
    assert "automatic recovery in progress" not in log
