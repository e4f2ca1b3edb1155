"""The virtual Pi as a virtual machine, for what a container cannot show: its own kernel, boots, memory limits, disks.

`vm.py up | down | restart | lose | registry` does what the same verbs of `virtual_pi.py` do. QEMU runs in a container
that lends the machine its place on the network, so the machine answers where the virtual Pi would. KVM is used where
it works, emulation where not. The disk is made once per content and kept in the cache; a machine writes to a layer of
its own in the state folder.
"""

from __future__ import annotations

import base64
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import docker
import far
import images
import virtual_pi
from docker.errors import ContainerError
from docker.models.containers import Container
from virtual_pi import Settings, VirtualPiError

DISK_SIZE = "12G"
BOOT_SECONDS = 600  # an emulated machine on a busy computer
PROBE_SECONDS = 30
SSD_SERIAL = "PI-SSD-0001"
KVM = "/dev/kvm"
# All processors at once, and room for the translated code of a whole Node.js.
EMULATION = "tcg,thread=multi,tb-size=1024"
TAP = "/dev/net/tun"


@dataclass(frozen=True)
class Board:
    """How QEMU is asked for a machine of one architecture; `model` is what its device tree says, if it has one."""

    program: str
    machine: str
    emulated_cpu: str
    console: str
    model: str = ""


BOARDS = {
    # Emulated, a fifth level of page tables is one more step each time, and what a real processor copies in one go
    # (ERMS, FSRM) goes byte by byte: without it reading a file takes less than half the time.
    "amd64": Board("qemu-system-x86_64", "q35", "max,la57=off,erms=off,fsrm=off", "ttyS0"),
    "arm64": Board("qemu-system-aarch64", "virt", "cortex-a72", "ttyAMA0", "Raspberry Pi 4 Model B Rev 1.4"),
}


# --- what QEMU is told ------------------------------------------------------------------------------------


def processor(board: Board, kvm: bool) -> list[str]:
    """The machine and its processor: this computer's own under KVM, an emulated one elsewhere."""
    accelerator, cpu = ("kvm", "host") if kvm else (EMULATION, board.emulated_cpu)
    return [board.program, "-machine", board.machine, "-accel", accelerator, "-cpu", cpu, "-nodefaults"]


def kernel_line(board: Board, settings: Settings) -> str:
    """What cmdline.txt says on a Pi: root file system, console, and the address it has from the first moment.

    Nothing runs here from which a kernel would have to hide its memory, and hiding it is what emulation does slowly.
    """
    network = f"ip={settings.address}::{settings.network}.1:255.255.255.0::eth0:none"
    return f"root=/dev/vda rw console={board.console} panic=1 mitigations=off net.ifnames=0 {network}"


def machine_command(settings: Settings, cpus: int, kvm: bool) -> list[str]:
    """The whole command line of the machine; its files lie in /disk (as made) and /machine (its own)."""
    board = BOARDS[settings.arch]
    return [
        *processor(board, kvm),
        *("-smp", str(cpus), "-m", settings.memory.upper()),
        *("-kernel", "/disk/kernel", "-initrd", "/disk/initrd"),
        # What a power cut of this computer would lose is of no interest here.
        *("-drive", "file=/machine/root.qcow2,format=qcow2,if=none,id=root,cache=unsafe,discard=unmap"),
        # The first disk that is named is vda.
        *("-device", "virtio-blk-pci,drive=root"),
        # A second disk, empty: the SSD, with a serial number as every disk has one.
        *("-drive", "file=/machine/ssd.qcow2,format=qcow2,if=none,id=ssd,cache=unsafe,discard=unmap"),
        *("-device", f"virtio-blk-pci,drive=ssd,serial={SSD_SERIAL}"),
        *("-netdev", "tap,id=lan,ifname=tap0,script=no,downscript=no"),
        # No boot ROM: the kernel is given directly.
        *("-device", "virtio-net-pci,netdev=lan,romfile="),
        *("-device", "virtio-rng-pci"),
        *("-device", "i6300esb", "-action", "watchdog=reset"),
        *("-fw_cfg", "name=opt/io.systemd.credentials/tmpfiles.extra,file=/machine/first-boot.conf"),
        *("-display", "none", "-serial", "file:/machine/console.log"),
    ]


