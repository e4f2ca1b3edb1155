"""The virtual Pi: a systemd container with its own Docker engine, reached over SSH like a real board.

`virtual_pi.py up | down | restart | lose | registry` creates, removes or restarts the Pi with the image registry and
the far repository beside it, takes the Pi away as a fire would (what stands elsewhere stays), or prints where this
machine reaches the registry. Everything it needs lies in the state folder: the SSH key, the known host key, the vault
password, the access to the far repository.
Settings come from the environment (the Makefile exports them, `Settings.from_environment` lists them).
"""

from __future__ import annotations

import datetime
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
import far
import images
from docker.errors import APIError, NotFound
from docker.models.containers import Container

OWNER_LABEL = "pi-commerce.state"
BOOT_SECONDS = 90
# A busy engine (20.10) may close a short command's output before it was read: what ends with this is whole.
END = "-- end of what it said"
TIMES = 3
ENGINE_SECONDS = 600  # to remove a volume with all of a Pi's images takes minutes on a busy disk


class VirtualPiError(Exception):
    """A message for the person at the keyboard: what is wrong, where, and what to do."""


@dataclass(frozen=True)
class Settings:
    """Names and addresses of one virtual Pi; two at a time need two names and two networks."""

    state: Path
    name: str
    network: str
    suite: str
    arch: str
    memory: str

    @classmethod
    def from_environment(cls) -> Settings:
        """Read PI_STATE, PI_NAME, PI_NETWORK, PI_SUITE, ARCH, PI_MEMORY."""
        env = os.environ
        return cls(
            state=Path(env["PI_STATE"]).resolve(),
            name=env.get("PI_NAME", "pi-commerce"),
            network=env.get("PI_NETWORK", "10.213.0"),
            suite=env.get("PI_SUITE", "trixie"),
            arch=env.get("ARCH", "amd64"),
            memory=env.get("PI_MEMORY", "4g"),
        )

    @property
    def address(self) -> str:
        """Where the Pi answers SSH and HTTPS."""
        return f"{self.network}.10"

    @property
    def registry_address(self) -> str:
        """Where the registry answers the Pi."""
        return f"{self.network}.5"

    @property
    def far_address(self) -> str:
        """Where the far repository answers the Pi."""
        return f"{self.network}.6"

    @property
    def container(self) -> str:
        """Name of the Pi's container."""
        return f"{self.name}-pi"

    @property
    def registry(self) -> str:
        """Name of the registry's container."""
        return f"{self.name}-registry"

    @property
    def far(self) -> str:
        """Name of the far repository's container, and of the volume that holds its data."""
        return f"{self.name}-far"

    @property
    def volume(self) -> str:
        """Name of the volume that holds the Pi's own /var/lib/docker."""
        return f"{self.name}-docker"


def prepare_state(settings: Settings) -> None:
    """Create the state folder with SSH key, vault password and resolver file, once."""
    settings.state.mkdir(mode=0o700, parents=True, exist_ok=True)
    key = settings.state / "id_ed25519"
    if not key.exists():
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "virtual-pi", "-f", str(key)], check=True)
    password = settings.state / "vault-password"
    if not password.exists():
        password.touch(mode=0o600)
        password.write_text(secrets.token_urlsafe(24) + "\n")
    # The engine's own resolver (127.0.0.11) would not do: the engine inside the Pi has to ask a real one.
    (settings.state / "resolv.conf").write_text(upstream_resolvers().read_text())


def upstream_resolvers() -> Path:
    """The resolver file without a local stub: systemd-resolved keeps the real one elsewhere."""
    resolved = Path("/run/systemd/resolve/resolv.conf")
    return resolved if resolved.exists() else Path("/etc/resolv.conf")


def boot_environment(client: docker.DockerClient) -> dict[str, str]:
    """Environment of the Pi's first process; systemd 257 starts on a cgroup v1 host only when told so."""
    environment = {"container": "docker"}
    if str(client.info().get("CgroupVersion", "1")) == "1":
        legacy = "systemd.unified_cgroup_hierarchy=0 SYSTEMD_CGROUP_ENABLE_LEGACY_FORCE=1"
        environment["SYSTEMD_PROC_CMDLINE"] = legacy
    return environment


