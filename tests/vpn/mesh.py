"""Two virtual Pis in one network, in one inventory, and a device that belongs to neither."""

from __future__ import annotations

import io
import os
import sys
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
import machine
import yaml
from docker.models.containers import Container

ROOT = machine.ROOT
STATE = ROOT / os.environ.get("PI_TEST_STATE", ".virtual-pi-vpn")
NAME = os.environ.get("PI_TEST_NAME", "pi-commerce-vpn")
NETWORKS = (os.environ.get("PI_TEST_NETWORK", "10.220.0"), os.environ.get("PI_TEST_SECOND_NETWORK", "10.221.0"))
LABELS = {"pi-commerce.test": "vpn"}


@dataclass(frozen=True)
class Pi:
    """One of the two: its name in the inventory, what belongs to it here, and its address in the network of both."""

    name: str
    container: str
    state: Path
    network: str
    shared: str

    def environment(self) -> dict[str, str | None]:
        """What molecule/shared/virtual_pi.py reads."""
        return {"PI_STATE": str(self.state), "PI_NAME": self.container, "PI_NETWORK": self.network}

    def manage(self, verb: str) -> str:
        """`up`, `down`, `lose`, `registry`; what that prints."""
        done = machine.run(sys.executable, "molecule/shared/virtual_pi.py", verb, environment=self.environment())
        assert done.status == 0, done.output[-3000:]
        return done.output.strip()

    def shell(self, command: str, check: bool = True) -> str:
        """Output of a command on it, as root."""
        done = machine.run(*machine.ssh("sudo bash -s", self.state, f"{self.network}.10"), stdin=command, apart=True)
        assert not check or done.status == 0, f"{command}: {done.output}{done.errors}"
        return done.output


PIS = [
    Pi(name, f"{NAME}-{name}", STATE / name, network, f"{NETWORKS[0]}.{last}")
    for name, network, last in zip(("one", "two"), NETWORKS, (10, 20), strict=True)
]


def inventory(pis: Sequence[Pi] = PIS, **changes: dict[str, Any]) -> Path:
    """Write the inventory of both or of one, with variables that differ, by machine."""
    folder = STATE / "inventory"
    (folder / "group_vars").mkdir(parents=True, exist_ok=True)
    common = folder / "group_vars/all"
    if not common.exists():
        common.symlink_to(ROOT / "inventory/virtual/group_vars/all")
    [described] = yaml.safe_load((ROOT / "inventory/virtual/hosts.yml").read_text())["pis"]["hosts"].values()
    hosts = {
        pi.name: {
            **described,
            "ansible_host": f"{pi.network}.10",
            "virtual_pi_state": str(pi.state),
            "wireguard_folder": str(STATE / "wireguard"),
            "wireguard_number": number,
            "wireguard_endpoint": pi.shared,
            **changes.get(pi.name, {}),
        }
        for number, pi in enumerate(PIS, 1)
        if pi in pis
    }
    (folder / "hosts.yml").write_text(yaml.safe_dump({"pis": {"hosts": hosts}}))
    return folder


def converge(*arguments: str, play: str = "playbooks/remote.yml", **more: Any) -> machine.Finished:
    """Apply what lets in from afar, or another play, with an inventory of more; it must succeed."""
    command = ("ansible-playbook", "-i", str(inventory(**more)), play, *arguments)
    done = machine.run(*command, environment=secret())
    assert done.status == 0, done.output[-6000:]
    return done


def client(name: str, *arguments: str, folder: Path = STATE / "wireguard", **more: Any) -> str:
    """Add a device, as `make vpn-client` does, with an inventory of more; what it imports."""
    done = machine.run("python", "ops/vpn_client.py", str(inventory(**more)), name, *arguments, environment=secret())
    assert done.status == 0, done.output[-6000:]
    path = folder / f"{name}.conf"
    return path.read_text() if path.exists() else ""


def secret() -> dict[str, str | None]:
    """Both machines have one owner."""
    return {"ANSIBLE_VAULT_PASSWORD_FILE": str(PIS[0].state / "vault-password")}


def reaches(pi: Pi, address: str, seconds: int = 60) -> bool:
    """Whether a machine reaches another one's SSH within so many seconds."""
    knock = f"until timeout 2 bash -c 'exec 3<>/dev/tcp/{address}/22' 2> /dev/null; do sleep 1; done; echo yes"
    return pi.shell(f'timeout {seconds} bash -c "{knock}"', check=False) == "yes\n"


class Device:
    """A device in the network of both, with the file that it has imported."""

    def __init__(self, engine: docker.DockerClient) -> None:
        """In a container of its own."""
        self.container: Container = engine.containers.run(
            "pi-commerce/vpn-device:1",
            detach=True,
            labels=LABELS,
            network=PIS[0].container,
            cap_add=["NET_ADMIN"],
            devices=["/dev/net/tun:/dev/net/tun:rwm"],
            sysctls={"net.ipv6.conf.all.disable_ipv6": "0"},
        )

    def use(self, config: str) -> None:
        """Import a file in place of the one before."""
        self.run("wg-quick down pct0")
        self.put("/etc/wireguard/pct0.conf", config)
        code, output = self.run("wg-quick up pct0")
        assert code == 0, output

    def put(self, path: str, content: str) -> None:
        """Write a file there, for root alone."""
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as archive:
            entry = tarfile.TarInfo(Path(path).name)
            entry.size, entry.mode = len(content.encode()), 0o600
            archive.addfile(entry, io.BytesIO(content.encode()))
        assert self.container.put_archive(str(Path(path).parent), packed.getvalue())

    def run(self, script: str) -> tuple[int, str]:
        """Exit code and output of a script."""
        code, output = self.container.exec_run(["bash", "-c", script])
        return int(code), output.decode(errors="replace")

    def way(self, address: str) -> str:
        """Options with which ssh comes to that address from here, whatever address it was given."""
        script = f"exec 3<>/dev/tcp/{address}/22; cat <&3 & cat >&3"
        command = f"docker exec --interactive {self.container.id} bash -c '{script}'"
        # A connection that is open already came by another way.
        return f'-o ControlPath=none -o ProxyCommand="{command}"'

    def opens(self, address: str, port: int) -> bool:
        """Whether it can connect to a port within some seconds."""
        return self.run(f"timeout 8 bash -c 'exec 3<>/dev/tcp/{address}/{port}'")[0] == 0

    def status(self, url: str, *options: str) -> int:
        """Status of the answer to a GET, 0 where none comes; who answers is believed, unless options say otherwise."""
        command = ["curl", "--silent", "--max-time", "20", "--output", "/dev/null", "--write-out", "%{http_code}"]
        output = self.container.exec_run([*command, *(options or ["--insecure"]), url])[1]
        return int(output)

    def reaches(self, address: str, tries: int = 10) -> bool:
        """Whether the address answers within so many tries of a second each."""
        return any(self.run(f"ping -c 1 -W 1 {address}")[0] == 0 for _ in range(tries))