def probe_command(arch: str) -> list[str]:
    """Start our kernel under KVM without a disk: one that gets as far as missing it has really run."""
    board = BOARDS[arch]
    return [
        *("timeout", str(PROBE_SECONDS), *processor(board, kvm=True), "-m", "512"),
        *("-kernel", "/disk/kernel", "-append", f"console={board.console} panic=-1"),
        *("-display", "none", "-serial", "stdio", "-no-reboot"),
    ]


def kernel_ran(console: str) -> bool:
    """Whether that kernel came to where it looks for its root file system."""
    return "Unable to mount root fs" in console


# --- what the machine is told -----------------------------------------------------------------------------


def first_boot(files: dict[str, tuple[str, str, bytes]]) -> str:
    """Files, path -> (mode, owner, content), as lines of tmpfiles.d(5) that write them where they are missing."""
    return "".join(
        f"f~ {path} {mode} {owner} {owner} - {base64.b64encode(content).decode()}\n"
        for path, (mode, owner, content) in files.items()
    )


def prepare_first_boot(settings: Settings) -> None:
    """The machine's own host key, and all it has to know at its first boot."""
    state = settings.state
    key = state / "ssh_host_ed25519_key"
    if not key.exists():
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "raspberrypi", "-f", str(key)], check=True)
    public = key.with_suffix(".pub").read_text()
    (state / "known_hosts").write_text(f"{settings.address} {' '.join(public.split()[:2])}\n")
    hosts = f"127.0.0.1 localhost\n127.0.1.1 raspberrypi\n{settings.registry_address} registry.test\n"
    hosts += f"{settings.far_address} {far.NAME}\n"
    (state / "ssh_config").write_text(virtual_pi.ssh_config(settings))
    line = state / "cmdline.txt"
    if not line.exists():
        line.write_text(kernel_line(BOARDS[settings.arch], settings) + "\n")
    conf = state / "first-boot.conf"
    conf.touch(mode=0o600)
    conf.write_text(
        first_boot(
            {
                "/etc/ssh/ssh_host_ed25519_key": ("0600", "root", key.read_bytes()),
                "/etc/ssh/ssh_host_ed25519_key.pub": ("0644", "root", public.encode()),
                "/home/pi/.ssh/authorized_keys": ("0600", "pi", (state / "id_ed25519.pub").read_bytes()),
                "/etc/hosts": ("0644", "root", hosts.encode()),
                "/etc/resolv.conf": ("0644", "root", (state / "resolv.conf").read_bytes()),
            }
        )
    )


# --- the disk ---------------------------------------------------------------------------------------------


def ensure_disk(client: docker.DockerClient, settings: Settings, cache: Path) -> Path:
    """The folder with root.img, kernel and initrd, made from the image `vm` where the cache has none of its content."""
    source = virtual_pi.built(client, settings, "vm")
    tools = virtual_pi.built(client, settings, "qemu")
    inputs = [client.images.get(tag).labels[images.LABEL] for tag in (source, tools)]
    digest = images.inputs_digest({}, *inputs, DISK_SIZE)
    folder = cache / f"{settings.suite}-{settings.arch}-{digest[:16]}"
    if folder.exists():
        return folder
    cache.mkdir(parents=True, exist_ok=True)
    with images.step(f"{source}: make a disk"), tempfile.TemporaryDirectory(prefix="new-", dir=cache) as scratch:
        disk = Path(scratch, "disk")
        disk.mkdir()
        export(client, source, disk / "root.tar")
        try:
            client.containers.run(
                tools, ["make-disk", DISK_SIZE], remove=True, network_disabled=True, volumes=[f"{disk}:/disk"]
            )
        except ContainerError as error:
            raise VirtualPiError(f"making a disk of {source} failed: {error.stderr.decode()}") from error
        # Complete or not there at all.
        disk.rename(folder)
    return folder


