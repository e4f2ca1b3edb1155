"""upgrade.yml on a shop that is in use: a plan, an image that works, one that does not, and the way back."""

from __future__ import annotations

import json
from collections.abc import Iterator

import machine
import pytest
import yaml
from waiting import wait_until

# Of its own, so that nobody else's image becomes another.
TAG = "registry.test:5000/valkey:8.99"
ORDER = {
    "source": "instagram",
    "total_cents": 100,
    "currency": "EUR",
    "items": [{"sku": "PEN", "quantity": 1, "price_cents": 100}],
}


def push(instruction: str) -> None:
    """Put an image made from the shop's own Redis into the registry; the machine keeps what it has of that name."""
    own = images()["redis"]
    machine.pi(
        f"set -e\nprintf 'FROM {own}\\n{instruction}\\n' | docker build --quiet --tag upgrade-test - >/dev/null\n"
        f"before=$(docker image inspect --format '{{{{.Id}}}}' {TAG} 2>/dev/null || true)\n"
        f"docker tag upgrade-test {TAG} && docker push --quiet {TAG} >/dev/null\n"
        f'[ -z "$before" ] || docker tag $before {TAG}\n'
    )


def images(**changed: str) -> dict[str, str]:
    """What the inventory declares, with changes."""
    declared = yaml.safe_load((machine.ROOT / "inventory/virtual/group_vars/all/virtual.yml").read_text())["images"]
    return {**declared, **changed}


def upgrade(*words: str, **changed: str) -> machine.Finished:
    """Run the line that people type, with another image in the inventory."""
    return machine.playbook("upgrade.yml", "-e", json.dumps({"images": images(**changed)}), *words)


def confirmed(words: str) -> tuple[str, str]:
    """The words of the plan, as people give them."""
    return "-e", json.dumps({"confirm": words})


def runs(service: str) -> str:
    """The image that a service is made from."""
    return machine.pi(f"docker inspect --format '{{{{.Image}}}}' pi-commerce-{service}-1").strip()


def label() -> str:
    """The one by which the images of this test differ."""
    return machine.pi(
        "docker inspect --format '{{index .Config.Labels \"upgrade\"}}' pi-commerce-redis-1 | sed 's/<no value>//'"
    ).strip()


def takes_orders(number: str) -> bool:
    """Whether the shop does what it is for."""
    return machine.order({**ORDER, "order_id": number}).status in (200, 201)


@pytest.fixture(scope="module", autouse=True)
def before(first_run: machine.Finished) -> Iterator[dict[str, str]]:
    """What ran before; afterwards what the inventory declares runs again."""
    # What is not well is not upgraded, and the tests before this one have restarted a lot.
    wait_until(lambda: machine.unwell() == "", 300, machine.unwell)
    yield {service: runs(service) for service in ("postgres", "redis", "n8n", "proxy")}
    machine.pi(f"docker image rm --force {TAG} upgrade-test", check=False)
    again = machine.playbook("site.yml")
    assert again.status == 0, again.output[-4000:]


def test_machine_is_the_newest_there_is() -> None:
    done = upgrade()
    assert done.status == 0, done.output[-4000:]
    assert "everything is the newest there is" in done.output


def test_plan_is_shown_first_and_nothing_is_done(before: dict[str, str]) -> None:
    push("LABEL upgrade=one")
    planned = upgrade(redis=TAG)
    assert planned.status != 0
    assert f"{images()['redis']} -> {TAG}" in planned.output
    assert '--confirm "upgrade redis"' in planned.output
    assert runs("redis") == before["redis"]
    assert upgrade("--check", redis=TAG).status == 0


def test_new_version_is_brought_in_and_nothing_else(before: dict[str, str]) -> None:
    done = upgrade(*confirmed("upgrade redis"), redis=TAG)
    assert done.status == 0, done.output[-4000:]
    assert label() == "one"
    assert takes_orders("UP-1")
    assert {service: runs(service) for service in before if service != "redis"} == {
        service: image for service, image in before.items() if service != "redis"
    }
    # site.yml would do the very same.
    again = machine.playbook("site.yml", "-e", json.dumps({"images": images(redis=TAG)}))
    assert machine.recap(again.output)["changed"] == 0, again.output[-4000:]


def test_newer_image_of_the_same_name_is_found() -> None:
    push("LABEL upgrade=two")
    done = upgrade(*confirmed("upgrade redis"), redis=TAG)
    assert done.status == 0, done.output[-4000:]
    assert label() == "two"
    assert takes_orders("UP-2")


def test_image_that_does_not_start_is_put_back_by_itself() -> None:
    push('LABEL upgrade=broken\\nUSER root\\nRUN rm "$(command -v valkey-server)"')
    works = runs("redis")
    done = upgrade(*confirmed("upgrade redis"), redis=TAG)
    assert done.status != 0
    assert "put back, because it did not work: redis" in done.output
    assert runs("redis") == works
    assert label() == "two"
    assert takes_orders("UP-3")


def test_upgrade_does_not_disturb_a_backup() -> None:
    lock = "/run/pi-commerce-at-work.lock"
    machine.pi(f"systemd-run --quiet --unit upgrade-backup flock --shared {lock} sleep 1200")
    try:
        machine.pi("sed -i.kept s/300/5/ /usr/local/lib/pi-commerce/updates/pi_updates/__main__.py")
        push("LABEL upgrade=three")
        done = upgrade(*confirmed("upgrade redis"), redis=TAG)
        assert done.status != 0
        assert "is at work: try again" in done.output
        assert label() == "two"
    finally:
        machine.pi("cd /usr/local/lib/pi-commerce/updates/pi_updates && mv __main__.py.kept __main__.py", check=False)
        machine.pi("systemctl stop upgrade-backup", check=False)


def test_whole_upgrade_can_be_undone() -> None:
    done = upgrade(*confirmed("upgrade redis"), redis=TAG)
    assert done.status == 0, done.output[-4000:]
    assert label() == "three"
    undone = upgrade("-e", "undo=true", redis=TAG)
    assert undone.status == 0, undone.output[-4000:]
    assert label() == "two"
    assert takes_orders("UP-4")
