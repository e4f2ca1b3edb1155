"""The audit's script asks what it should, and its judgement is right."""

from __future__ import annotations

import json
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import config_txt
import gather
import network_state
import pytest
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar
from ansible_connector import connection
from audit_samples import CATALOG, CONTAINER, certificate
from checks import make
from checks.base import Check
from checks.files import Files
from checks.health import Backup, Certificates, Disk, Heat, Messages, Volumes
from checks.host import Clock, Firmware, Identity, Kernel, Packages, People, Units, Watchdog
from checks.network import Firewall
from checks.services import Containers, Memory
from declared import CannotRead, Step
from gather import Answer
from report import Finding, Row, exit_code, table, worst

NOW = datetime(2026, 1, 31, tzinfo=UTC).timestamp()


def step(action: str, **arguments: Any) -> Step:
    """A task of the plays."""
    known = {
        "catalog_data": CATALOG,
        "hardware_root": "/",
        "backup_folder": "/backup",
        "notify_outbox_messages": 10,
        "notify_targets": {"phone": {}},
        "_verify_url": "https://shop",
        "_verify_outside": True,
        "_verify_signed": False,
    }
    return Step(action, arguments, "roles/sample/tasks/main.yml:1", Templar(DataLoader(), known))


COMPOSE = step("compose_up", project_name="shop", project_src="/compose", files=["web.yml"])
TREE = step(
    "file_tree",
    root="/etc/shop",
    root_mode="0700",
    purge=["."],
    directories=[{"path": "tls", "mode": "0750"}],
    files=[{"path": "a", "content": "a\n"}, {"path": "s", "secret_content": "x", "mode": "0400", "owner": "999"}],
)
WATCHDOG = step(
    "file_tree",
    root="/etc/systemd/system.conf.d",
    files=[{"path": "90.conf", "content": "[Manager]\nRuntimeWatchdogSec=60\n"}],
)
SHA_A = "87428fc522803d31065e7bce3cf03fe475096631e5e07bbd7a0fde60c4cf25c7"
SHA_X = "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"
FINE = f"""directory|755|0|root|0|root|/
directory|700|0|root|0|root|/etc/shop
directory|750|0|root|0|root|/etc/shop/tls
regular file|644|0|root|0|root|/etc/shop/a
regular file|400|999|UNKNOWN|0|root|/etc/shop/s
{SHA_A}  /etc/shop/a
{SHA_X}  /etc/shop/s
swept|/etc/shop/a
swept|/etc/shop/s"""


def judged(check: Check, output: str) -> list[tuple[str, str]]:
    """Level and text of each finding."""
    return [(finding.level, finding.text) for finding in check.judge(Answer(0, output))]


def test_files_as_declared() -> None:
    assert judged(Files([TREE]), FINE) == []


@pytest.mark.parametrize(
    ("before", "after", "text"),
    [
        (SHA_A, "0" * 64, "drift /etc/shop/a: has other content"),
        (SHA_X, "0" * 64, "drift /etc/shop/s: has other content"),
        ("|644|", "|666|", "drift /etc/shop/a: has mode 0666 instead of 0644"),
        ("|700|", "|755|", "drift /etc/shop: has mode 0755 instead of 0700"),
        ("400|999|UNKNOWN", "400|1000|pi", "drift /etc/shop/s: has owner pi instead of 999"),
        ("regular file|644|0|root|0|root|/etc/shop/a\n", "", "drift /etc/shop/a: is missing"),
        ("regular file|644", "symbolic link|644", "drift /etc/shop/a: is a symbolic link, not a regular file"),
        ("swept|/etc/shop/a", "swept|/etc/shop/tls/b", "drift /etc/shop/tls/b: does not belong there"),
        (f"{SHA_A}  /etc/shop/a\n", "", "unknown /etc/shop/a: its content could not be read"),
        ("directory|755|0|root|0|root|/\n", "", "unknown stat does not tell about /"),
    ],
)
def test_file_drift(before: str, after: str, text: str) -> None:
    assert before in FINE
    assert [" ".join(pair) for pair in judged(Files([TREE]), FINE.replace(before, after))] == [text]


