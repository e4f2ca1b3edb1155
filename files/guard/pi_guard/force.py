"""Puts settings that were put back into force, and opens the way in whatever else happens."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

# A firewall that was given up for being slow would be an open one: on a Pi with a lot to do a reload takes a minute.
SECONDS = 300
SSH_PATHS = ("/etc/ssh", "/etc/systemd/system/ssh.socket.d")
FIREWALL_PATHS = ("/etc/ufw", "/etc/default/ufw")
WIREGUARD_PATHS = ("/etc/wireguard",)
WIREGUARD = "wg0"
WIREGUARD_UNIT = f"wg-quick@{WIREGUARD}.service"
SSH_SOCKET = "ssh.socket"

Steps = list[dict[str, str]]


class Force:
    """Runs the commands and remembers what came of each."""

    def __init__(self) -> None:
        """Nothing was done yet."""
        self.steps: Steps = []

    def run(self, *command: str) -> bool:
        """Run one; whether it succeeded."""
        try:
            done = subprocess.run(
                command,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                timeout=SECONDS,
                check=False,
            )
            outcome, said = ("done" if done.returncode == 0 else f"exit code {done.returncode}"), done.stdout.strip()
        except (OSError, subprocess.TimeoutExpired) as problem:
            outcome, said = "failed", str(problem)
        self.steps.append({"command": " ".join(command), "outcome": outcome, "said": said})
        return outcome == "done"

    def ssh(self, changed: bool, socket_listened: bool) -> None:
        """The server reads its settings again; where nobody listens for it, it is started."""
        if changed:
            self.run("systemctl", "daemon-reload")
            self.run("sshd", "-t")
        if socket_listened and (changed or not active(SSH_SOCKET)):
            # The socket does not start beside its service, and would start that for whoever knocks meanwhile.
            # Connections that are open outlive both.
            self.run("systemctl", "stop", SSH_SOCKET, "ssh.service")
            self.run("systemctl", "reset-failed", "ssh.service")
            self.run("systemctl", "start", SSH_SOCKET)
        if active(SSH_SOCKET):
            return
        if not active("ssh.service"):
            self.run("systemctl", "reset-failed", "ssh.service")
            self.run("systemctl", "start", "ssh.service")
        elif changed and not self.run("systemctl", "reload", "ssh.service"):
            # Connections that are open outlive it.
            self.run("systemctl", "restart", "ssh.service")

    def firewall(self, whole: bool) -> None:
        """UFW reads its rules again, where all of them are back. One that cannot is switched off.

        An open machine is better than a lost one.
        """
        if whole:
            if "DOCKER-USER" not in content(Path("/etc/ufw/after.rules")):
                for program in ("iptables", "ip6tables"):
                    self.run(program, "-w", "-F", "DOCKER-USER")
            if enabled(Path("/etc/ufw/ufw.conf")) and self.run("ufw", "reload"):
                return
            if self.run("ufw", "--force", "disable"):
                return
        # That one writes nothing: the disk may be full, or not writable any more.
        self.run("/lib/ufw/ufw-init", "force-stop")

    def wireguard(self, ran: bool) -> None:
        """The interface is made anew, or taken away where there was none."""
        if ran:
            self.run("systemctl", "restart", WIREGUARD_UNIT)
        else:
            # Its file is gone, without which the unit could not take it away, with the routes that lead into it.
            self.run("ip", "link", "delete", "dev", WIREGUARD)
            self.run("systemctl", "stop", WIREGUARD_UNIT)
            self.run("systemctl", "reset-failed", WIREGUARD_UNIT)


def spare(address: str) -> list[tuple[str, str]]:
    """Have fail2ban overlook the address; (jail, address) wherever it did not do so before.

    Whoever made the change will knock in vain while the machine is closed, and be banned just when it is open again.
    """
    if not address or not active("fail2ban.service"):
        return []
    force = Force()

    def told(*words: str) -> str:
        force.run("fail2ban-client", *words)
        return force.steps[-1]["said"]

    jails = re.findall(r"[\w-]+", told("status").rpartition("Jail list:")[2])
    new = [jail for jail in jails if address not in told("get", jail, "ignoreip").split()]
    return [(jail, address) for jail in new if force.run("fail2ban-client", "set", jail, "addignoreip", address)]


def spare_no_more(spared: Iterable[Sequence[str]]) -> None:
    """Have fail2ban look at the addresses again; `spared` are pairs as `spare` has told them."""
    for jail, address in spared:
        Force().run("fail2ban-client", "set", jail, "delignoreip", address)


def active(unit: str) -> bool:
    """Whether systemd has the unit running."""
    return subprocess.run(("systemctl", "--quiet", "is-active", unit), check=False).returncode == 0


def content(path: Path) -> str:
    """Text of a file; nothing where it is not there or cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def enabled(configuration: Path) -> bool:
    """Whether UFW is to be on."""
    return bool(re.search(r"(?m)^ENABLED=yes$", content(configuration)))


def below(paths: Iterable[str], places: Iterable[str]) -> bool:
    """Whether one of the paths is one of the places or lies in it."""
    return any(path == place or path.startswith(f"{place}/") for path in paths for place in places)


def put_in_force(paths: Iterable[str], ran: Mapping[str, bool], missing: Iterable[str] = ()) -> Steps:
    """Everything that belongs to the paths; what was done.

    Args:
        paths: what the guard was armed for.
        ran: whether WIREGUARD_UNIT and SSH_SOCKET were active then.
        missing: those of the paths that could not be put back.
    """
    paths = list(paths)
    force = Force()
    if below(paths, FIREWALL_PATHS):
        force.firewall(whole=not below(missing, FIREWALL_PATHS))
    if active("fail2ban.service"):
        # Whoever was kept out by a change would be banned by now, the controller first of all.
        force.run("fail2ban-client", "unban", "--all")
    if below(paths, WIREGUARD_PATHS):
        force.wireguard(ran[WIREGUARD_UNIT])
    force.ssh(below(paths, SSH_PATHS), ran[SSH_SOCKET])
    return [{**step, "said": step["said"][-400:]} for step in force.steps]
