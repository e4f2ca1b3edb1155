"""A reboot, a hang that the watchdog ends, a power cut: everything comes back by itself and nothing is lost."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import kernel_settings
import machine
import pytest
from boots import BOOT_SECONDS, boot_id, wait_until_booted

ORDER = {
    "order_id": "VM-1",
    "source": "facebook",
    "total_cents": 100,
    "currency": "EUR",
    "items": [{"sku": "PEN", "quantity": 1, "price_cents": 100}],
}
CMDLINE = machine.STATE / "cmdline.txt"


@pytest.fixture(scope="module", autouse=True)
def _order() -> None:
    """An order that has to survive every boot below."""
    assert order().status in (200, 201)


def order() -> machine.Answer:
    """Send the order until it is answered: emulated, the first workflow after a start of n8n takes minutes."""
    deadline = time.monotonic() + BOOT_SECONDS
    while True:
        try:
            return machine.order(ORDER)
        except OSError:
            if time.monotonic() > deadline:
                raise


def wait_until_back(old: str) -> None:
    """Wait for another boot than `old` and for the whole way in: proxy, n8n, limiter and databases."""
    wait_until_booted(old, lambda: answers() and machine.unwell() == "")


def answers() -> bool:
    """Whether a call from outside comes back from n8n."""
    try:
        return machine.request("/webhook/health-echo?token=back").status == 200
    except OSError:
        return False


def assert_as_before() -> None:
    """The order is there once, the kernel has its settings, and the next run finds nothing to do."""
    assert order().json()["status"] == "duplicate"
    assert machine.psql("shop", "SELECT count(*) FROM shop.orders WHERE order_id = 'VM-1'") == "1"
    assert kernel_settings.found() == kernel_settings.wanted()
    after = machine.playbook("site.yml")
    assert after.status == 0, after.output[-4000:]
    assert machine.recap(after.output)["changed"] == 0, after.output


def test_everything_is_back_after_a_reboot() -> None:
    before = boot_id()
    machine.pi("systemctl reboot", check=False)
    wait_until_back(before)
    assert_as_before()


def test_watchdog_boots_a_machine_that_hangs() -> None:
    before = boot_id()
    told = "/sys/class/watchdog/watchdog0"
    assert machine.pi(f"cat {told}/state {told}/timeout").split() == ["active", "120"]
    # The kernel gives up and stands still, with nobody left to feed the watchdog.
    machine.pi("sysctl --quiet --write kernel.panic=0; (sleep 2; echo c > /proc/sysrq-trigger) > /dev/null 2>&1 &")
    wait_until_back(before)
    assert machine.psql("shop", "SELECT count(*) FROM shop.orders WHERE order_id = 'VM-1'") == "1"


@contextmanager
def told_at_boot(words: str) -> Iterator[None]:
    """The machine with these words in its boot line, started by a power cut; afterwards without them, by another."""
    line = CMDLINE.read_text()
    CMDLINE.write_text(f"{line.strip()} {words}\n")
    try:
        machine.make("restart")
        yield
    finally:
        CMDLINE.write_text(line)
        before = boot_id()
        machine.make("restart")
        wait_until_back(before)


def test_pi_without_the_memory_cgroup_is_refused_and_told_what_to_do() -> None:
    """As a Pi's firmware starts it: limits are accepted and ignored. After the remedy all is as before."""
    with told_at_boot("cgroup_disable=memory"):
        assert "memory" not in machine.pi("cat /sys/fs/cgroup/cgroup.controllers").split()
        refused = machine.playbook("playbooks/stack.yml")
        assert refused.status != 0
        for word in ("memory cgroup is off", "cgroup_enable=memory", "/boot/firmware/cmdline.txt", "reboot"):
            assert word in refused.output, refused.output[-3000:]
    assert_as_before()