@pytest.mark.parametrize(
    ("check", "fine", "drifted", "text"),
    [
        (
            Identity([step("ansible.builtin.hostname", name="shop-pi")]),
            "running|shop-pi\nlasting|shop-pi",
            "running|shop-pi\nlasting|other",
            "the lasting host name is other instead of shop-pi",
        ),
        (
            Identity([step("ansible.builtin.file", state="link", dest="/l", src="/there")]),
            "running|x\nlasting|x\nlink|/l|/there",
            "running|x\nlasting|x\nlink|/l|",
            "/l: leads to nothing instead of /there",
        ),
        (
            Identity([step("ansible.builtin.lineinfile", path="/etc/hosts", line="127.0.1.1 shop-pi")]),
            "running|x\nlasting|x\nline|/etc/hosts|127.0.1.1 shop-pi",
            "running|x\nlasting|x\nline|/etc/hosts|127.0.1.1 shop-pi2",
            "/etc/hosts: lacks the line '127.0.1.1 shop-pi'",
        ),
        (
            Packages([step("apt_packages", names=["cron"])]),
            "dpkg installed\ncron installed",
            "dpkg installed\ncron config-files",
            "cron: is not installed",
        ),
        (
            Packages([step("apt_packages", names=["telnetd"], state="absent")]),
            "dpkg installed\ntelnetd missing",
            "dpkg installed\ntelnetd installed",
            "telnetd: is installed, which it should not be",
        ),
        (
            Units([step("ansible.builtin.systemd_service", name="ssh", enabled=True, state="started")]),
            "ssh ActiveState=active UnitFileState=enabled",
            "ssh ActiveState=inactive UnitFileState=enabled",
            "ssh: does not run",
        ),
        (
            Units([step("ansible.builtin.systemd_service", name="ssh", enabled=True)]),
            "ssh ActiveState=active UnitFileState=enabled",
            "ssh ActiveState=active UnitFileState=disabled",
            "ssh: is not enabled",
        ),
        (
            Kernel([step("file_tree", root="/etc", files=[{"path": "sysctl.d/9.conf", "content": "a.b = 1 2\n"}])]),
            "/proc/sys/a/b 1\t2",
            "/proc/sys/a/b 1\t3",
            "a.b: is 1\t3 instead of 1 2",
        ),
        (
            Firmware([step("config_txt_block", root="/board", settings=["dtoverlay=gpio-fan"])]),
            f"arm_boost=1\n{config_txt.BEGIN}\n[all]\ndtoverlay=gpio-fan\n{config_txt.END}\n",
            f"arm_boost=1\n{config_txt.BEGIN}\n[all]\ndtoverlay=dwc2\n{config_txt.END}\n",
            "config.txt: its block of pi-commerce is other than written",
        ),
        (
            Watchdog([WATCHDOG]),
            "1min\nactive\n60\nBroadcom BCM2835 Watchdog timer",
            "14s\nactive\n60\nBroadcom BCM2835 Watchdog timer",
            "systemd feeds it every 14s instead of 60 s",
        ),
        (
            People([step("ansible.builtin.user", **{"name": "ann", "shell": "/bin/bash", "groups": ["sudo"]})]),
            "account|ann|/bin/bash|ann sudo",
            "account|ann|/bin/bash|ann",
            "ann: is not in group sudo",
        ),
        (
            People([step("ansible.posix.authorized_key", user="ann", key="ssh-ed25519 AAA ann@home")]),
            "key|ann|ssh-ed25519 AAA",
            "key|ann|ssh-ed25519 AAA\nkey|ann|ssh-ed25519 BBB thief",
            "ann: has 1 SSH keys that are not declared",
        ),
    ],
)
def test_host_drift(check: Check, fine: str, drifted: str, text: str) -> None:
    assert judged(check, fine) == []
    assert judged(check, drifted) == [("drift", text)]
    assert check.summary(Answer(0, fine))


@pytest.mark.parametrize(
    ("before", "after", "finding"),
    [
        ('"status": "running"', '"status": "exited"', ("drift", "web: is exited (exit code 0)")),
        ('"healthy"', '"unhealthy"', ("failing", "web: is unhealthy")),
        ('"healthy"', '"starting"', ("warning", "web: is starting")),
        ('"killed": false', '"killed": true', ("warning", "web: was ended for want of memory")),
        ("web:1", "web:2", ("drift", "web: runs web:2 instead of web:1")),
        ('"hash": "h1"', '"hash": "h0"', ("drift", "web: was not made from the Compose files as they are now")),
        (
            '"HostPort": "443"',
            '"HostPort": "443"}, {"HostIp": "", "HostPort": "6379"',
            ("drift", "web: port 6379 on 0.0.0.0 leads to 8443/tcp, which the catalog does not declare"),
        ),
        (
            '{"HostIp": "0.0.0.0", "HostPort": "443"}',
            "",
            ("drift", "web: port 443 on 0.0.0.0 should lead to 8443/tcp and does not"),
        ),
        ('"service": "web"', '"service": "old"', ("drift", "web: has no container")),
    ],
)
def test_container_drift(before: str, after: str, finding: tuple[str, str]) -> None:
    check = Containers([COMPOSE])
    assert judged(check, f"{CONTAINER}\nhash web h1") == []
    assert before in CONTAINER
    assert finding in judged(check, f"{CONTAINER.replace(before, after)}\nhash web h1")