def inside(container: Container, *command: str) -> str:
    """What a command prints in a container; it has to succeed, and may be repeated where it was not heard."""
    named = " ".join(command)[:200]
    for _ in range(TIMES):
        code, (output, errors) = container.exec_run(["sh", "-c", '"$@" && echo "$0"', END, *command], demux=True)
        if code:
            said = (errors or output or b"").decode()[-500:]
            raise VirtualPiError(f"{named}: exit code {code}: {said}")
        whole, end, _ = (output or b"").decode().rpartition(f"{END}\n")
        if end:
            return whole
    raise VirtualPiError(f"{named}: the engine has lost what it said {TIMES} times, is it overloaded?")


def existing(client: docker.DockerClient, name: str, settings: Settings) -> Container | None:
    """The container of that name, or None; refuses one that another checkout made."""
    try:
        container = client.containers.get(name)
    except NotFound:
        return None
    owner = container.labels.get(OWNER_LABEL)
    if owner != str(settings.state):
        raise VirtualPiError(
            f"container {name} belongs to {owner or 'somebody else'}: run `make down` there, "
            "or set PI_NAME and PI_NETWORK to values of your own"
        )
    return container


def ensure_network(client: docker.DockerClient, settings: Settings) -> None:
    """The bridge on which the Pi and the registry have fixed addresses."""
    if client.networks.list(names=[f"^{settings.name}$"]):
        return
    subnet = f"{settings.network}.0/24"
    pool = docker.types.IPAMPool(subnet=subnet, gateway=f"{settings.network}.1")
    try:
        client.networks.create(settings.name, driver="bridge", ipam=docker.types.IPAMConfig(pool_configs=[pool]))
    except APIError as error:
        raise VirtualPiError(
            f"network {subnet} cannot be made ({error.explanation}): set PI_NETWORK to three numbers of a free one"
        ) from error


def create(
    client: docker.DockerClient, settings: Settings, image: str, name: str, address: str, **options: Any
) -> None:
    """Create and start a container at a fixed address of our network; `content` is (folder, tar file) to begin with."""
    content = options.pop("content", None)
    container = client.api.create_container(
        image,
        command=options.pop("command", None),
        name=name,
        labels={OWNER_LABEL: str(settings.state)},
        hostname=options.pop("hostname", name),
        environment=options.pop("environment", {}),
        volumes=options.pop("volumes", []),
        ports=options.pop("ports", []),
        user=options.pop("user", None),
        platform=options.pop("platform", None),
        host_config=options.pop("host_config"),
        networking_config=client.api.create_networking_config(
            {settings.name: client.api.create_endpoint_config(ipv4_address=address)}
        ),
    )
    if content:
        client.api.put_archive(container["Id"], *content)
    client.api.start(container["Id"])


def ensure_registry(client: docker.DockerClient, settings: Settings, cache: Path) -> None:
    """The registry from which the Pi pulls; its data is a cache that outlives it."""
    container = existing(client, settings.registry, settings)
    if container:
        container.start()
        return
    cache.mkdir(parents=True, exist_ok=True)
    image = built(client, settings, "registry")
    host = client.api.create_host_config(
        binds=[f"{cache}:/var/lib/registry"],
        network_mode=settings.name,
        # An engine pushes without TLS to its own loopback only.
        port_bindings={"5000/tcp": ("127.0.0.1", None)},
        restart_policy={"Name": "unless-stopped"},
    )
    create(
        client,
        settings,
        image,
        settings.registry,
        settings.registry_address,
        ports=[(5000, "tcp")],
        # The cache belongs to whoever runs make.
        user=f"{os.getuid()}:{os.getgid()}",
        host_config=host,
    )


