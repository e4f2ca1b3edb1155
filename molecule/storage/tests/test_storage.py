"""Without a disk nothing happens, and a disk that may not be touched is refused before anything is changed."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

import pytest
from testinfra.host import Host

Apply = Callable[..., "subprocess.CompletedProcess[str]"]


def test_nothing_is_brought_where_no_disk_is_chosen(host: Host) -> None:
    assert not host.file("/usr/local/sbin/pi-commerce-storage").exists
    assert "pi-commerce" not in host.file("/etc/fstab").content_string
    assert not host.file("/etc/systemd/system/pi-commerce-storage.timer").exists


@pytest.mark.parametrize("disk", ["/dev/disk/by-id/usb-Nobody_Has_It-0:0"])
def test_disk_that_is_not_there_is_refused_and_nothing_changed(host: Host, apply: Apply, disk: str) -> None:
    packages = host.check_output("dpkg-query --show | sha256sum")
    refused = apply("storage", storage_disk=disk)
    assert refused.returncode != 0
    assert "there is no such disk" in refused.stdout
    assert host.check_output("dpkg-query --show | sha256sum") == packages
    test_nothing_is_brought_where_no_disk_is_chosen(host)