def test_container_that_nobody_declared() -> None:
    other = CONTAINER.replace('"service": "web"', '"service": "miner"').replace("/shop-web-1", "/shop-miner-1")
    found = judged(Containers([COMPOSE]), f"{CONTAINER}\n{other}")
    assert found == [("drift", "miner: container shop-miner-1 is not in the catalog")]


@pytest.mark.parametrize(
    ("used", "available", "levels"),
    [(100, 2000, []), (120, 2000, ["warning"]), (127, 2000, ["failing"]), (100, 300, ["warning"])],
)
def test_memory(used: int, available: int, levels: list[str]) -> None:
    output = f"web {used << 20} {128 << 20}\nhost Total {4000 << 10} kB\nhost Available {available << 10} kB"
    assert [level for level, _ in judged(Memory([COMPOSE]), output)] == levels
    assert f"web {used} of 128 MiB" in Memory([COMPOSE]).summary(Answer(0, output))


@pytest.mark.parametrize(
    ("days", "levels"), [(400, []), (31, []), (29, ["warning"]), (7, ["warning"]), (6, ["failing"]), (-3, ["failing"])]
)
def test_certificate_ages(days: int, levels: list[str]) -> None:
    pem = certificate(datetime.fromtimestamp(NOW, UTC) + timedelta(days=days, minutes=5))
    check = Certificates([TREE], NOW)
    assert [level for level, _ in judged(check, f"file|/etc/shop/tls/cert.pem\n{pem}")] == levels
    assert check.ends(Answer(0, f"file|/a.pem\n{pem}")) == {"/a.pem": days}


def test_entrance_without_a_certificate_fails() -> None:
    assert [level for level, _ in judged(Certificates([TREE], NOW), "")] == ["failing"]


@pytest.mark.parametrize(
    ("due", "ship", "nightly", "levels"),
    [
        (1, None, None, []),
        (30, None, None, ["warning"]),
        (30 * 60, None, None, ["failing", "warning"]),
        (51 * 60, None, None, ["failing", "failing"]),
        (99 * 60, 5, 20 * 60, []),
        (99 * 60, 16, 20 * 60, ["warning"]),
        (99 * 60, 61, 27 * 60, ["failing", "warning"]),
        (99 * 60, 5, 51 * 60, ["failing"]),
    ],
)
def test_backup_ages(due: int, ship: int | None, nightly: int | None, levels: list[str]) -> None:
    """All in minutes."""
    ages = {"ship": ship, "nightly": nightly}
    jobs = {job: {"succeeded": NOW - age * 60, "problems": []} for job, age in ages.items() if age is not None}
    output = f"{NOW:.0f}\n{NOW - due * 60:.0f}\n" + (json.dumps({"jobs": jobs}) if jobs else "")
    assert [level for level, _ in judged(Backup([COMPOSE]), output)] == levels


def test_backup_that_had_problems_or_was_cut_off_says_so() -> None:
    fine = {"succeeded": NOW, "problems": []}
    status = {"jobs": {"ship": {**fine, "problems": ["far is away"]}, "nightly": fine}, "unfinished": {"name": "x"}}
    found = judged(Backup([COMPOSE]), f"{NOW:.0f}\n{NOW:.0f}\n{json.dumps(status)}")
    assert [level for level, _ in found] == ["warning", "failing"]
    assert "far is away" in found[0][1]
    assert "cut off" in found[1][1]


