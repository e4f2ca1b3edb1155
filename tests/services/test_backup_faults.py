"""Runs that are killed, places that are full, slow or wrong, data that vanishes: named, and the next run is well."""

from __future__ import annotations

import json
import re
import time

import pytest
from backup_shop import FOLDER, PLAN, SECRETS, SMALL, Shop
from test_backup_restore import after, at
from waiting import wait_until

# Kills the program where a function is called (or has returned) for the nth time.
KILLED = """
import os, signal, sys
from importlib import import_module
from pi_backup import __main__
job, where, when, count = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
module, *inner, name = where.split(".")
owner = import_module(f"pi_backup.{module}")
for part in inner:
    owner = getattr(owner, part)
real, calls = getattr(owner, name), []
def killed(*words, **options):
    calls.append(1)
    if when == "before" and len(calls) == count:
        os.kill(os.getpid(), signal.SIGKILL)
    answer = real(*words, **options)
    if when == "after" and len(calls) == count:
        os.kill(os.getpid(), signal.SIGKILL)
    return answer
setattr(owner, name, killed)
__main__.main([job])
"""
STEPS = [
    ("ship", "postgres.Server.switch", "after", 1),
    ("ship", "redis.save", "after", 1),
    ("ship", "engine.Repository.backup", "after", 1),
    ("ship", "state.record", "before", 1),
    ("nightly", "postgres.Server.dump", "after", 1),
    ("nightly", "postgres.Server.take_base", "after", 1),
    ("nightly", "engine.Repository.backup", "after", 2),
    # Only one repository is known to have the base.
    ("nightly", "engine.Repository.remember", "after", 1),
    # The chain has begun.
    ("nightly", "jobs.tidy", "before", 1),
]
NOTIFY = "/usr/local/sbin/pi-commerce-notify"
# Writes down how it was called, and what it was given.
RECORDER = """#!/bin/sh
case "$*" in *--clear*) ;; *) body=$(cat) ;; esac
echo "$*: $body" >> /root/told
"""


@pytest.mark.parametrize("step", STEPS, ids=lambda step: f"{step[0]}-{step[1]}")
def test_run_that_is_killed_stops_nothing_that_comes_after(shop: Shop, step: tuple[str, str, str, int]) -> None:
    shop.write("/tmp/killed.py", KILLED)
    said = shop.shell(f"python3 /tmp/killed.py {' '.join(map(str, step))}")
    assert said.status == 137, said.output
    moment = shop.order(f"after {step[1]}")
    shop.must("ship")
    for place in ("near", "far"):
        assert shop.state(place)["points"]["postgres_data"] > moment
    assert not shop.shell(f"find {FOLDER}/staging/slot-* -name manifest.json").output


def test_what_was_saved_after_kills_can_be_restored(shop: Shop) -> None:
    words = shop.orders()
    shop.must("discard", shop.confirmed("web", "--from", "far"))
    assert shop.orders() == words


def place(url: str) -> dict[str, str]:
    """A repository instead of the near one."""
    return {"url": url, "password_file": f"{SECRETS}/backup_near_password"}


def with_place(shop: Shop, name: str, url: str) -> None:
    """Save to another place before the far one."""
    shop.write_plan(repositories={name: place(url), "far": shop.plan()["repositories"]["far"]})


def test_full_place_is_named_and_goes_on_when_there_is_room(shop: Shop) -> None:
    with_place(shop, "small", f"{SMALL}/copies")
    try:
        shop.shell(f"head -c 20000000 /dev/zero > {SMALL}/ballast")
        shop.shell("head -c 8000000 /dev/urandom > /data/random", shop.files)
        moment = time.time()
        said = shop.backup("ship")
        assert said.status == 1
        assert f"repository small ({SMALL}/copies) is full: make room there" in said.output
        assert "repository far" not in said.output
        assert shop.state("far")["points"]["files_data"] > moment
        shop.shell(f"rm {SMALL}/ballast; rm {FOLDER}/state/jobs.json")
        shop.must("ship")
        assert shop.state("small")["points"]["files_data"] > moment
    finally:
        shop.shell("rm /data/random", shop.files)
        shop.shell(f"rm -rf {SMALL}/* {FOLDER}/state/small.json")
        shop.write_plan()


def test_place_that_two_runs_find_empty_is_made_once(shop: Shop) -> None:
    url = f"{SMALL}/twice"
    # Both have looked before either makes it.
    shop.write("/tmp/slow", '#!/bin/sh\ncase "$*" in init*) sleep 3 ;; esac\nexec restic "$@"\n')
    shop.write_plan(engine="/tmp/slow", repositories={"twice": place(url), "far": shop.plan()["repositories"]["far"]})
    try:
        shop.shell(f"chmod +x /tmp/slow; rm {FOLDER}/state/jobs.json")
        said = shop.shell(
            "python3 -m pi_backup nightly > /tmp/nightly 2>&1 & python3 -m pi_backup ship; "
            "ship=$?; wait $!; echo $ship $?; cat /tmp/nightly"
        )
        assert "0 0\n" in said.output, said.output
        assert len(shop.shell(f"ls {url}/keys").output.split()) == 1
        shop.must("ship")
    finally:
        shop.shell(f"rm -rf {SMALL}/* {FOLDER}/state/twice.json")
        shop.write_plan()


