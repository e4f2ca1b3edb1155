"""An SSH server that lets in who has a key, and tells everybody else nothing."""

from __future__ import annotations

import subprocess
from typing import Any

from testinfra.host import Host


def settings(host: Host) -> dict[str, str]:
    """What the server has in force, by lower-case name."""
    return dict(line.split(" ", 1) for line in host.check_output("sshd -T").splitlines() if " " in line)


def test_settings_are_in_force(host: Host, variables: dict[str, Any]) -> None:
    found = settings(host)
    assert found["permitrootlogin"] == "no"
    assert found["permitemptypasswords"] == "no"
    assert found["x11forwarding"] == "no"
    assert found["maxauthtries"] == str(variables["ssh_max_auth_tries"])
    tunnels = "yes" if variables["ssh_forwarding"] else "no"
    assert (found["allowtcpforwarding"], found["allowstreamlocalforwarding"]) == (tunnels, tunnels)
    assert found["passwordauthentication"] == ("yes" if variables["ssh_password_login"] else "no")
    assert found["kbdinteractiveauthentication"] == "no"


def test_server_offers_what_it_takes(host: Host, variables: dict[str, Any]) -> None:
    config = host.backend.ssh_config
    options = ("-o", "ControlPath=none", "-o", "BatchMode=yes", "-o", "PreferredAuthentications=none")
    refused = subprocess.run(
        ["ssh", "-F", config, *options, "shop-pi", "true"], capture_output=True, text=True, timeout=30, check=False
    )
    offered = "publickey,password" if variables["ssh_password_login"] else "publickey"
    assert f"Permission denied ({offered})" in refused.stderr


def test_change_was_proven_and_nothing_is_armed(host: Host) -> None:
    assert '"armed": false' in host.check_output("pi-commerce-guard status")
    assert host.file("/var/lib/pi-commerce/guard/proven").exists


def test_root_is_refused_even_with_a_key(host: Host) -> None:
    # The key of the user pi becomes root's for a moment, in a home that leaves no trace: the server has to say no.
    host.check_output("mount -t tmpfs -o mode=0700 tmpfs /root")
    try:
        host.check_output("install -D -m 0600 /home/pi/.ssh/authorized_keys /root/.ssh/authorized_keys")
        config = host.backend.ssh_config
        refused = subprocess.run(
            ["ssh", "-F", config, "-o", "ControlPath=none", "-o", "BatchMode=yes", "root@shop-pi", "true"],
            capture_output=True, text=True, timeout=30, check=False,
        )  # fmt: skip
    finally:
        host.check_output("umount /root")
    assert refused.returncode == 255
    assert "Permission denied" in refused.stderr


def test_socket_would_listen_where_the_server_does(host: Host) -> None:
    """Whoever enables it does not move the machine to another port."""
    ports = {line.split()[1] for line in host.check_output("sshd -T").splitlines() if line.startswith("port ")}
    shown = host.check_output("systemctl cat ssh.socket").splitlines()
    # An empty one takes back what stands before it.
    last = len(shown) - shown[::-1].index("ListenStream=")
    assert {line.partition("=")[2] for line in shown[last:] if line.startswith("ListenStream=")} == ports
