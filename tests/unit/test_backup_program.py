"""What the backup program decides without a machine: which snapshots give a moment, what is missing, what is told."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pi_backup import alerts, choose, locks, losses, plan, postgres
from pi_backup.engine import Snapshot, escaped, seconds_of
from pi_backup.errors import BackupError, Busy, Refused

NOW = 1_800_000_000.0


def snapshot(kind: str, moment: float, base: str, ends: str = "", host: str = "shop-pi") -> Snapshot:
    """A snapshot of PostgreSQL as the jobs make them; a night's base is whole two seconds before its log ends."""
    tags = [kind, f"base={base}", f"point={moment}", "store=postgres_data"]
    tags += [f"consistent={moment - 2}"] if kind == "nightly" else []
    tags += [f"ends={ends}"] if ends else []
    paths = ["/staging/" + kind, "/spool/wal", *(["/spool/base"] if kind == "nightly" else [])]
    return Snapshot(f"{kind}@{moment:.0f}", moment, host, tuple(paths), tuple(tags))


def held(store: str, moment: float) -> tuple[str, str]:
    """The tags of a store that is no PostgreSQL."""
    return f"store={store}", f"moment.{store}={moment}"


NIGHT_OF_BEFORE = ("base=one", "point=100", "store=postgres_data")
# Two nights; the second one's log is also the end of the log that goes on from the first one's base.
TWO_NIGHTS = [
    snapshot("nightly", 100, "one"),
    snapshot("ship", 110, "one"),
    snapshot("ship", 120, "one"),
    snapshot("nightly", 200, "two", ends="one"),
    snapshot("ship", 210, "two"),
]


@pytest.mark.parametrize(
    ("at", "base", "log", "until", "reached"),
    [
        (None, "nightly@200", "ship@210", None, 210),
        (205, "nightly@200", "ship@210", 205, 205),
        # The log reaches over a night that saved its end, whether or not the ships between are still there.
        (150, "nightly@100", "nightly@200", 150, 150),
        (115, "nightly@100", "ship@120", 115, 115),
        # The night's own log leads to every moment since its base was whole.
        (100, "nightly@100", "nightly@100", 100, 100),
        (98, "nightly@100", "nightly@100", 98, 98),
        (198.5, "nightly@200", "nightly@200", 198.5, 198.5),
        (197, "nightly@100", "nightly@200", 197, 197),
        # Later than anything: as near as can be.
        (300, "nightly@200", "ship@210", None, 210),
    ],
)
def test_moment_is_reached_by_a_base_and_its_own_log(
    at: float | None, base: str, log: str, until: float | None, reached: float
) -> None:
    found = choose.recovery(TWO_NIGHTS, "postgres_data", at)
    assert found.log is not None
    assert (found.base.id, found.log.id, found.until, found.reached) == (base, log, until, reached)


def test_night_is_enough_where_there_is_no_other_log() -> None:
    night = TWO_NIGHTS[0]
    assert choose.recovery(TWO_NIGHTS[:1], "postgres_data", None) == choose.Recovery(night, night, None, 100)


def test_newest_base_is_taken_though_the_log_of_the_one_before_leads_as_far() -> None:
    night = TWO_NIGHTS[3]
    assert choose.recovery(TWO_NIGHTS[:4], "postgres_data", None) == choose.Recovery(night, night, None, 200)


def test_ship_that_reached_later_is_taken_rather_than_the_night_it_overlapped() -> None:
    ship = snapshot("ship", 200.3, "one")
    found = choose.recovery([*TWO_NIGHTS[:4], ship], "postgres_data", None)
    assert found == choose.Recovery(TWO_NIGHTS[0], ship, None, 200.3)


def test_night_that_was_saved_after_a_ship_of_later_data_is_passed_over() -> None:
    ship = snapshot("ship", 200.4, "one")
    ship = replace(ship, tags=(*ship.tags, *held("redis_data", 200.4)))
    night = replace(TWO_NIGHTS[3], time=260, tags=(*TWO_NIGHTS[3].tags, *held("redis_data", 200.1)))
    both = [*TWO_NIGHTS[:3], ship, night]
    assert choose.recovery(both, "postgres_data", None) == choose.Recovery(TWO_NIGHTS[0], ship, None, 200.4)
    assert choose.holding(both, "redis_data", None) == ship
    assert choose.holding(both, "redis_data", 270) == ship
    # Nobody knows what one holds that is made after that moment.
    assert choose.holding([night, replace(ship, time=280)], "redis_data", 270) == night
    # Those of before there was that tag count from when they were made.
    older = replace(ship, id="older", time=200.2, tags=("ship", "store=redis_data"))
    assert choose.holding([older, night], "redis_data", None) == older
    assert choose.holding([replace(older, time=200.05), night], "redis_data", None) == night


