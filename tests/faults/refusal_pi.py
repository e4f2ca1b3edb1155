"""The Pis that refusals are shown on: the converged one under test, and a bare one beside it."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

import images
import machine

# Everything a run could touch: files and links (enabled units are links) with their change times, mounts, routes,
# containers, images, volumes. What the machine's own programs note meanwhile is theirs.
SNAPSHOT = r"""
find /boot /etc /home /opt /root /srv /usr/local /var/lib/dpkg/status /var/lib/pi-commerce /var/spool/cron \
  -xdev ! -type d ! -path '/var/lib/pi-commerce/*/state.json' -printf '%p %l %s %C@ %m %u\n' 2>/dev/null | sort
grep -v ' /var/lib/docker\| nsfs ' /proc/mounts
ip route show
if command -v docker >/dev/null; then
  docker ps --all --no-trunc --format '{{.ID}} {{.State}}' | sort
  docker images --no-trunc --quiet | sort
  docker volume ls --quiet
fi
"""


@dataclass(frozen=True)
class Pi:
    """A virtual Pi, looked at through its container, so that a fault of its network or SSH hides nothing."""

    name: str
    network: str
    state: Path

    @property
    def environment(self) -> dict[str, str]:
        """What the tools and the inventory read."""
        return {
            "PI_NAME": self.name,
            "PI_NETWORK": self.network,
            "PI_ADDRESS": f"{self.network}.10",
            "PI_STATE": str(self.state),
            "PI_CACHE": os.environ.get("PI_CACHE", str(Path.home() / ".cache/pi-commerce")),
            "ARCH": images.host_arch(),
            "ANSIBLE_VAULT_PASSWORD_FILE": str(self.state / "vault-password"),
        }

    def virtual(self, verb: str) -> None:
        """Bring it up or down."""
        done = machine.run("python", "molecule/shared/virtual_pi.py", verb, environment=dict(self.environment))
        assert done.status == 0, done.output

    def shell(self, script: str) -> str:
        """Output of a shell script run as root; it must succeed."""
        command = ["docker", "exec", "-i", f"{self.name}-pi", "bash", "-eu", "-s"]
        done = subprocess.run(command, input=script, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, f"{script}\n{done.stdout}{done.stderr}"
        return done.stdout

    def snapshot(self) -> str:
        """All that a run could change, on the Pi and in the vault file on the controller."""
        vault = self.state / "secrets.vault.yml"
        if not vault.exists():
            return self.shell(SNAPSHOT) + "no vault file"
        about = vault.stat()
        digest = hashlib.sha256(vault.read_bytes()).hexdigest()
        return self.shell(SNAPSHOT) + f"vault file {digest} {about.st_mode:o} {about.st_mtime_ns}"


CONVERGED = Pi(machine.ENVIRONMENT["PI_NAME"], machine.NETWORK, machine.STATE)
# The next network, so that nobody has to choose two.
_NEXT = re.sub(r"\d+$", lambda last: str(int(last[0]) + 1), machine.NETWORK)
BARE = Pi(f"{CONVERGED.name}-bare", _NEXT, machine.ROOT / ".virtual-pi-bare")
