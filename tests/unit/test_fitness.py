"""What a host says about its kernel and its packages is read as it is meant."""

from __future__ import annotations

from pathlib import Path

import fitness
import pytest

V1 = "#subsys_name\thierarchy\tnum_cgroups\tenabled\ncpu\t5\t9\t1\nmemory\t{}\t70\t{}\npids\t3\t9\t1\n"


@pytest.mark.parametrize(
    ("controllers", "cgroups", "on"),
    [
        ("cpuset cpu io memory pids", None, True),
        ("cpuset cpu io pids", V1.format(4, 1), False),
        (None, V1.format(4, 1), True),
        (None, V1.format(0, 0), False),
        (None, "#subsys_name\thierarchy\tnum_cgroups\tenabled\n", None),
        (None, None, None),
    ],
)
def test_memory_cgroup(controllers: str | None, cgroups: str | None, on: bool | None) -> None:
    assert fitness.memory_cgroup(controllers, cgroups) is on


def test_proxy_of_apt_counts_for_its_scheme() -> None:
    dump = 'Acquire "";\nAcquire::http::Proxy "http://proxy.test:3142";\nAcquire::https::Proxy "DIRECT";\n'
    assert fitness.apt_proxy(dump, "http://mirror.test/debian") == "http://proxy.test:3142"
    assert fitness.apt_proxy(dump, "https://mirror.test/debian") is None


@pytest.mark.parametrize(
    ("path", "content", "there"),
    [
        ("sys/module/wireguard/version", "1.0.0\n", True),
        ("lib/modules/6.12/modules.dep", "kernel/drivers/net/wireguard/wireguard.ko.xz: kernel/lib/x.ko.xz\n", True),
        ("lib/modules/6.12/modules.builtin", "kernel/drivers/net/wireguard/wireguard.ko\n", True),
        ("lib/modules/6.12/modules.dep", "kernel/drivers/net/notwireguard.ko:\n", False),
        # Of a kernel that does not run.
        ("lib/modules/6.6/modules.dep", "kernel/drivers/net/wireguard/wireguard.ko:\n", False),
    ],
)
def test_wireguard_module(tmp_path: Path, path: str, content: str, there: bool) -> None:
    (tmp_path / path).parent.mkdir(parents=True)
    (tmp_path / path).write_text(content)
    assert fitness.wireguard_module(str(tmp_path), "6.12") is there
