"""What drifted is found by the audit, shown by a check, neither changing anything, and mended by the next run alone."""

from __future__ import annotations

import re

import drifts
import footprint
import machine
import pytest
from drifts import DRIFTS, Drift
from episodes import BATCHES, Episode, look, of
from talk import Talk


def changes(output: str) -> dict[str, str]:
    """By title (`TASK [...]`) of what changed something, all that the run printed about it."""
    blocks = re.split(r"^((?:TASK|RUNNING HANDLER) \[.*\]) \**$", output, flags=re.MULTILINE)
    told: dict[str, str] = {}
    for name, text in zip(blocks[1::2], blocks[2::2], strict=True):
        if re.search(r"^changed: \[shop-pi\]", text, re.MULTILINE):
            told[name] = told.get(name, "") + f"{name}\n{text}"
    return told


def test_every_drift_is_one(episodes: dict[int, Episode]) -> None:
    """What says that a drift is mended says before that it is not."""
    assert [name for episode in episodes.values() for name in episode.unnoticed] == []


@pytest.mark.parametrize("drift", DRIFTS, ids=lambda drift: drift.name)
def test_audit_finds(episodes: dict[int, Episode], drift: Drift) -> None:
    audit = episodes[drift.batch].audit
    assert audit.status == 1, audit.output
    found = [line for line in audit.output.splitlines() if " ok " not in line]
    for words in drift.audit:
        assert words in "\n".join(found), f"{words!r} is not found:\n{audit.output}"


@pytest.mark.parametrize("batch", BATCHES)
def test_audit_and_check_change_nothing(episodes: dict[int, Episode], batch: int) -> None:
    episode = episodes[batch]
    assert episode.check.status == 0, episode.check.output[-4000:]
    assert footprint.touched(episode.planted, episode.checked) == set()


@pytest.mark.parametrize("drift", DRIFTS, ids=lambda drift: drift.name)
def test_check_shows(episodes: dict[int, Episode], drift: Drift) -> None:
    told = "\n".join(changes(episodes[drift.batch].check.output).values())
    for words in drift.shown:
        assert words in told, f"{words!r} is not shown:\n{told}"


@pytest.mark.parametrize("drift", DRIFTS, ids=lambda drift: drift.name)
def test_next_run_mends(episodes: dict[int, Episode], drift: Drift) -> None:
    episode = episodes[drift.batch]
    assert episode.mend.status == 0, episode.mend.output[-4000:]
    assert drift.name not in episode.unmended


@pytest.mark.parametrize("batch", BATCHES)
def test_everything_is_as_before_the_drifts(episodes: dict[int, Episode], batch: int) -> None:
    episode = episodes[batch]
    assert footprint.altered(episode.converged, episode.planted) or batch != 1
    assert footprint.altered(episode.converged, episode.mended) == set()


@pytest.mark.parametrize("batch", BATCHES)
def test_nothing_else_is_touched(episodes: dict[int, Episode], batch: int) -> None:
    """Files keep their times, containers their ids and start times, rows their versions."""
    episode = episodes[batch]
    touched = footprint.touched(episode.planted, episode.mended)
    declared = {name for drift in of(batch) for name in drift.touches}
    assert {name for name in touched if not declared & covers(name)} == set()
    assert {name for name in declared if not any(name in covers(other) for other in touched)} == set()


def covers(name: str) -> set[str]:
    """The name and, for a path, all folders it lies in."""
    parts = name.split("/")
    return {name} | {"/".join(parts[:count]) for count in range(2, len(parts))}


@pytest.mark.parametrize("batch", BATCHES)
def test_check_foresees_what_the_run_does(episodes: dict[int, Episode], batch: int) -> None:
    """The same tasks change something, the same containers are told of. Handlers may have nothing to foresee."""
    both = [changes(finished.output) for finished in (episodes[batch].check, episodes[batch].mend)]
    foreseen, done = ({title for title in told if title.startswith("TASK")} for told in both)
    assert foreseen == done
    foreseen, done = (set(re.findall(r"pi-commerce-\w+-1", "".join(told.values()))) for told in both)
    assert foreseen == done


def test_no_planted_secret_is_shown(episodes: dict[int, Episode]) -> None:
    """The diff of a changed secret file shows neither what is there nor what shall be."""
    for episode in episodes.values():
        assert drifts.PLANTED_SECRET not in episode.audit.output + episode.check.output + episode.mend.output


def test_run_after_that_changes_nothing(talk: Talk) -> None:
    assert machine.recap(talk.outputs["run"])["changed"] == 0, talk.outputs["run"][-4000:]
    assert talk.touched == set()


def test_footprint_notices_what_a_run_could_do() -> None:
    """Each kind of thing that the comparisons above rely on."""
    before = look()
    machine.pi("touch /etc/pi-commerce/compose/proxy.yml")
    after = look()
    assert footprint.touched(before, after) == {"/etc/pi-commerce/compose/proxy.yml"}
    assert footprint.altered(before, after) == set()
    machine.pi("docker restart --time 1 pi-commerce-proxy-1 && docker network create pi-commerce-probe")
    restarted = look()
    assert footprint.touched(after, restarted) == {"container pi-commerce-proxy-1", "network pi-commerce-probe"}
    assert footprint.altered(after, restarted) == {"network pi-commerce-probe"}
    machine.pi("docker network rm pi-commerce-probe")
