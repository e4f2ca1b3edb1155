"""How a run came in, and what the machine is attached to, as its programs tell it."""

from __future__ import annotations

from pathlib import Path

import network_state
import pytest

ADDRESSES = [
    {"ifname": "lo", "addr_info": [{"local": "127.0.0.1", "prefixlen": 8, "scope": "host"}]},
    {
        "ifname": "eth0",
        "addr_info": [
            {"local": "192.168.7.10", "prefixlen": 24, "scope": "global"},
            {"local": "2001:db8:1::10", "prefixlen": 64, "scope": "global"},
            {"local": "fd12::10", "prefixlen": 64, "scope": "global"},
            {"local": "fe80::10", "prefixlen": 64, "scope": "link"},
        ],
    },
    {"ifname": "wlan0", "addr_info": []},
    *(
        {"ifname": name, "addr_info": [{"local": "172.18.0.1", "prefixlen": 16, "scope": "global"}]}
        for name in ("docker0", "br-0123456789ab", "pi-edge", "wg0", "veth12ab")
    ),
]


def test_attached_is_what_begins_at_the_machines_own_sockets() -> None:
    assert network_state.attached(ADDRESSES) == ["192.168.7.0/24", "fd12::/64"]


def test_who_is_attached_to_a_public_network_has_strangers_there_and_no_neighbours() -> None:
    modem = {"ifname": "eth0", "addr_info": [{"local": "84.1.2.3", "prefixlen": 22, "scope": "global"}]}
    attached = network_state.attached([*ADDRESSES, modem])
    assert "84.1.0.0/22" in attached
    assert network_state.neighbours(attached) == ["192.168.7.0/24", "fd12::/64"]


def test_sshd_tells_its_ports_and_whether_it_takes_passwords() -> None:
    told = "port 22\nport 2222\nusepam yes\npasswordauthentication no\nkbdinteractiveauthentication {}\n"
    assert network_state.sshd(told.format("no")) == {"ports": [22, 2222], "passwords": False}
    assert network_state.sshd(told.format("yes"))["passwords"]
    assert network_state.sshd("") == {"ports": [], "passwords": False}


def process(proc: Path, pid: int, parent: int, environment: str = "") -> None:
    """A process as /proc shows it."""
    (proc / str(pid)).mkdir()
    (proc / str(pid) / "environ").write_bytes(environment.encode())
    (proc / str(pid) / "stat").write_text(f"{pid} (a (strange) name) S {parent} 1 1 0 -1\n")


@pytest.mark.parametrize(
    ("environment", "login"),
    [
        (
            "HOME=/home/pi\0SSH_CONNECTION=192.168.7.9 53412 192.168.7.10 22\0",
            {"client": "192.168.7.9", "home": "/home/pi"},
        ),
        (
            "SSH_CONNECTION=fe80::9%eth0 53412 fe80::10%eth0 2222\0",
            {"client": "fe80::9%eth0", "home": ""},
        ),
        ("A=b\0", {"client": "", "home": ""}),
    ],
)
def test_login_is_found_behind_sudo(tmp_path: Path, environment: str, login: dict[str, object]) -> None:
    process(tmp_path, 1, 0)
    process(tmp_path, 50, 1)
    process(tmp_path, 60, 50, environment)
    process(tmp_path, 70, 60)
    process(tmp_path, 80, 70, "PATH=/bin\0")
    assert network_state.login(str(tmp_path), 80) == login


def test_process_that_ended_meanwhile_is_no_login(tmp_path: Path) -> None:
    assert network_state.login(str(tmp_path), 4711) == {"client": "", "home": ""}


def test_backend_and_rules_in_the_older_tables() -> None:
    assert network_state.backend("iptables v1.8.9 (nf_tables)\n") == "nf_tables"
    assert network_state.backend("iptables v1.8.9 (legacy)\n") == "legacy"
    assert network_state.backend("") == ""
    empty = "*filter\n:INPUT ACCEPT [0:0]\nCOMMIT\n"
    assert not network_state.legacy_tables("", empty)
    assert network_state.legacy_tables(empty, empty.replace("COMMIT", "-A INPUT -s 192.0.2.1 -j DROP\nCOMMIT"))


def test_program_that_is_not_there_says_nothing() -> None:
    assert network_state.output("pi-commerce-no-such-program") == ""
    assert network_state.output("false") == ""
    assert network_state.output("echo", "x") == "x\n"
    assert network_state.complaint("pi-commerce-no-such-program") == network_state.complaint("echo", "x") == ""
    assert network_state.complaint("sh", "-c", "echo line 3: nonsense >&2; exit 255") == "line 3: nonsense"


def test_rules_are_read_from_all_files_or_not_at_all(tmp_path: Path) -> None:
    for name in ("before", "user", "after", "before6", "user6", "after6"):
        assert network_state.rule_files(str(tmp_path)) == {}
        (tmp_path / f"{name}.rules").write_text(f"-A {name}\n")
    assert network_state.rule_files(str(tmp_path)) == {
        family: f"-A before{six}\n-A user{six}\n-A after{six}\n" for family, six in (("ip", ""), ("ip6", "6"))
    }
    assert network_state.firewall_problems({"ip": "", "ip6": ""}, {}) == []


def test_engine_that_bypasses_the_firewall_is_seen() -> None:
    assert not network_state.bypass("-P FORWARD DROP\n-N DOCKER\n-N DOCKER-USER\n-A FORWARD -j DOCKER-USER\n")
    assert network_state.bypass("-P FORWARD DROP\n-N DOCKER-USER\n-A FORWARD -j DOCKER-USER\n")
