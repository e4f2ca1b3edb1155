"""A machine with its packages, its name, its time zone, its people and its kernel settings."""

from __future__ import annotations

from typing import Any

from testinfra.host import Host

Variables = dict[str, Any]


def test_packages_are_installed(host: Host, variables: Variables) -> None:
    for name in variables["base_packages"]:
        assert host.package(name).is_installed, name


def test_machine_knows_its_own_name(host: Host, variables: Variables) -> None:
    name = variables["base_hostname"].replace("{{ inventory_hostname }}", "shop-pi")
    assert host.check_output("hostname") == name
    assert host.check_output(f"getent hosts {name}").split()[0] == "127.0.1.1"


def test_clock_shows_local_time(host: Host, variables: Variables) -> None:
    zone = variables["base_timezone"]
    assert host.check_output("date +%z") == host.check_output(f"TZ={zone} date +%z")


def test_kernel_settings_are_in_force(host: Host, variables: Variables) -> None:
    assert variables["base_sysctl"]
    for name, value in variables["base_sysctl"].items():
        assert host.sysctl(name) == value, name


def test_interfaces_that_were_there_before_have_the_settings_too(host: Host, variables: Variables) -> None:
    for name, value in (variables["base_sysctl"] | variables["base_sysctl_where_known"]).items():
        if ".conf.default." in name:
            for interface in ("eth0", "lo"):
                assert host.sysctl(name.replace("default", interface)) == value, (interface, name)


def test_people_become_root_without_a_password(host: Host, variables: Variables) -> None:
    for user in variables["base_users"]:
        name = user["name"]
        assert host.check_output(f"runuser -u {name} -- sudo -n id -u") == "0"
        assert host.check_output(f"passwd --status {name}").split()[1] == "L", "the password is not locked"
        keys = host.file(f"/home/{name}/.ssh/authorized_keys")
        assert keys.content_string.splitlines() == user["authorized_keys"]
        assert (keys.user, keys.mode) == (name, 0o600)


def test_setting_that_this_kernel_lacks_is_left_out(host: Host, variables: Variables) -> None:
    assert variables["base_sysctl_where_known"]
    for name, value in variables["base_sysctl_where_known"].items():
        path = f"/proc/sys/{name.replace('.', '/')}"
        assert not host.file(path).exists or host.file(path).content_string.strip() == str(value), name
    # As every boot does.
    assert host.run("/usr/lib/systemd/systemd-sysctl 90-pi-commerce-where-known.conf").rc == 0


def options(host: Host, path: str) -> set[str]:
    """How a folder is mounted."""
    return set(host.check_output(f"findmnt --noheadings --output OPTIONS --mountpoint {path} | tail -n 1").split(","))


def test_nothing_gets_privileges_where_everybody_writes(host: Host) -> None:
    for path in ("/tmp", "/dev/shm"):
        assert {"nosuid", "nodev", "noexec"} <= options(host, path), path
    assert {"nosuid", "nodev"} <= options(host, "/var/tmp")
    host.check_output("install -m 0755 /bin/true /tmp/molecule-program")
    try:
        assert host.run("/tmp/molecule-program").rc == 126
    finally:
        host.check_output("rm /tmp/molecule-program")


def test_module_that_is_off_cannot_be_asked_for(host: Host, variables: Variables) -> None:
    for name in variables["base_modules_off"]:
        assert f"install {name} /bin/false" in host.check_output("modprobe --showconfig").replace("_", "-"), name


def test_journal_has_its_limits(host: Host, variables: Variables) -> None:
    shown = host.check_output("systemd-analyze cat-config systemd/journald.conf").splitlines()
    # The last one counts.
    in_force = dict(line.split("=", 1) for line in shown if "=" in line and not line.startswith("#"))
    assert in_force["SystemMaxUse"] == f"{variables['base_journal_mib']}M"
    assert in_force["MaxRetentionSec"] == f"{variables['base_journal_days']}day"
    assert in_force["ForwardToSyslog"] == "no"
    assert host.service("systemd-journald").is_running


