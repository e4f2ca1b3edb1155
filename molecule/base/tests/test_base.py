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


def test_people_become_root_without_a_password(host: Host, variables: Variables) -> None:
    for user in variables["base_users"]:
        name = user["name"]
        assert host.check_output(f"runuser -u {name} -- sudo -n id -u") == "0"
        assert host.check_output(f"passwd --status {name}").split()[1] == "L", "the password is not locked"
        keys = host.file(f"/home/{name}/.ssh/authorized_keys")
        assert keys.content_string.splitlines() == user["authorized_keys"]
        assert (keys.user, keys.mode) == (name, 0o600)