def test_night_of_before_there_was_that_tag_can_be_had() -> None:
    night = Snapshot("nightly@100", 100, "shop-pi", ("/s/nightly", "/spool/base"), ("nightly", *NIGHT_OF_BEFORE))
    found = choose.recovery([night, *TWO_NIGHTS[1:3]], "postgres_data", 115)
    assert (found.base, found.until) == (night, 115)
    with pytest.raises(Refused, match="can be had from"):
        choose.recovery([night], "postgres_data", 99)


def test_base_whose_log_could_not_be_saved_is_taken_for_what_it_held_when_it_began() -> None:
    tags = ("nightly", "base=two", "point=190", "consistent=198", "store=postgres_data")
    night = Snapshot("nightly@200", 200, "shop-pi", ("/staging/nightly", "/spool/base"), tags)
    ships = [*TWO_NIGHTS[:3], snapshot("ship", 195, "one")]
    assert choose.recovery([*ships, night], "postgres_data", None).reached == 195
    assert choose.recovery([*ships[:3], night], "postgres_data", None) == choose.Recovery(night, None, None, 190)


@pytest.mark.parametrize(
    ("snapshots", "at", "text"),
    [
        (TWO_NIGHTS, 97, "postgres_data can be had from"),
        (TWO_NIGHTS[1:3], None, "there is no base of postgres_data yet"),
    ],
)
def test_moment_before_every_base_is_refused(snapshots: list[Snapshot], at: float | None, text: str) -> None:
    with pytest.raises(Refused, match=text):
        choose.recovery(snapshots, "postgres_data", at)


@pytest.mark.parametrize(
    ("typed", "moment"),
    [
        ("newest", None),
        ("", None),
        ("2026-11-20 14:35Z", 1795185300),
        ("2026-11-20T14:35:10+0130", 1795179910),
        ("2026-11-20 14:35:00-02:00", 1795192500),
    ],
)
def test_moment_is_read(typed: str, moment: float | None) -> None:
    assert choose.moment_of(typed, NOW) == moment


@pytest.mark.parametrize(
    "typed", ["yesterday", "2026-13-01 00:00", "2026-11-20", "14:35", "2026-11-20 25:00", "2999-01-01 00:00"]
)
def test_what_is_no_moment_of_the_past_is_refused(typed: str) -> None:
    with pytest.raises(Refused):
        choose.moment_of(typed, NOW)


def test_snapshots_of_others_and_of_the_future_are_left_out() -> None:
    own, other, ahead = snapshot("ship", 1, "x"), snapshot("ship", 1, "x", host="other"), snapshot("ship", NOW * 2, "x")
    assert choose.usable([own, other, ahead], "shop-pi", NOW) == [own]
    with pytest.raises(Refused, match="snapshots of other and 1 that claim to be from the future"):
        choose.usable([other, ahead], "shop-pi", NOW)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1970-01-01T00:00:01Z", 1.0),
        ("1970-01-01T01:00:01.5+01:00", 1.5),
        ("1970-01-01T00:00:00.25-00:30", 1800.25),
    ],
)
def test_engine_times_are_read(text: str, seconds: float) -> None:
    assert seconds_of(text) == seconds


def test_pattern_matches_only_the_path_itself() -> None:
    assert escaped(r"/data/[a]*?\b") == r"/data/\[a]\*\?\\b"


@pytest.mark.parametrize(
    ("now", "named"),
    [
        ({"files": 0, "bytes": 0}, "is empty, and held 100 files"),
        ({"files": 80, "bytes": 10_000_000}, "holds 80 files instead of 100"),
        ({"files": 100, "bytes": 7_900_000}, "holds 7900000 bytes instead of 10000000"),
        ({"files": 81, "bytes": 8_100_000}, ""),
        ({"files": 300, "bytes": 90_000_000}, ""),
    ],
)
def test_a_fifth_of_a_volume_is_missed(now: dict[str, int], named: str) -> None:
    found = losses.found("files_data", {"files": 100, "bytes": 10_000_000}, now)
    assert bool(found) == bool(named)
    assert named in "".join(found)


