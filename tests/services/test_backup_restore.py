"""Saving a shop and bringing it back: to a moment, from either place, cut off, undone; and what is refused."""

from __future__ import annotations

import json
import re
import time

import pytest
from backup_shop import FOLDER, PLAN, Shop
from waiting import wait_until


def at(moment: float) -> str:
    """A moment as a person types it."""
    return time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(moment))


def after(shop: Shop, word: str) -> float:
    """Insert an order; a whole second that is later than it, and past."""
    moment = int(shop.order(word)) + 1
    wait_until(lambda: time.time() > moment + 1, 5, "the next second")
    return float(moment)


def test_one_database_goes_back_to_a_moment_and_the_replaced_one_can_return(shop: Shop) -> None:
    moment = after(shop, "pit-before")
    shop.order("pit-after")
    shop.must("ship")
    rights = shop.sql("SELECT datacl FROM pg_database WHERE datname = 'shop'").output
    kept = shop.confirmed("web", "--at", at(moment))
    words = shop.orders()
    assert "pit-before" in words
    assert "pit-after" not in words
    assert shop.sql("SELECT datacl FROM pg_database WHERE datname = 'shop'").output == rights
    assert shop.sql("SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = 'shop'").output == "shop"

    undone = re.search(r"kept as (\w+)", shop.must("undo", kept))
    assert undone is not None
    assert "pit-after" in shop.orders()
    assert shop.backup("discard", kept).status == 2
    shop.must("discard", undone[1])
    assert "before" not in shop.sql("SELECT string_agg(datname, ' ') FROM pg_database").output


def test_everything_goes_back_and_saving_goes_on_with_a_new_base(shop: Shop) -> None:
    """Also when the near repository is gone for good: from far."""
    shop.cli("SET", "canary", "all-before")
    shop.shell(
        "find /data -mindepth 1 -delete; mkdir /data/deep; cd /data/deep && echo all-before > file && chmod 0640 file",
        shop.files,
    )
    shop.order("all-before")
    shop.must("ship")
    base = shop.state("chain")["base"]
    shop.cli("SET", "canary", "all-after")
    shop.shell("rm -r /data/deep; echo new > /data/new", shop.files)
    shop.order("all-after")
    kept = shop.confirmed("all", "--from", "far")
    assert shop.cli("GET", "canary") == "all-before"
    assert shop.cli("CONFIG", "GET", "appendonly").split() == ["appendonly", "yes"]
    assert shop.shell("cat /data/deep/file; stat -c %a /data/deep/file; ls /data", shop.files).output.split() == [
        "all-before",
        "640",
        "deep",
    ]
    assert shop.orders()[-1] == "all-before"
    for volume in ("postgres_data", "redis_data", "files_data"):
        assert any(entry.name == shop.volume(f"{volume}_before_{kept}") for entry in shop.engine.volumes.list())

    shop.order("all-later")
    shop.must("ship")
    assert shop.state("chain")["base"] != base
    shop.must("status")
    shop.order("all-latest")
    shop.must("ship")
    shop.must("discard", kept)
    shop.must("discard", shop.confirmed("web"))
    assert shop.orders()[-2:] == ["all-later", "all-latest"]


def test_restore_that_is_cut_off_while_data_changes_places_is_completed(shop: Shop) -> None:
    shop.cli("SET", "canary", "cut-before")
    shop.must("ship")
    shop.cli("SET", "canary", "cut-after")
    # Killed between keeping the old data and placing the new.
    script = """
import os, signal, sys
from pi_backup import __main__, volumes
move = volumes.move
def cut(source, target):
    if "scratch" in str(source):
        os.kill(os.getpid(), signal.SIGKILL)
    move(source, target)
volumes.move = cut
__main__.main(["restore", "redis", "--confirm", "replace redis with newest"])
"""
    shop.write("/tmp/cut.py", script)
    assert shop.shell("python3 /tmp/cut.py").status == 137
    for job in ("ship", "nightly"):
        refused = shop.backup(job)
        assert (refused.status, "restore --resume" in refused.output) == (2, True), refused.output
    assert shop.backup("status").status == 1
    done = re.search(r"kept as (\w+)", shop.must("restore", "--resume"))
    assert done is not None
    assert shop.cli("GET", "canary") == "cut-before"
    shop.must("discard", done[1])
    shop.must("ship")


