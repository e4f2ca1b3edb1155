"""Who fails too often is kept out of the machine and of its containers, and let in again."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from testinfra.host import Host

# A second host, as the Pi sees it: a network of its own at the other end of a cable.
HERE, THERE = "198.51.100.1", "198.51.100.2"
CABLE = f"""
set -eu
ip netns add pct-stranger
ip link add pct-cable type veth peer name eth0 netns pct-stranger
ip address add {HERE}/24 dev pct-cable
ip link set pct-cable up
ip -n pct-stranger address add {THERE}/24 dev eth0
ip -n pct-stranger link set eth0 up
"""
# Answers as the proxy does, and writes its log as the proxy does.
PROXY = """
import http.server
class Web(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        status = 401 if self.path == "/rest/login" else 404 if "wp-" in self.path else 200
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()
        line = f'{self.client_address[0]} - [2030-01-01T00:00:00+00:00] "{self.command} {self.path}" {status} 0 0.001'
        print(line, flush=True)
    do_POST = do_GET
    def log_message(self, *words):
        pass
http.server.HTTPServer(("", 8000), Web).serve_forever()
"""
ASK = """
import sys, urllib.error, urllib.request
method, url, times = sys.argv[1], sys.argv[2], int(sys.argv[3])
for _ in range(times):
    try:
        urllib.request.urlopen(urllib.request.Request(url, method=method), timeout=3)
    except urllib.error.HTTPError:
        continue
"""

Stranger = Callable[..., int]


@pytest.fixture(scope="module")
def stranger(host: Host, variables: dict[str, Any]) -> Iterator[Stranger]:
    """Runs a command elsewhere; its exit code."""
    host.check_output("bash -c %s", CABLE)
    log = "--log-driver journald --log-opt tag=proxy"
    run = f"docker run --detach --name pi-commerce-proxy-1 --publish 0.0.0.0:8095:8000 {log}"
    host.check_output(run + " %s python3 -c %s", variables["images"]["python"], PROXY)

    def elsewhere(command: str, *words: object) -> int:
        return int(host.run("ip netns exec pct-stranger " + command, *words).rc)

    try:
        deadline = time.monotonic() + 60
        while elsewhere("python3 -c %s GET %s 1", ASK, f"http://{HERE}:8095/"):
            assert time.monotonic() < deadline, "nobody answers there"
            time.sleep(0.3)
        yield elsewhere
    finally:
        host.check_output("docker rm --force pi-commerce-proxy-1")
        host.check_output("ip link delete pct-cable; ip netns delete pct-stranger")


def reaches(stranger: Stranger) -> dict[str, bool]:
    """What the second host gets to: the SSH server, and a port of a container."""
    connect = "timeout 3 bash -c '</dev/tcp/{}/{}'"
    return {name: stranger(connect.format(HERE, port)) == 0 for name, port in (("ssh", 22), ("container", 8095))}


def banned(host: Host, jail: str) -> list[str]:
    """Who is kept out; nobody while fail2ban starts (255)."""
    return host.check_output(f"fail2ban-client get {jail} banip || [ $? = 255 ]").split()


def wait_for_ban(host: Host, jail: str) -> None:
    """fail2ban reads the journal in its own time."""
    deadline = time.monotonic() + 60
    while THERE not in banned(host, jail):
        assert time.monotonic() < deadline, host.run("journalctl -u fail2ban -n 30").stdout
        time.sleep(0.3)


def wait_for(stranger: Stranger, **wanted: bool) -> None:
    """Until the second host gets to what it should; fail2ban names a ban before it has acted."""
    deadline = time.monotonic() + 60
    while (found := reaches(stranger)) != wanted:
        assert time.monotonic() < deadline, found
        time.sleep(0.3)


# The stranger has never met this host, and the machine's host key is not what is looked at here.
OPTIONS = "-o BatchMode=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o ConnectTimeout=3"


def attempts(jail: str, times: int) -> tuple[str, tuple[object, ...]]:
    """What the second host does wrong so often."""
    if jail == "sshd":
        # A ban in the middle of a connection leaves it waiting for ever.
        return "bash -c %s", (f"for i in $(seq {times}); do timeout 10 ssh {OPTIONS} intruder@{HERE} true; done; true",)
    method, path = ("POST", "rest/login") if jail.endswith("login") else ("GET", "wp-admin/")
    return "python3 -c %s %s %s %s", (ASK, method, f"http://{HERE}:8095/{path}", str(times))


@pytest.mark.parametrize("jail", ["sshd", "pi-commerce-login", "pi-commerce-requests"])
def test_second_host_is_banned_everywhere_and_let_in_again(
    host: Host, stranger: Stranger, variables: dict[str, Any], jail: str
) -> None:
    if jail != "sshd" and variables.get("proxy_entrance") == "cloudflare":
        pytest.skip("behind Cloudflare nginx turns visitors away, see below")
    assert reaches(stranger) == {"ssh": True, "container": True}
    retry = variables["fail2ban_max_retry"] * (10 if jail.endswith("requests") else 1)
    command, words = attempts(jail, retry + 2)
    stranger(command, *words)
    wait_for_ban(host, jail)
    wait_for(stranger, ssh=False, container=False)
    host.check_output("systemctl restart docker")
    assert reaches(stranger)["ssh"] is False
    host.check_output(f"fail2ban-client set {jail} unbanip {THERE}")
    host.check_output("docker start pi-commerce-proxy-1")
    wait_for(stranger, ssh=True, container=True)


def test_whoever_is_logged_in_is_not_kept_out(host: Host, stranger: Stranger, variables: dict[str, Any]) -> None:
    """Neither for what fails now nor for what failed before the service was started; afterwards like anybody."""
    key, known = "/run/molecule-key", "/home/pi/.ssh/authorized_keys"
    command, words = attempts("sshd", variables["fail2ban_max_retry"] + 2)
    host.check_output(
        f"ssh-keygen -q -t ed25519 -N '' -f {key} && cp -p {known} {known}-before && cat {key}.pub >> {known}"
    )
    # A session that lasts until it is ended below, or ends itself should the test be killed.
    stranger("bash -c %s", f"ssh -f -n -i {key} {OPTIONS} pi@{HERE} 'exec sleep 301' >/dev/null 2>&1")
    try:
        host.check_output("pgrep -f '^sleep 301'")
        stranger(command, *words)
        # As at its very first start: it remembers how far it has read.
        host.check_output(
            "systemctl stop fail2ban && rm /var/lib/fail2ban/fail2ban.sqlite3 && systemctl start fail2ban"
        )
        ignored = f"grep -c 'sshd. Ignore {THERE} by command' /var/log/fail2ban.log"
        deadline = time.monotonic() + 60
        while int(host.run(ignored).stdout) < 2 * variables["fail2ban_max_retry"]:
            assert time.monotonic() < deadline, host.run("tail -n 30 /var/log/fail2ban.log").stdout
            time.sleep(0.3)
        assert banned(host, "sshd") == []
        assert reaches(stranger)["ssh"] is True
    finally:
        host.check_output("pkill -f '^sleep 301'")
        host.check_output(f"mv {known}-before {known} && rm {key} {key}.pub")
    stranger(command, *words)
    wait_for_ban(host, "sshd")
    host.check_output(f"fail2ban-client set sshd unbanip {THERE}")


# Python in a network of its own, which has IPv6 wherever this runs.
APART = "unshare --net sh -c 'ip link set lo up && exec timeout 30 python3 -c \"$@\"' sh"
# A connection whose server is a process with the given title.
SERVED = """
import socket, subprocess, sys
address, title = sys.argv[1:]
server = socket.create_server((address, 0), family=socket.AF_INET6 if ":" in address else socket.AF_INET)
client = socket.create_connection(server.getsockname()[:2])
end = server.accept()[0]
serving = subprocess.Popen(["bash", "-c", 'exec -a "$0" cat', title], pass_fds=[end.fileno()], stdin=subprocess.PIPE)
while open(f"/proc/{serving.pid}/cmdline").read().split("\\0")[0] != title:
    pass
command = "/etc/fail2ban/filter.d/ignorecommands/pi-commerce-logged-in"
print(subprocess.run([command, address], check=False).returncode)
serving.communicate()
"""


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
@pytest.mark.parametrize(
    ("title", "status"),
    [("sshd-session: pi@notty", 0), ("sshd: pi@pts/0", 0), ("sshd-session: pi [priv]", 1), ("ssh pi@elsewhere", 1)],
)
def test_only_a_session_that_has_proven_itself_spares_its_address(
    host: Host, address: str, title: str, status: int
) -> None:
    assert host.check_output(f"{APART} %s %s %s", SERVED, address, title) == str(status)


def test_a_page_left_open_and_a_webhook_switched_off_ban_nobody(
    host: Host, stranger: Stranger, variables: dict[str, Any]
) -> None:
    many = str(variables["fail2ban_max_retry"] * 10 + 5)
    stranger("python3 -c %s GET %s %s", ASK, f"http://{HERE}:8095/rest/login", many)
    stranger("python3 -c %s POST %s %s", ASK, f"http://{HERE}:8095/webhook/wp-orders", many)
    # What comes after them was read after them.
    stranger("python3 -c %s POST %s 1", ASK, f"http://{HERE}:8095/rest/login")
    deadline = time.monotonic() + 60
    while not host.check_output("fail2ban-client status pi-commerce-login | grep 'Currently failed'").endswith("1"):
        assert time.monotonic() < deadline
        time.sleep(0.3)
    assert [banned(host, jail) for jail in ("pi-commerce-login", "pi-commerce-requests")] == [[], []]


def test_ban_outlives_a_restart_of_the_service(host: Host, stranger: Stranger) -> None:
    host.check_output(f"fail2ban-client set sshd banip {THERE}")
    host.check_output("systemctl restart fail2ban")
    wait_for_ban(host, "sshd")
    wait_for(stranger, ssh=False, container=False)
    host.check_output(f"fail2ban-client set sshd unbanip {THERE}")


def test_loopback_and_declared_addresses_are_never_banned(host: Host, variables: dict[str, Any]) -> None:
    ignored = host.check_output("fail2ban-client get sshd ignoreip")
    for network in ("127.0.0.0/8", "::1", *variables["fail2ban_ignore"]):
        assert network in ignored


def test_durations_are_as_declared(host: Host, variables: dict[str, Any]) -> None:
    assert host.check_output("fail2ban-client get sshd bantime") == str(variables["fail2ban_ban_minutes"] * 60)
    assert host.check_output("fail2ban-client get sshd findtime") == str(variables["fail2ban_find_minutes"] * 60)
    assert host.check_output("fail2ban-client get sshd maxretry") == str(variables["fail2ban_max_retry"])


NGINX = """
events {}
pid /tmp/nginx.pid;
http {
  log_format main '$remote_addr - [$time_iso8601] "$request_method $uri" $status $body_bytes_sent $request_time';
  access_log /dev/stdout main;
  client_body_temp_path /tmp/a;
  proxy_temp_path /tmp/b;
  fastcgi_temp_path /tmp/c;
  uwsgi_temp_path /tmp/d;
  scgi_temp_path /tmp/e;
  set_real_ip_from 198.51.100.0/24;
  real_ip_header CF-Connecting-IP;
  map $remote_addr $banned { default 0; include /etc/pi-commerce/bans/pi-commerce-login*.conf; }
  server {
    listen 8000;
    if ($banned) { return 403; }
    location / { return 200; }
    location /rest/login { return 401; }
  }
}
"""
VISIT = """
import sys, urllib.error, urllib.request
request = urllib.request.Request(sys.argv[1], method=sys.argv[2], headers={"CF-Connecting-IP": sys.argv[3]})
try:
    print(urllib.request.urlopen(request, timeout=3).status)
except urllib.error.HTTPError as refused:
    print(refused.code)
"""


def test_behind_cloudflare_nginx_turns_the_visitor_away_and_nobody_else(
    host: Host, stranger: Stranger, variables: dict[str, Any]
) -> None:
    if variables.get("proxy_entrance") != "cloudflare":
        pytest.skip("this entrance sees its visitors' packets")
    host.check_output("docker rm --force pi-commerce-proxy-1")
    host.check_output(
        "mkdir -p /etc/pi-commerce/proxy && cat > /etc/pi-commerce/proxy/nginx.conf <<'E'\n" + NGINX + "\nE"
    )
    options = "--log-driver journald --log-opt tag=proxy --tmpfs /tmp:mode=1777 --user 101:101"
    mount = "--volume /etc/pi-commerce/proxy:/etc/pi-commerce:ro --publish 0.0.0.0:8095:8000"
    host.check_output(
        f"docker run --detach --name pi-commerce-proxy-1 {options} {mount} {variables['images']['proxy']} "
        "nginx -c /etc/pi-commerce/nginx.conf -g 'daemon off;'"
    )

    def visit(visitor: str, path: str = "", method: str = "GET") -> str:
        command = "ip netns exec pct-stranger python3 -c %s %s %s %s"
        return host.run(command, VISIT, f"http://{HERE}:8095/{path}", method, visitor).stdout.strip()

    deadline = time.monotonic() + 60
    while visit("203.0.113.9") != "200":
        assert time.monotonic() < deadline, host.run("docker logs pi-commerce-proxy-1").stderr
        time.sleep(0.3)
    for _ in range(variables["fail2ban_max_retry"] + 1):
        assert visit("203.0.113.9", "rest/login", "POST") == "401"
    deadline = time.monotonic() + 60
    while visit("203.0.113.9") != "403":
        assert time.monotonic() < deadline, host.run("journalctl -u fail2ban -n 30").stdout
        time.sleep(0.3)
    assert visit("203.0.113.10") == "200"
    assert reaches(stranger) == {"ssh": True, "container": True}
    host.check_output("fail2ban-client set pi-commerce-login unbanip 203.0.113.9")
    deadline = time.monotonic() + 60
    while visit("203.0.113.9") != "200":
        assert time.monotonic() < deadline
        time.sleep(0.3)
    host.check_output("rm /etc/pi-commerce/proxy/nginx.conf")