@pytest.mark.parametrize(
    ("minutes", "levels"),
    [([], []), ([59, 1], []), ([61], ["warning"]), ([25 * 60, 1], ["failing"]), ([1] * 9, ["warning"])],
)
def test_messages_that_wait(minutes: list[int], levels: list[str]) -> None:
    names = [f"{int((NOW - age * 60) * 1e6):017d}-0000000{number}.json" for number, age in enumerate(minutes)]
    state = {"targets": {"phone": {"error": "answered 401"}, "mail": {"error": ""}}}
    output = "\n".join([f"{NOW:.0f}", *names, "note-full.json", json.dumps(state, indent=1)])
    found = judged(Messages([COMPOSE]), output)
    assert [level for level, _ in found] == levels
    assert all(text.endswith("; phone: answered 401") for _, text in found)
    assert judged(Messages([COMPOSE]), f"{NOW:.0f}") == []


@pytest.mark.parametrize(
    ("line", "levels"),
    [
        (" 40%   5% 9000000 /dev/a /", []),
        (" 90%   5% 9000000 /dev/a /", ["warning"]),
        (" 96%   5% 9000000 /dev/a /", ["failing"]),
        (" 40%  99% 9000000 /dev/a /", ["failing"]),
        (" 96%    - 9000000 /dev/a /with a space", ["failing"]),
    ],
)
def test_disks(line: str, levels: list[str]) -> None:
    assert [level for level, _ in judged(Disk([COMPOSE]), f"{line}\n{line}")] == levels


STORAGE = step(
    "storage_volumes",
    layout=[{"name": "cache", "path": "/var/lib/docker", "binds": ["/var/lib/containerd"]}, {"name": "free"}],
)


@pytest.mark.parametrize(
    ("output", "findings"),
    [
        ("/var/lib/docker rw,noatime\n/var/lib/containerd rw", []),
        ("/var/lib/docker \n/var/lib/containerd rw", ["failing /var/lib/docker: nothing is mounted"]),
        ("/var/lib/docker rw\n/var/lib/containerd ro,noatime", ["failing /var/lib/containerd: is read-only"]),
    ],
)
def test_volumes(output: str, findings: list[str]) -> None:
    assert [" ".join(pair) for pair in judged(Volumes([STORAGE]), output)] == findings


def test_machine_without_a_disk_for_its_data_is_asked_nothing() -> None:
    assert Volumes([COMPOSE]).question() == ""


@pytest.mark.parametrize(
    ("output", "findings"),
    [
        ("48199\n0", []),
        ("70500\n0", ["warning 70.5 degrees Celsius"]),
        ("82000\n0", ["failing 82.0 degrees Celsius"]),
        ("48199\n4", ["failing throttled"]),
        ("48199\n10000", ["warning too little voltage at some time since it was started"]),
        ("48199\n", ["unknown throttling cannot be read"]),
        ("\n0", ["unknown temperature cannot be read"]),
        ("48199\n0\nactive", []),
        ("48199\n0\nfailed", ["failing pi-commerce-thermal is failed: nobody would be told"]),
    ],
)
def test_heat(output: str, findings: list[str]) -> None:
    assert [" ".join(pair) for pair in judged(Heat([COMPOSE]), output)] == findings


def test_heat_is_asked_of_the_firmware_first_and_of_the_kernel_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check = Heat([COMPOSE])
    monkeypatch.setattr(check, "value", lambda name: f"{tmp_path}/")

    def asked() -> tuple[float | None, int | None]:
        return check.read(
            Answer(0, subprocess.run(["sh", "-c", check.question()], stdout=subprocess.PIPE, text=True).stdout)
        )

    assert asked() == (None, None)
    for path, text in (
        ("sys/class/thermal/thermal_zone0/temp", "48199\n"),
        ("sys/devices/platform/soc@1/soc@1:firmware/get_throttled", "4\n"),
        ("usr/bin/vcgencmd", "#!/bin/sh\necho throttled=0x50005\n"),
    ):
        (tmp_path / path).parent.mkdir(parents=True)
        (tmp_path / path).write_text(text)
    assert asked() == (48.199, 4)
    (tmp_path / "usr/bin/vcgencmd").chmod(0o755)
    assert asked() == (48.199, 0x50005)


@pytest.mark.parametrize(
    ("output", "level", "text"),
    [
        ("1min\ninactive\n15\nBroadcom", "failing", "watchdog0 is inactive: a machine that hangs"),
        ("1min\n\n\n", "failing", "watchdog0 is not there, or its driver is not loaded"),
        ("1min\nactive\n15\nBroadcom", "warning", "the hardware waits for 15 s instead of 60"),
    ],
)
def test_watchdog_that_is_none_is_noticed(output: str, level: str, text: str) -> None:
    """systemd goes on without one where the driver refuses what it is told, and says so nowhere."""
    [(found, said)] = judged(Watchdog([WATCHDOG]), output)
    assert (found, text in said) == (level, True)