def ensure_far(client: docker.DockerClient, settings: Settings) -> None:
    """The far repository, which stands in another house: a Pi that is lost leaves it as it was.

    The access to it is handed out once, as by whoever rents out such a place, and is for the owner to keep.
    """
    access, certificate = settings.state / "far-access", settings.state / "far.pem"
    container = existing(client, settings.far, settings)
    if container:
        if not access.exists():
            raise VirtualPiError(f"{access}, the access to {settings.far}, is gone: put it back, or run `make down`")
        container.start()
    else:
        access.touch(mode=0o600)
        access.write_text(secrets.token_urlsafe(24) + "\n")
        now = datetime.datetime.now(datetime.UTC)
        content = far.server_files(access.read_text().strip(), settings.far_address, now)
        create(
            client,
            settings,
            built(client, settings, "rest-server"),
            settings.far,
            settings.far_address,
            command=far.COMMAND,
            content=(str(Path(far.FOLDER).parent), content),
            volumes=["/data"],
            host_config=client.api.create_host_config(
                binds=[f"{settings.far}:/data"],
                network_mode=settings.name,
                restart_policy={"Name": "unless-stopped"},
            ),
        )
        container = client.containers.get(settings.far)
    certificate.write_text(inside(container, "cat", f"{far.FOLDER}/cert.pem"))


def registry_endpoint(client: docker.DockerClient, settings: Settings) -> str:
    """Where this machine reaches the registry, as `host:port`."""
    container = existing(client, settings.registry, settings)
    if not container:
        raise VirtualPiError("there is no registry: run `make up`")
    return f"127.0.0.1:{container.ports['5000/tcp'][0]['HostPort']}"


def built(client: docker.DockerClient, settings: Settings, name: str) -> str:
    """The tag of one of our images, which must have been built."""
    of_machine = name in ("virtual-pi", "vm")
    suite, arch = (settings.suite, settings.arch) if of_machine else ("trixie", images.host_arch())
    table = images.load_table((images.IMAGES / "images.yml").read_text(), suite, arch)
    tag = table[name].tag
    if not client.images.list(tag):
        raise VirtualPiError(f"image {tag} is missing: run `make images`")
    return tag


def ensure_pi(client: docker.DockerClient, settings: Settings) -> None:
    """Start the Pi, create it on a first run, and wait until its sshd answers."""
    container = existing(client, settings.container, settings)
    if container:
        container.start()
    else:
        create_pi(client, settings)
        container = client.containers.get(settings.container)
    wait_for_ssh(container, settings)


def create_pi(client: docker.DockerClient, settings: Settings) -> None:
    """Create the Pi's container and give it our public key."""
    host = client.api.create_host_config(
        binds=[f"{settings.volume}:/var/lib/docker", f"{settings.state}/resolv.conf:/etc/resolv.conf:ro"],
        tmpfs={"/run": "", "/run/lock": ""},
        mem_limit=settings.memory,
        network_mode=settings.name,
        extra_hosts={"registry.test": settings.registry_address, far.NAME: settings.far_address},
        # A privileged container would ask for SYS_RESOURCE, which is not to be had inside every sandbox.
        cap_add=["ALL"],
        cap_drop=["SYS_RESOURCE"],
        security_opt=["seccomp=unconfined", "apparmor=unconfined"],
        cgroupns="private",
        # For a VPN where the kernel has no WireGuard.
        devices=["/dev/net/tun:/dev/net/tun:rwm"],
        # A board starts again by itself after a power cut.
        restart_policy={"Name": "unless-stopped"},
    )
    # The engine inside has to set up networks below /proc/sys.
    host["MaskedPaths"], host["ReadonlyPaths"] = [], []
    create(
        client,
        settings,
        built(client, settings, "virtual-pi"),
        settings.container,
        settings.address,
        hostname="raspberrypi",
        environment=boot_environment(client),
        volumes=["/var/lib/docker"],
        platform=f"linux/{settings.arch}",
        host_config=host,
    )
    container = client.containers.get(settings.container)
    key = (settings.state / "id_ed25519.pub").read_text().strip()
    script = 'install -m 0600 -o pi -g pi /dev/stdin /home/pi/.ssh/authorized_keys <<<"$KEY"'
    container.exec_run(["bash", "-c", script], environment={"KEY": key})


def wait_for_ssh(container: Container, settings: Settings) -> None:
    """Wait for the Pi's own host key and for its sshd, and remember the key."""
    deadline = time.monotonic() + BOOT_SECONDS
    while time.monotonic() < deadline:
        code, key = container.exec_run(["cat", "/etc/ssh/ssh_host_ed25519_key.pub"])
        if code == 0 and key and port_answers(settings.address, 22):
            known = f"{settings.address} {' '.join(key.decode().split()[:2])}\n"
            (settings.state / "known_hosts").write_text(known)
            (settings.state / "ssh_config").write_text(ssh_config(settings))
            return
        time.sleep(0.5)
    raise VirtualPiError(
        f"{settings.container} did not answer SSH on {settings.address} within {BOOT_SECONDS} s; "
        f"see `docker logs {settings.container}`"
    )