def test_few_small_files_and_what_shrinks_by_itself_are_not_missed() -> None:
    assert not losses.found("files_data", {"files": 5, "bytes": 900_000}, {"files": 1, "bytes": 9})
    assert not losses.found("n8n_data", {"files": 50, "bytes": 90_000_000}, {"files": 1, "bytes": 9}, shrinks=True)
    assert losses.found("n8n_data", {"files": 1, "bytes": 9}, {"files": 0, "bytes": 0}, shrinks=True)
    assert not losses.found("new_data", {}, {"files": 0, "bytes": 0})


def a_plan(folder: Path) -> plan.Plan:
    """One store and one repository."""
    store = {"kind": "redis", "volume": "redis_data"}
    return plan.parse(
        {
            "host": "shop-pi",
            "project": "shop",
            "folder": str(folder),
            "engine": "restic",
            "secrets_folder": str(folder),
            "repositories": {"near": {"url": "/near", "password_file": "/none"}},
            "recipients": [],
            "sealed": [],
            "host_paths": [],
            "spool_mib": 1024,
            "keep": {},
            "services": [
                {"name": "redis", "image": "x", "uid": 1, "gid": 1, "needs": [], "databases": [], "stores": [store]}
            ],
        }
    )


@pytest.mark.parametrize(
    ("age", "running_for", "levels"),
    [
        (599, 0, []),
        (601, 0, ["warning"]),
        (901, 0, ["warning", "critical"]),
        # Never saved: it counts since when it should have been.
        (None, 599, []),
        (None, 901, ["warning", "critical"]),
    ],
)
def test_copy_that_is_too_old_is_told(age: float | None, running_for: float, levels: list[str]) -> None:
    found: dict[str, Any] = {"rpo": {"near": {"redis_data": age}}, "age": running_for, "jobs": {}}
    told = list(alerts.due(found))
    assert [alert.level for alert in told] == levels
    assert len({alert.key for alert in told}) == len(levels)


def test_problems_of_a_job_are_told() -> None:
    found: dict[str, Any] = {"rpo": {}, "age": 0, "jobs": {"ship": {"problems": ["one", "two"]}, "nightly": {}}}
    [alert] = alerts.due(found)
    assert (alert.key, alert.body) == ("backup-ship", "one\ntwo")


def test_alert_that_is_too_long_is_cut_off_rather_than_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As long as pi-commerce-notify takes, and no half character at its end."""
    program = tmp_path / "notify"
    program.write_text(f'#!/bin/sh\nprintf %s "$5" > {tmp_path}/title\ncat > {tmp_path}/body\n')
    program.chmod(0o755)
    monkeypatch.setattr(alerts, "PROGRAM", program)
    assert alerts.hand_over(alerts.Alert("key", "warning", "t" * 300, "é" * 10000 + "end"))
    assert len((tmp_path / "title").read_text()) == alerts.TITLE_CHARACTERS
    assert (tmp_path / "body").read_bytes() == ("é" * 8192).encode()
    monkeypatch.setattr(alerts, "BODY_BYTES", 3)
    assert alerts.hand_over(alerts.Alert("key", "warning", "title", "éé"))
    assert (tmp_path / "body").read_text() == "é"


def test_hole_in_the_log_and_a_segment_that_was_cut_off_are_found(tmp_path: Path) -> None:
    for number in (1, 2, 4):
        (tmp_path / f"0000000100000000000000{number:02X}.gz").write_bytes(b"")
    with pytest.raises(BackupError, match="a hole before 000000010000000000000004"):
        postgres.check_wal(tmp_path, "000000010000000000000001")
    with pytest.raises(BackupError, match=r"000000010000000000000004\.gz: holds 0 bytes instead of 16 MiB"):
        postgres.check_wal(tmp_path, "000000010000000000000004")


def test_first_free_lock_is_taken(tmp_path: Path) -> None:
    with locks.any_locked(tmp_path, ["one", "two"]) as first, locks.any_locked(tmp_path, ["one", "two"]) as second:
        assert (first, second) == ("one", "two")
        with pytest.raises(Busy), locks.any_locked(tmp_path, ["one", "two"]):
            raise AssertionError("both were taken")
    with locks.all_locked(tmp_path, ["one", "two"]):
        pass


def test_all_locks_are_given_back_where_one_is_taken(tmp_path: Path) -> None:
    with locks.locked(tmp_path, "two"), pytest.raises(Busy), locks.all_locked(tmp_path, ["one", "two"]):
        raise AssertionError("it was taken twice")
    with locks.locked(tmp_path, "one"):
        pass
