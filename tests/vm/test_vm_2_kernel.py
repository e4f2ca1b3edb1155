"""What the kernel does for the shop: memory limits, settings, modules, volumes. A container has none of its own."""

from __future__ import annotations

import kernel_settings
import machine
import pytest

MIB = 1024**2
# As docs/decisions/0003-memory.md has them.
LIMITS = {
    "postgres": 512,
    "redis": 256,
    "rate_limiter": 128,
    "webhook_handler": 256,
    "posting_queue": 192,
    "n8n": 1280,
    "proxy": 96,
}


def group(service: str) -> str:
    """The folder of a service's control group (version 2)."""
    path = machine.pi(f"cat /proc/$(docker inspect --format '{{{{.State.Pid}}}}' pi-commerce-{service}-1)/cgroup")
    return "/sys/fs/cgroup" + path.strip().partition("::")[2]


def test_every_service_has_its_memory_limit_in_the_kernel() -> None:
    found = {service: machine.pi(f"cat {group(service)}/memory.max").strip() for service in LIMITS}
    assert found == {service: str(limit * MIB) for service, limit in LIMITS.items()}


def test_a_service_over_its_limit_is_ended_and_the_others_go_on() -> None:
    events = f"{group('rate_limiter')}/memory.events"
    read = f"sed -n 's/^oom_kill //p' {events}"
    before = int(machine.pi(read))
    greedy = "python3 -c 'held = bytearray(512 << 20)'"
    status = machine.pi(f"docker exec pi-commerce-rate_limiter-1 {greedy}; echo $?", check=False)
    assert status.strip() == "137", "a program of 512 MiB lived in a container of 128 MiB"
    assert int(machine.pi(read)) > before
    # What took too much was ended, not the service beside it.
    machine.pi(
        "docker exec pi-commerce-rate_limiter-1 python3 -c "
        "'import urllib.request as r; r.urlopen(\"http://127.0.0.1:3001/health\", timeout=60)'"
    )
    assert machine.request("/webhook/health-echo?token=oom").json()["echo"] == "oom"


def test_kernel_settings_are_in_force() -> None:
    wanted = kernel_settings.wanted()
    assert {"vm.overcommit_memory", "kernel.dmesg_restrict"} <= set(wanted)
    assert kernel_settings.found() == wanted


@pytest.mark.parametrize("module", ["wireguard", "dm_mod"])
def test_kernel_module_loads(module: str) -> None:
    machine.pi(f"modprobe {module}")
    assert machine.pi(f"test -d /sys/module/{module} && echo loaded").strip() == "loaded"


def test_wireguard_interface_comes_up() -> None:
    machine.pi("ip link add wg-test type wireguard && ip address add 192.0.2.1/32 dev wg-test")
    try:
        machine.pi("ip link set wg-test up")
        assert "wireguard" in machine.pi("ip -details link show wg-test")
    finally:
        machine.pi("ip link delete wg-test")


def test_volumes_of_the_device_mapper_grow_and_keep_a_snapshot() -> None:
    """LVM on the second disk: a file system grows while it is mounted; a snapshot keeps what is then overwritten."""
    machine.pi("pvcreate --quiet /dev/vdb && vgcreate --quiet test /dev/vdb")
    try:
        machine.pi(
            "lvcreate --quiet --size 256M --name data test && mkfs.ext4 -q /dev/test/data"
            " && mkdir --parents /mnt/data /mnt/before && mount /dev/test/data /mnt/data"
            " && echo old >/mnt/data/file && sync"
        )
        size = "stat --file-system --format %b /mnt/data"
        before = int(machine.pi(size))
        machine.pi("lvextend --quiet --size 512M --resizefs test/data")
        assert int(machine.pi(size)) > 1.5 * before
        machine.pi("lvcreate --quiet --snapshot --size 64M --name before test/data && echo new >/mnt/data/file")
        machine.pi("mount --options ro /dev/test/before /mnt/before")
        assert machine.pi("cat /mnt/before/file /mnt/data/file").split() == ["old", "new"]
    finally:
        machine.pi("umount --quiet /mnt/before /mnt/data", check=False)
        machine.pi("vgremove --quiet --force test && pvremove --quiet /dev/vdb")