def test_place_whose_making_was_cut_off_is_made_again(shop: Shop) -> None:
    environment = f"RESTIC_PASSWORD_FILE={SECRETS}/backup_near_password"
    url, away = f"{SMALL}/begun", f"rest:http://pi:{shop.far_password}@far:8000/pi/begun/"
    for repository in (url, away):
        assert shop.shell(f"{environment} restic init --repo {repository}").status == 0
    shop.shell(f"rm {url}/config")
    shop.shell("rm /data/pi/begun/config", shop.far)
    far = {**shop.plan()["repositories"]["far"], "url": "rest:http://far:8000/pi/begun/"}
    try:
        with_place(shop, "begun", url)
        shop.must("ship")
        # Nobody may take anything away there.
        shop.write_plan(repositories={"away": {**far, "password_file": f"{SECRETS}/backup_near_password"}})
        said = shop.backup("ship")
        assert said.status == 1
        assert "has a key and no settings" in said.output
        assert "empty that place, and the next run makes it" in said.output
        shop.shell("rm -r /data/pi/begun", shop.far)
        shop.must("ship")
        # Something was saved here.
        with_place(shop, "begun", url)
        shop.shell(f"rm {url}/config {FOLDER}/state/begun.json")
        kept = shop.shell(f"find {url} -type f | sort").output
        said = shop.backup("ship")
        assert said.status == 1
        assert "its file `config` was lost" in said.output
        assert shop.shell(f"find {url} -type f | sort").output == kept
    finally:
        shop.shell("rm -rf /data/pi/begun", shop.far)
        shop.shell(f"rm -rf {SMALL}/* {FOLDER}/state/begun.json {FOLDER}/state/away.json")
        shop.write_plan()


def test_place_of_an_old_format_is_refused_and_left_as_it_is(shop: Shop) -> None:
    url = f"{SMALL}/old"
    environment = f"RESTIC_REPOSITORY={url} RESTIC_PASSWORD_FILE={SECRETS}/backup_near_password"
    assert shop.shell(f"{environment} restic init --repository-version 1").status == 0
    with_place(shop, "old", url)
    try:
        said = shop.backup("ship")
        assert said.status == 1
        assert f"repository old ({url}) has format 1, 2 is needed" in said.output
        assert "repository far" not in said.output
        assert not shop.shell(f"ls {url}/snapshots").output
    finally:
        shop.shell(f"rm -rf {SMALL}/* {FOLDER}/state/old.json")
        shop.write_plan()


def test_place_that_hangs_keeps_no_other_from_being_fed(shop: Shop) -> None:
    # Both places have the base that the log goes on from.
    shop.must("nightly")
    before = shop.state("jobs")["ship"].get("skipped", 0)
    shop.far.pause()
    try:
        moment = time.time()
        shop.shell("python3 -m pi_backup ship > /tmp/hanging 2>&1; echo $? >> /tmp/hanging", detach=True)
        wait_until(lambda: shop.state("near")["shipped"] > moment, 60, "near is fed")
        moment = shop.order("while far hangs")
        shop.must("ship")
        assert shop.state("near")["points"]["postgres_data"] > moment
        assert shop.state("jobs")["ship"]["skipped"] == before + 1
    finally:
        shop.far.unpause()
        # Whatever has failed: the tests that follow are not to find it at work.
        wait_until(lambda: shop.shell("tail -n 1 /tmp/hanging").output.strip().isdigit(), 240, "it has ended")
    assert shop.shell("tail -n 1 /tmp/hanging").output == "0\n", shop.shell("cat /tmp/hanging").output
    shop.must("ship")
    assert shop.state("far")["points"]["postgres_data"] > moment


def test_place_that_never_answers_is_given_up(shop: Shop) -> None:
    script = (
        "from pi_backup import engine, __main__; engine.ANSWER_SECONDS = 3; raise SystemExit(__main__.main(['ship']))"
    )
    shop.far.pause()
    try:
        said = shop.shell(f'python3 -c "{script}"')
    finally:
        shop.far.unpause()
    assert said.status == 1
    assert "repository far (rest:http://far:8000/pi/) does not answer: is the place reachable" in said.output
    assert "near" not in said.output
    shop.must("ship")


def test_base_that_is_being_made_does_not_make_a_ship_fail(shop: Shop) -> None:
    shop.shell(f"rm {FOLDER}/state/chain.json")
    done = shop.shell(f"exec 9> {FOLDER}/.nightly.lock; flock 9; python3 -m pi_backup ship 9>&-")
    assert done.status == 0, done.output
    shop.must("ship")
    assert shop.state("chain")