def test_no_program_leaves_its_memory_behind(host: Host) -> None:
    assert host.check_output("systemctl show --property DefaultLimitCORE").endswith("=0")
    assert host.check_output("su -s /bin/sh nobody -c 'ulimit -Hc'") == "0"


def test_what_packages_open_is_closed_again(host: Host) -> None:
    host.check_output("chmod 0755 /etc/cron.daily")
    host.check_output("apt-get -q update && apt-get -q -y --reinstall install tzdata")
    assert host.file("/etc/cron.daily").mode == 0o700


def test_settings_of_accounts_and_the_banner_come_back_once(host: Host) -> None:
    """A package brings its own files again; what they say of other things stays."""
    kept = "/etc/login.defs /etc/issue /var/lib/pi-commerce/hardening/issue"
    host.check_output(f"tar --create --file /run/molecule.tar {kept}")
    try:
        host.check_output("printf 'PASS_MIN_DAYS 0\\nUID_MIN 1000\\n' >/etc/login.defs && echo Debian >/etc/issue")
        host.check_output("pi-commerce-harden && pi-commerce-harden")
        settings = host.file("/etc/login.defs").content_string.splitlines()
        assert settings[:2] == ["#pi-commerce PASS_MIN_DAYS 0", "UID_MIN 1000"]
        assert [line for line in settings if line.startswith("PASS_MIN_DAYS")] == ["PASS_MIN_DAYS 1"]
        assert "private" in host.file("/etc/issue").content_string
        assert host.file("/var/lib/pi-commerce/hardening/issue").content_string == "Debian\n"
    finally:
        host.check_output("tar --extract --file /run/molecule.tar --directory / && rm /run/molecule.tar")


def test_unwanted_service_is_switched_off_whenever_it_comes(host: Host, scenario: str) -> None:
    if not scenario.endswith("-alternative"):
        return
    unit = "/usr/lib/systemd/system/molecule-unwanted.service"
    host.check_output(f"printf '[Service]\\nExecStart=sleep 600\\n' > {unit}")
    host.check_output("systemctl daemon-reload && systemctl start molecule-unwanted.service")
    host.check_output("pi-commerce-harden && pi-commerce-harden")
    assert not host.service("molecule-unwanted").is_running
    assert host.service("molecule-unwanted").is_masked
    assert host.file("/var/lib/pi-commerce/hardening/masked").content_string == "molecule-unwanted.service\n"
    host.check_output(f"systemctl unmask molecule-unwanted.service && rm {unit} /var/lib/pi-commerce/hardening/masked")


def test_kernel_line_gets_apparmor_once_and_only_where_it_is_off(host: Host) -> None:
    """Its part of the program, on files of its own."""
    script = host.file("/usr/local/sbin/pi-commerce-harden").content_string
    [part] = [text for text in script.split("\n\n") if "apparmor_at_boot()" in text]
    part = part[part.index("apparmor_at_boot()") :]
    for place in ("/boot/firmware/cmdline.txt", "/sys/module/apparmor/parameters/enabled", "/run/reboot-required"):
        part = part.replace(place, f"/run/molecule/{place.rsplit('/', 1)[1]}")
    run = f"set -eu\nmkdir -p /run/molecule\ncd /run/molecule\n{part}\n"

    def line(before: str, enabled: str = "N") -> str:
        prepare = f"printf '{before}' > cmdline.txt\necho {enabled} > enabled\n"
        return host.check_output("sh -c %s", f"{run}{prepare}apparmor_at_boot\napparmor_at_boot\ncat cmdline.txt")

    try:
        assert line("console=tty1 quiet \\n") == "console=tty1 quiet apparmor=1 security=apparmor"
        assert host.file("/run/molecule/reboot-required.pkgs").content_string == "apparmor\n"
        assert line("quiet\\n", "Y") == "quiet"
        assert line("quiet apparmor=0\\n") == "quiet apparmor=0"
        assert line("quiet\\nsecond line\\n") == "quiet\nsecond line", "this is no kernel line"
    finally:
        host.check_output("rm -rf /run/molecule")