def ssh_config(settings: Settings) -> str:
    """Client configuration with which `ssh -F` reaches the Pi as `shop-pi`, over one connection."""
    options = {
        "HostName": settings.address,
        "User": "pi",
        "IdentityFile": settings.state / "id_ed25519",
        "IdentitiesOnly": "yes",
        "UserKnownHostsFile": settings.state / "known_hosts",
        "StrictHostKeyChecking": "yes",
        "ControlMaster": "auto",
        "ControlPath": settings.state / "ssh-%C",
        "ControlPersist": "60s",
    }
    return "Host shop-pi\n" + "".join(f"  {name} {value}\n" for name, value in options.items())


def port_answers(address: str, port: int) -> bool:
    """Whether a TCP connection succeeds within a second."""
    try:
        with socket.create_connection((address, port), timeout=1):
            return True
    except OSError:
        return False


def down(client: docker.DockerClient, settings: Settings) -> None:
    """Remove Pi, registry, far repository, network, volumes and state; the image caches stay."""
    for name in (settings.container, settings.registry, settings.far):
        remove(client, settings, name)
    for volume in (settings.volume, settings.far):
        remove_volume(client, volume)
    for network in client.networks.list(names=[f"^{settings.name}$"]):
        network.remove()
    for entry in settings.state.glob("*") if settings.state.exists() else ():
        # What says who started the engine and the emulation is removed by whoever stops them.
        if not entry.name.startswith(("dockerd", "emulation")):
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()


def remove(client: docker.DockerClient, settings: Settings, name: str) -> None:
    """Remove a container of ours at once, if it is there."""
    container = existing(client, name, settings)
    if container:
        container.remove(force=True, v=True)


def remove_volume(client: docker.DockerClient, name: str) -> None:
    """Remove a volume, if it is there."""
    for volume in client.volumes.list(filters={"name": f"^{name}$"}):
        volume.remove()


def lose(client: docker.DockerClient, settings: Settings) -> None:
    """Take the Pi away with its disks and what a virtual machine has for them; all that stands elsewhere stays."""
    remove(client, settings, settings.container)
    remove_volume(client, settings.volume)
    for pattern in ("*.qcow2", "ssh_host_*"):
        for part in settings.state.glob(pattern):
            part.unlink()


def run(
    arguments: list[str],
    up: Callable[[docker.DockerClient, Settings], None],
    ready: Callable[[Container, Settings], None],
) -> None:
    """Do what the verb in `arguments` says with a machine that `up` starts and that `ready` waits for."""
    verb = " ".join(arguments)
    settings = Settings.from_environment()
    client = docker.from_env(timeout=ENGINE_SECONDS)
    if verb == "up":
        prepare_state(settings)
        ensure_network(client, settings)
        up(client, settings)
    elif verb == "restart":
        container = existing(client, settings.container, settings)
        if not container:
            raise VirtualPiError("there is no virtual Pi: run `make up`")
        container.restart(timeout=60)
        ready(container, settings)
    elif verb == "registry":
        print(registry_endpoint(client, settings))
    elif verb == "lose":
        lose(client, settings)
    elif verb == "down":
        down(client, settings)
    else:
        raise VirtualPiError(f"usage: {Path(sys.argv[0]).name} up | restart | registry | lose | down")


def up(client: docker.DockerClient, settings: Settings) -> None:
    """Start registry, far repository and Pi, and say where it answers."""
    ensure_registry(client, settings, Path(os.environ["PI_CACHE"]).resolve() / "registry")
    ensure_far(client, settings)
    ensure_pi(client, settings)
    print(f"virtual Pi {settings.container} answers SSH on {settings.address}")


if __name__ == "__main__":
    try:
        run(sys.argv[1:], up, wait_for_ssh)
    except VirtualPiError as error:
        sys.exit(f"error: {error}")
