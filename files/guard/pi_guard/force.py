"""Puts settings that were put back into force, and opens the way in whatever else happens."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable
from pathlib import Path

# A firewall that was given up for being slow would be an open one: on a Pi with a lot to do a reload takes a minute.
SECONDS = 300
SSH_PATHS = ("/etc/ssh", "/etc/systemd/system/ssh.socket.d")
FIREWALL_PATHS = ("/etc/ufw", "/etc/default/ufw")
WIREGUARD_PATHS = ("/etc/wireguard",)
WIREGUARD_UNIT = "wg-quick@wg0.service"

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
                command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=SECONDS, check=False
            )
            outcome, said = ("done" if done.returncode == 0 else f"exit code {done.returncode}"), done.stdout.strip()
        except (OSError, subprocess.TimeoutExpired) as problem:
            outcome, said = "failed", str(problem)
        self.steps.append({"command": " ".join(command), "outcome": outcome, "said": said[-400:]})
        return outcome == "done"

    def ssh(self, changed: bool) -> None:
        """The server reads its settings again; where it does not run, it is started."""
        if changed:
            self.run("systemctl", "daemon-reload")
            self.run("sshd", "-t")
        if active("ssh.socket"):
            if changed:
                self.run("systemctl", "restart", "ssh.socket")
        elif not active("ssh.service"):
            self.run("systemctl", "reset-failed", "ssh.service")
            self.run("systemctl", "start", "ssh.service")
        elif changed and not self.run("systemctl", "reload", "ssh.service"):
            # Connections that are open outlive it.
            self.run("systemctl", "restart", "ssh.service")

    def firewall(self) -> None:
        """UFW reads its rules again. One that cannot is switched off: an open machine is better than a lost one."""
        rules = Path("/etc/ufw/after.rules")
        if not (rules.exists() and "DOCKER-USER" in rules.read_text(encoding="utf-8")):
            for program in ("iptables", "ip6tables"):
                self.run(program, "-w", "-F", "DOCKER-USER")
        if not (enabled(Path("/etc/ufw/ufw.conf")) and self.run("ufw", "reload")):
            self.run("ufw", "--force", "disable")

    def wireguard(self, ran: bool) -> None:
        """The interface is made anew, or taken away where there was none."""
        self.run("systemctl", "restart" if ran else "stop", WIREGUARD_UNIT)


def spare(address: str) -> None:
    """Have fail2ban overlook the address until it starts again.

    Whoever made the change will knock in vain while the machine is closed, and be banned just when it is open again.
    """
    if address and active("fail2ban.service"):
        force = Force()
        force.run("fail2ban-client", "status")
        jails = re.findall(r"[\w-]+", force.steps[0]["said"].rpartition("Jail list:")[2])
        for jail in jails:
            force.run("fail2ban-client", "set", jail, "addignoreip", address)


def active(unit: str) -> bool:
    """Whether systemd has the unit running."""
    return subprocess.run(("systemctl", "--quiet", "is-active", unit), check=False).returncode == 0


def enabled(configuration: Path) -> bool:
    """Whether UFW is to be on."""
    return configuration.exists() and bool(re.search(r"(?m)^ENABLED=yes$", configuration.read_text(encoding="utf-8")))


def below(paths: Iterable[str], places: Iterable[str]) -> bool:
    """Whether one of the paths is one of the places or lies in it."""
    return any(path == place or path.startswith(f"{place}/") for path in paths for place in places)


def put_in_force(paths: Iterable[str], wireguard_ran: bool) -> Steps:
    """Everything that belongs to the paths; what was done."""
    paths = list(paths)
    force = Force()
    if below(paths, FIREWALL_PATHS):
        force.firewall()
    if active("fail2ban.service"):
        # Whoever was kept out by a change would be banned by now, the controller first of all.
        force.run("fail2ban-client", "unban", "--all")
    if below(paths, WIREGUARD_PATHS):
        force.wireguard(wireguard_ran)
    force.ssh(below(paths, SSH_PATHS))
    return force.steps