REFUSED = [
    (["restore", "shopp"], "there is no service 'shopp'", "postgres, redis, files, web"),
    (["restore", "redis", "--at", "yesterday"], "'yesterday' is no time", "2026-11-20 14:35"),
    (["restore", "redis", "--at", "2999-01-01 00:00"], "is in the future", ""),
    (["restore", "redis", "--at", "2020-01-01 00:00"], "redis_data can be had from", ""),
    (["restore", "web", "--at", "2020-01-01 00:00"], "postgres_data can be had from", ""),
    (["restore", "redis", "--confirm", "yes"], 'type: "replace redis with newest"', ""),
    (["restore", "redis", "--from", "moon"], "there is no repository 'moon'", "near, far"),
    (["discard", "nothing"], "nothing is kept under 'nothing'", ""),
    (["undo", "nothing"], "nothing can be put back", ""),
]


@pytest.mark.parametrize(("words", "what", "remedy"), REFUSED, ids=lambda value: " ".join(value)[:40])
def test_what_makes_no_sense_is_refused_and_nothing_is_touched(
    shop: Shop, words: list[str], what: str, remedy: str
) -> None:
    shop.cli("SET", "canary", "untouched")
    said = shop.backup(*words)
    assert said.status != 0
    assert what in said.output
    assert remedy in said.output
    assert shop.cli("GET", "canary") == "untouched"


def test_other_machines_snapshots_are_named_and_left_alone(shop: Shop) -> None:
    shop.write_plan(host="other-pi")
    try:
        said = shop.backup("restore", "redis")
    finally:
        shop.write_plan()
    assert said.status == 2
    assert "holds no snapshot of other-pi; there are snapshots of shop-pi" in said.output