def export(client: docker.DockerClient, image: str, archive: Path) -> None:
    """Write the whole file system of an image into a tar file."""
    container = client.api.create_container(image)["Id"]
    try:
        with archive.open("wb") as target:
            for chunk in client.api.export(container):
                target.write(chunk)
    finally:
        client.api.remove_container(container)


# --- the machine ------------------------------------------------------------------------------------------


def kvm_works(client: docker.DockerClient, settings: Settings, disk: Path) -> bool:
    """Whether KVM runs our kernel. That there is a device says little: inside another machine it may not do."""
    if settings.arch != images.host_arch() or not Path(KVM).exists():
        return False
    probe = client.containers.run(
        virtual_pi.built(client, settings, "qemu"),
        probe_command(settings.arch),
        detach=True,
        network_disabled=True,
        devices=[KVM],
        volumes=[f"{disk}:/disk:ro"],
    )
    try:
        probe.wait()
        return kernel_ran(probe.logs().decode(errors="replace"))
    finally:
        probe.remove(force=True)


def ensure_machine(client: docker.DockerClient, settings: Settings, cache: Path) -> None:
    """Start the machine, create it on a first run, and wait until it lets us in."""
    container = virtual_pi.existing(client, settings.container, settings)
    if container:
        container.start()
    else:
        create_machine(client, settings, ensure_disk(client, settings, cache))
        container = client.containers.get(settings.container)
    wait_for_login(container, settings)


def create_machine(client: docker.DockerClient, settings: Settings, disk: Path) -> None:
    """Create the container in which QEMU runs and start it."""
    kvm = kvm_works(client, settings, disk)
    print(f"{settings.arch} machine: {'KVM' if kvm else 'emulated, which takes patience'}", flush=True)
    cpus = min(4, os.cpu_count() or 1)
    host = client.api.create_host_config(
        binds=[f"{disk}:/disk:ro", f"{settings.state}:/machine"],
        network_mode=settings.name,
        cap_add=["NET_ADMIN"],
        devices=[TAP, *([KVM] if kvm else [])],
        # A board starts again by itself after a power cut.
        restart_policy={"Name": "unless-stopped"},
    )
    virtual_pi.create(
        client,
        settings,
        virtual_pi.built(client, settings, "qemu"),
        settings.container,
        settings.address,
        command=["boot-vm", *machine_command(settings, cpus, kvm)],
        environment={"BOARD": BOARDS[settings.arch].model},
        host_config=host,
    )


def wait_for_login(container: Container, settings: Settings) -> None:
    """Wait until the machine lets us in; while it boots it refuses even those it knows."""
    options = ["BatchMode=yes", "ConnectTimeout=10", "ControlPath=none"]
    command = [
        "ssh",
        "-F",
        str(settings.state / "ssh_config"),
        *(f"-o{option}" for option in options),
        "shop-pi",
        "true",
    ]
    deadline = time.monotonic() + BOOT_SECONDS
    while time.monotonic() < deadline:
        if subprocess.run(command, capture_output=True, check=False).returncode == 0:
            return
        container.reload()
        if container.status != "running":
            raise VirtualPiError(f"{settings.container} ended: {container.logs(tail=5).decode().strip()}")
        time.sleep(1)
    raise VirtualPiError(
        f"{settings.container} did not answer SSH on {settings.address} within {BOOT_SECONDS} s; "
        f"see {settings.state / 'console.log'}"
    )


def up(client: docker.DockerClient, settings: Settings) -> None:
    """Start registry, far repository and machine, and say where it answers and how long that took."""
    cache = Path(os.environ["PI_CACHE"]).resolve()
    prepare_first_boot(settings)
    # Tags do not tell architectures apart.
    own = "registry" if settings.arch == images.host_arch() else f"registry-{settings.arch}"
    virtual_pi.ensure_registry(client, settings, cache / own)
    virtual_pi.ensure_far(client, settings)
    start = time.monotonic()
    ensure_machine(client, settings, cache / "vm")
    took = time.monotonic() - start
    print(f"machine {settings.container} answers SSH on {settings.address} after {took:.0f} s")


if __name__ == "__main__":
    try:
        virtual_pi.run(sys.argv[1:], up, wait_for_login)
    except VirtualPiError as error:
        sys.exit(f"error: {error}")