def test_run_that_shall_wait_for_another_does(shop: Shop) -> None:
    lock = f"{FOLDER}/.nightly.lock"
    # Held until somebody is seen waiting for it with these 120 seconds (the pattern does not find itself).
    held = "for _ in $(seq 999); do ! grep -qs '12[0]' /proc/[0-9]*/cmdline || exit 0; sleep 0.1; done"
    shop.write("/tmp/held.sh", held)
    shop.shell(f"flock {lock} sh /tmp/held.sh", detach=True)
    shop.shell(f"for _ in $(seq 300); do flock --nonblock {lock} true || break; sleep 0.1; done")
    gave_up = shop.backup("nightly", "--wait", "0.5")
    assert (gave_up.status, "another nightly is running" in gave_up.output) == (75, True), gave_up.output
    shop.must("nightly", "--wait", "120")


def test_plan_that_cannot_be_read_is_named(shop: Shop) -> None:
    shop.write(PLAN, '{"host": "shop-pi"}')
    try:
        said = shop.backup("ship")
    finally:
        shop.write_plan()
    assert said.status == 1
    assert f"{PLAN}: is no backup plan (KeyError('repositories')); run site.yml" in said.output


def test_volume_that_loses_its_files_is_named_until_the_next_night(shop: Shop) -> None:
    shop.shell("rm -rf /data/*; for n in $(seq 40); do echo $n > /data/$n; done", shop.files)
    shop.must("nightly")
    shop.shell("rm /data/7 /data/8 /data/9", shop.files)
    shop.must("ship")
    shop.shell("rm /data/1?", shop.files)
    said = shop.backup("ship")
    assert said.status == 1
    assert "files_data: holds 27 files instead of 40 in the night before" in said.output
    assert shop.backup("status").status == 1
    shop.shell("rm /data/*", shop.files)
    said = shop.backup("nightly")
    assert "files_data: is empty, and held 40 files in the night before" in said.output
    # It is saved all the same, and right from now on.
    shop.must("ship")
    shop.shell("echo x > /data/x", shop.files)
    shop.must("discard", shop.confirmed("files"))
    assert not shop.shell("ls /data", shop.files).output


def told(shop: Shop) -> list[str]:
    """What the owner was told since the last time."""
    lines = shop.shell("cat /root/told; rm -f /root/told").output.splitlines()
    return [line for line in lines if "backup-" in line]


def aged(shop: Shop, minutes: int) -> None:
    """Have the near repository's newest copy of the files be older than it is."""
    known = shop.state("near")
    known["points"]["files_data"] = time.time() - minutes * 60
    shop.write(f"{FOLDER}/state/near.json", json.dumps(known))


def test_owner_is_told_once_about_old_copies_and_when_they_are_over(shop: Shop) -> None:
    shop.must("nightly")
    shop.must("ship")
    shop.write(NOTIFY, RECORDER)
    shop.shell(f"chmod +x {NOTIFY}; mv {FOLDER}/near {FOLDER}/unplugged")
    warning = "--key backup-near-files_data-warning"
    critical = "--key backup-near-files_data-critical"
    try:
        aged(shop, 11)
        assert shop.backup("ship").status == 1
        found = told(shop)
        assert any(f"{warning} --level warning files_data is not being saved in near" in line for line in found)
        assert any("--key backup-ship --level warning" in line and "is its disk mounted?" in line for line in found)
        assert not any("critical" in line for line in found)
        # Also by a run that is left out.
        aged(shop, 16)
        assert shop.shell(f"flock {FOLDER}/.ship.lock python3 -m pi_backup ship").status == 75
        assert any(f"{critical} --level critical" in line for line in told(shop))
        shop.shell(f"mv {FOLDER}/unplugged {FOLDER}/near")
        shop.must("ship")
        assert [line.split(":")[0] for line in told(shop)] == [
            f"{critical} --clear",
            f"{warning} --clear",
            "--key backup-ship --clear",
        ]
        shop.must("ship")
        assert not told(shop)
    finally:
        shop.shell(f"rm -f {NOTIFY}; [ ! -e {FOLDER}/unplugged ] || mv {FOLDER}/unplugged {FOLDER}/near")


def test_every_moment_can_be_had_after_the_ships_of_a_day_are_thinned_out(shop: Shop) -> None:
    moment = after(shop, "before the night")
    shop.order("later that night")
    shop.must("nightly")
    ships = [entry["id"] for entry in json.loads(shop.must("snapshots", "near")) if entry["kind"] == "ship"]
    assert shop.restic("forget", *ships).status == 0
    words = shop.orders()
    kept = shop.confirmed("web", "--at", at(moment), "--from", "near")
    assert shop.orders() == words[:-1]
    undone = re.search(r"kept as (\w+)", shop.must("undo", kept))
    assert undone is not None
    shop.must("discard", undone[1])
    assert shop.orders() == words