def test_snapshot_from_the_future_neither_restores_nor_prunes(shop: Shop) -> None:
    assert (
        shop.restic("backup", "--host", "shop-pi", "--time", "2999-01-01 00:00:00", "--tag", "ship", PLAN).status == 0
    )
    said = shop.backup("prune", "near")
    assert said.status == 1
    assert "1 snapshots claim to be from the future" in said.output
    assert "2999" not in shop.backup("restore", "redis").output
    snapshots = json.loads(shop.must("snapshots", "near"))
    shop.restic("forget", next(entry["id"] for entry in snapshots if entry["time"] > time.time() + 1000))
    shop.must("prune", "near")
    kept = json.loads(shop.must("snapshots", "near"))
    # Of each kind the newest of every hour (the tests may have begun in an earlier one); the oldest stays in any case.
    assert len(kept) < len(snapshots)
    for kind in ("nightly", "ship"):
        own = [entry["time"] for entry in snapshots if entry["kind"] == kind and entry["time"] < time.time()]
        of_hours = {entry_time // 3600: entry_time for entry_time in own}.values()
        found = [entry["time"] for entry in kept if entry["kind"] == kind]
        assert found in (list(of_hours), sorted({own[0], *of_hours}))


def test_wrong_password_is_named_and_the_other_place_goes_on(shop: Shop) -> None:
    password = "/etc/pi-commerce/backup/secrets/backup_far_password"
    shop.write(password, "another one")
    try:
        said = shop.backup("ship")
    finally:
        shop.write_plan()
    assert said.status == 1
    assert "repository far" in said.output
    assert password in said.output
    assert "near" not in said.output
    assert time.time() - shop.state("near")["points"]["redis_data"] < 60
    shop.must("ship")


def test_place_that_cannot_be_reached_is_named_and_a_restore_takes_the_other(shop: Shop) -> None:
    shop.shell(f"mv {FOLDER}/near {FOLDER}/unplugged")
    try:
        said = shop.backup("ship")
        assert said.status == 1
        assert "repository near" in said.output
        assert "is its disk mounted?" in said.output
        # Nothing is made where the disk should be.
        assert shop.shell(f"ls {FOLDER}/near").status != 0
        shown = shop.backup("restore", "redis")
        assert "not used: repository near" in shown.output
        assert "from repository far" in shown.output
    finally:
        shop.shell(f"mv {FOLDER}/unplugged {FOLDER}/near")
    shop.must("ship")


def test_another_repository_in_its_place_is_noticed(shop: Shop) -> None:
    shop.shell(f"mv {FOLDER}/near {FOLDER}/right")
    assert shop.restic("init").status == 0
    try:
        said = shop.backup("ship")
    finally:
        shop.shell(f"rm -r {FOLDER}/near; mv {FOLDER}/right {FOLDER}/near")
    assert "is another one than before" in said.output
    shop.must("ship")


def test_pi_may_only_add_to_the_far_repository(shop: Shop) -> None:
    shop.must("ship")
    before = {entry["id"] for entry in json.loads(shop.must("snapshots", "far"))}
    said = shop.backup("prune", "far")
    assert said.status == 1
    assert "lets nobody delete who comes this way" in said.output
    assert "pruned" not in shop.state("far")
    # Its exit code says nothing.
    assert "403 Forbidden" in shop.restic("forget", next(iter(before)), repository="far").output
    assert {entry["id"] for entry in json.loads(shop.must("snapshots", "far"))} == before


def test_far_repository_is_thinned_out_from_where_it_may_be_changed(shop: Shop) -> None:
    """With the admin's own plan, which knows no service; here through the folder behind the server."""
    # With those before, more than the oldest and the newest of two hours.
    for _ in range(3):
        shop.must("ship")
    before = json.loads(shop.must("snapshots", "far"))
    admin = {
        **shop.plan(services=[], recipients=[], sealed=[], host_paths=[], folder="/root/prune"),
        "repositories": {
            "far": {
                "url": f"{shop.root}/{shop.volume('far_data')}/_data/pi",
                "password_file": "/etc/pi-commerce/backup/secrets/backup_far_password",
            }
        },
    }
    shop.write("/root/admin.json", json.dumps(admin))
    shown = shop.must("--plan", "/root/admin.json", "prune", "far", "--dry-run")
    assert re.search(r"ship: \d+ kept, [1-9]\d* would be removed", shown)
    assert json.loads(shop.must("snapshots", "far")) == before
    shop.must("--plan", "/root/admin.json", "prune", "far")
    # What restic made there as root, the server has to be able to read.
    shop.shell(f"chown -R 1000:1000 {admin['repositories']['far']['url']}")
    after = json.loads(shop.must("snapshots", "far"))
    assert len(after) < len(before)
    assert after[-1] == before[-1]
    shop.must("pruned", "far")
    assert time.time() - shop.state("far")["pruned"] < 60
    assert shop.restic("check", repository="far").status == 0
    shop.must("ship")


def test_password_of_a_server_is_in_no_environment_of_the_engine(shop: Shop) -> None:
    """While it talks to that server, which is made to hesitate."""
    shop.far.pause()
    try:
        shop.shell("python3 -m pi_backup snapshots far > /tmp/listed 2>&1; echo $? >> /tmp/listed", detach=True)
        wait_until(lambda: shop.shell("pidof restic").status == 0, 30, "the engine runs")
        shown = shop.shell("for pid in $(pidof restic); do cat /proc/$pid/environ /proc/$pid/cmdline; done").output
    finally:
        shop.far.unpause()
    assert "RESTIC_REPOSITORY_FILE" in shown
    assert shop.far_password not in shown
    wait_until(lambda: shop.shell("tail -n 1 /tmp/listed").output == "0\n", 120, "it ends well")
    assert shop.far_password not in shop.shell("cat /tmp/listed").output


def test_secret_is_in_no_argument_and_no_plain_copy(shop: Shop) -> None:
    listed = shop.restic("ls", "--tag", "nightly", "latest").output
    assert "/etc/pi-commerce/backup/plan.json" in listed
    assert "/etc/pi-commerce/backup/secrets" not in listed
    bundle = next(line for line in listed.splitlines() if line.endswith("secrets.tar.age"))
    opened = shop.shell(
        f"{shop.near} restic dump --tag nightly latest {bundle} | age --decrypt -i /root/operator "
        "| tar -xO --wildcards '*/far_access'"
    )
    assert shop.far_password in opened.output