def test_without_a_watchdog_and_a_fan_nothing_is_asked() -> None:
    assert (Watchdog([TREE]).question(), Firmware([TREE]).question()) == ("", "")
    assert judged(Watchdog([TREE]), "") == judged(Firmware([TREE]), "") == []
    broken = judged(Firmware([step("config_txt_block", root="/", settings=["x"])]), config_txt.BEGIN)
    assert [level for level, _ in broken] == ["failing"]


def test_clock() -> None:
    assert judged(Clock([], NOW), f"{NOW:.0f}") == []
    assert judged(Clock([], NOW), f"{NOW - 86400:.0f}") == [("failing", "86400 s behind the controller's")]


def test_task_that_no_check_understands_is_refused() -> None:
    with pytest.raises(CannotRead, match=r"roles/sample/tasks/main.yml:1: .* ansible.builtin.copy; .*ops/checks"):
        make([COMPOSE, step("ansible.builtin.copy", dest="/etc/motd")])


def test_every_question_is_shell() -> None:
    for check in make([COMPOSE, TREE]):
        subprocess.run(["sh", "-n"], input=check.question(), text=True, check=True, timeout=10)


def ask(questions: dict[str, str]) -> dict[str, Answer]:
    """Answers of this machine's own shell."""
    done = subprocess.run(
        ["sh", "-c", gather.script(questions, "m4rk")], capture_output=True, text=True, check=True, timeout=30
    )
    return gather.answers(done.stdout.splitlines(), "m4rk")


def test_answers_are_kept_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gather, "QUESTION_SECONDS", 1)
    assert ask(
        {
            "lines": 'echo "it\'s"; echo two; printf three',
            "fails": "echo part; echo first >&2; echo 'no such thing' >&2; exit 3",
            "hangs": "tail -f /dev/null",
            "eats": "cat",
            "last": "true",
        }
    ) == {
        "lines": Answer(0, "it's\ntwo\nthree"),
        "fails": Answer(3, "part", "no such thing"),
        "hangs": Answer(124, ""),
        "eats": Answer(0, ""),
        "last": Answer(0, ""),
    }


def test_answer_that_was_cut_short_is_none() -> None:
    assert gather.answers(["m begin a", "x", "m end a 0 ", "m begin b", "y"], "m") == {"a": Answer(0, "x")}


def rows(*levels: str) -> list[Row]:
    """A row for each level."""
    return [Row(f"check {level}", "well", [Finding(level, "text")] if level != "ok" else []) for level in levels]


@pytest.mark.parametrize(
    ("levels", "code"),
    [
        (("ok",), 0),
        (("ok", "warning"), 0),
        (("ok", "unknown"), 2),
        (("unknown", "drift"), 1),
        (("ok", "failing"), 1),
        ((), 2),
    ],
)
def test_exit_code(levels: tuple[str, ...], code: int) -> None:
    assert exit_code(rows(*levels)) == code


def test_worst_machine_counts() -> None:
    assert [worst([0, 2]), worst([0, 2, 1]), worst([0]), worst([])] == [2, 1, 0, 2]


def test_table_tells_what_is_wrong_and_the_remedy() -> None:
    files = Row("files", "", [Finding("drift", "a: is missing"), Finding("drift", "b: is missing")])
    disk = Row("disk", "", [Finding("warning", "/: 90 % full", "make room")])
    assert table([Row("clock", "right"), files, disk], "converge").splitlines() == [
        "check  verdict  what",
        "clock  ok       right",
        "files  drift    a: is missing",
        "                b: is missing",
        "                -> converge",
        "disk   warning  /: 90 % full",
        "                -> make room",
    ]


def test_connection_of_an_inventory_host() -> None:
    variables = {
        "ansible_host": "192.0.2.1",
        "ansible_port": 2222,
        "ansible_user": "pi",
        "ansible_ssh_private_key_file": "/k",
        "ansible_ssh_common_args": '-o IdentitiesOnly=yes -o UserKnownHostsFile="/a b/known"',
        "ansible_ssh_extra_args": "-o StrictHostKeyChecking=yes",
    }
    assert connection(variables) == {
        "ssh_hostname": "192.0.2.1",
        "ssh_port": 2222,
        "ssh_user": "pi",
        "ssh_key": "/k",
        "ssh_known_hosts_file": "/a b/known",
        "ssh_strict_host_key_checking": "yes",
    }


