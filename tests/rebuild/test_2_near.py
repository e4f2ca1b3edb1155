"""The far repository is gone, no registry answers; what is left is the disk with the near one. And nobody has luck."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import loss
import machine
import owner
import pytest
from interruptions import Outcome, Pi, Point, runs

pytestmark = pytest.mark.skipif(machine.KIND == "vm", reason="what is watched and held here is a container")

# Where each run ends: the controller's end alone, the machine's power, both ends of the connection.
POINTS = [
    Point("Load them out of a repository", "controller", process=r"^docker load"),
    Point("Bring back the data", "power", process=r"restic-\S+ restore .*:/\S+/base "),
    Point(
        "Start all services, take away what is no longer enabled", "run", process=r"^/usr/bin/docker .*compose .* up "
    ),
]


@pytest.fixture(scope="module")
def before(shop: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the shop held; the images it runs on are saved too."""
    finished = machine.playbook("playbooks/backup.yml", "-e", '{"backup_images_in": ["near"]}')
    assert finished.status == 0, finished.output[-4000:]
    loss.save("nightly")
    owner.sell(2)
    loss.save("ship")
    return owner.everything()


@pytest.fixture(scope="module")
def outcomes(before: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> list[Outcome]:
    """Runs of which each but the last is cut off."""
    disk: Path = tmp_path_factory.mktemp("disk") / "near.tar"
    loss.take_disk(disk)
    loss.lose_everything(["backup_near_password"])
    loss.new_machine()
    loss.put_disk(disk)
    disk.unlink()
    pi = Pi(machine.ENVIRONMENT["PI_NAME"], machine.NETWORK, machine.STATE, "rebuild.yml")
    for name in ("registry", "far"):
        loss.beside(name, running=False)
    try:
        return list(runs(pi, POINTS))
    finally:
        for name in ("registry", "far"):
            loss.beside(name, running=True)


def test_everything_is_as_it_was(
    before: dict[str, Any], outcomes: list[Outcome], capsys: pytest.CaptureFixture[str]
) -> None:
    assert [outcome.status == 0 for outcome in outcomes] == [False, False, False, True]
    assert owner.everything() == before
    with capsys.disabled():
        print(f"\n{loss.shown(outcomes[-1].output)}")


def test_report_says_that_it_went_on(outcomes: list[Outcome]) -> None:
    report = loss.report()
    assert report["resumed"]
    assert report["seconds"] > sum(report["phases"].values())
    # Of which it was told before it was cut off.
    assert "repository near" in "".join(outcome.output for outcome in outcomes)


def test_saving_goes_on_where_it_ended(outcomes: list[Outcome]) -> None:
    owner.sell(1)
    loss.save("ship")
    machine.pi("pi-commerce-backup status")