@pytest.mark.parametrize("arguments", ["-o ProxyJump=elsewhere", "-J elsewhere", "-v"])
def test_ssh_option_that_pyinfra_cannot_honour_is_refused(arguments: str) -> None:
    with pytest.raises(CannotRead, match=r"ansible_ssh_common_args: .*~/.ssh/config"):
        connection({"ansible_ssh_common_args": arguments})


RULES = step(
    "file_tree",
    root="/etc",
    files=[
        {"path": f"ufw/user{six}.rules", "content": f"-A ufw{six}-user-input -p tcp --dport 22 -j ACCEPT\n"}
        for six in ("", "6")
    ]
    + [
        {"path": f"ufw/after{six}.rules", "content": "-A DOCKER-USER -i docker0 -j RETURN\n-A DOCKER-USER -j DROP\n"}
        for six in ("", "6")
    ]
    + [
        {"path": f"ufw/before{six}.rules", "content": f"-A ufw{six}-before-input -i lo -j ACCEPT\n"}
        for six in ("", "6")
    ],
)
IN_FORCE = "".join(
    f"{family}|-P INPUT DROP\n{family}|-P FORWARD DROP\n{family}|-A ufw{six}-user-input -p tcp --dport 22 -j ACCEPT\n"
    f"{family}|-A INPUT -j ufw{six}-before-logging-input\n{family}|-A ufw{six}-before-input -i lo -j ACCEPT\n"
    f"{family}|-A ufw{six}-before-input -j ufw{six}-user-input\n"
    f"{family}|-A PREROUTING -d {network_state.LOOPBACK[family]} ! -i lo -j DROP\n{family}|-A FORWARD -j DOCKER-USER\n"
    f"{family}|-A DOCKER-USER -i docker0 -j RETURN\n{family}|-A DOCKER-USER -j DROP\n"
    for family, six in (("ip", ""), ("ip6", "6"))
)


def test_firewall_as_declared() -> None:
    assert judged(Firewall([RULES]), IN_FORCE) == []
    older = IN_FORCE.replace("ip|-A DOCKER-USER -j DROP\n", "ip|-A DOCKER-USER -j DROP\nip|-A DOCKER-USER -j RETURN\n")
    assert judged(Firewall([RULES]), older) == []
    isolated = IN_FORCE.replace("ip|-A FORWARD", "ip|-A FORWARD -j DOCKER-ISOLATION-STAGE-1\nip|-A FORWARD", 1)
    assert judged(Firewall([RULES]), isolated) == []
    assert Firewall([]).question() == ""


@pytest.mark.parametrize(
    ("before", "after", "text"),
    [
        ("ip|-P INPUT DROP", "ip|-P INPUT ACCEPT", "iptables: lacks the policy -P INPUT DROP"),
        ("ip6|-P FORWARD DROP", "ip6|-P FORWARD ACCEPT", "ip6tables: lacks the policy -P FORWARD DROP"),
        ("ip|-A DOCKER-USER -j DROP\n", "", "iptables: chain DOCKER-USER has other rules than UFW's files"),
        ("ip|-A DOCKER-USER -i", "ip|-A DOCKER-USER -j RETURN\nip|-A DOCKER-USER -i", "iptables: chain DOCKER-USER"),
        (
            "ip|-A FORWARD",
            "ip|-A FORWARD -j ACCEPT\nip|-A FORWARD",
            "iptables: other rules of FORWARD are asked before",
        ),
        ("ip6|-A FORWARD -j DOCKER-USER\n", "", "ip6tables: other rules of FORWARD are asked before"),
        ("ip|-A INPUT", "ip|-A INPUT -j ACCEPT\nip|-A INPUT", "iptables: other rules of INPUT are asked before UFW's"),
        ("ip6|-A PREROUTING", "ip6|-A ELSEWHERE", "ip6tables: lets packets from outside in to ::1/128"),
        ("ip|-A ufw-before-input", "ip|-A ufw-elsewhere", "iptables: chain ufw-before-input"),
        ("ip6|-A ufw6-user-input", "ip6|-A ufw6-elsewhere", "ip6tables: chain ufw6-user-input"),
    ],
)
def test_firewall_that_is_not_as_declared(before: str, after: str, text: str) -> None:
    found = judged(Firewall([RULES]), IN_FORCE.replace(before, after, 1))
    assert len(found) == 1
    assert found[0][0] == "drift"
    assert text in found[0][1]
