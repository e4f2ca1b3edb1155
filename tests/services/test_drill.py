"""Drills of a shop that is well, of one where something is wrong, and of those that are cut off."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from backup_shop import FOLDER
from docker import DockerClient
from drill_faults import CUT_DUMP, FAULTS, FILE_CHANGED, PATIENT, Fault, saved
from drill_shop import SETTINGS, STATE, DrillShop
from waiting import wait_until

# `make faults WHAT=backup` sets it.
FULL = bool(os.environ.get("FULL"))
# As many programs a drill or a job starts until it is killed, that one with it.
DRILL_STEPS = range(5, 120, 9)
# Every fourth or third program that a job starts, to the last one.
JOB_STEPS = {"nightly": range(4, 100, 4), "ship": range(3, 100, 3)}
HEALTHY = 20
CANARIES = "ls -A /data | grep canary"
LONG = "takes minutes: part of `make faults WHAT=backup`"
# Shown by one drill, where each by itself would take one.
TOGETHER = {
    "dump cut short",
    "canary in a volume changed",
    "secrets bundle for another",
    "zeros at the end of the restored log",
    "log of another moment beside SQLite",
}
DAY = 86400
NOTIFY = "/usr/local/sbin/pi-commerce-notify"
# What was wrong, the verdict, and what has named it.
Row = tuple[str, str, str]
KILLED = """
import os, signal, subprocess
run, left = subprocess.run, [{step}]
def counted(*words, **options):
    left[0] -= 1
    if left[0]:
        return run(*words, **options)
    for name in ("input", "timeout", "check"):
        options.pop(name, None)
    subprocess.Popen(*words, **options)
    os.kill(os.getpid(), signal.SIGKILL)
subprocess.run = counted
"""
# Whoever saves stops half-way for another to save everything.
BESIDE = """
import subprocess, sys
from pi_backup import jobs
quick = jobs.Run.quick
def late(self):
    subprocess.run([sys.executable, "-m", "pi_backup", "ship"], check=True)
    quick(self)
jobs.Run.quick = late
"""
# Keeps the last thing it was told.
RECORDER = """#!/bin/sh
echo "$* $(head -1 | cut -c 1-15)" > /tmp/told
"""


@pytest.fixture(scope="module")
def shop(engine: DockerClient) -> Iterator[DrillShop]:
    """A shop that was on for a night."""
    made = DrillShop(engine)
    try:
        made.start()
        yield made
    finally:
        made.remove()


@pytest.fixture(scope="module")
def secrets_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where n8n's secrets are."""
    return tmp_path_factory.mktemp("secrets")


@pytest.mark.parametrize("fault", [fault for fault in FAULTS if fault.quick or FULL], ids=lambda fault: fault.name)
def test_what_is_wrong_is_found_and_named(shop: DrillShop, fault: Fault, fault_table: list[Row]) -> None:
    with fault.harm(shop):
        found = shop.drill(hooks=[fault.hook], key=fault.key, **{**PATIENT, **fault.settings})
    assert found.status == fault.verdict, found.output
    named = re.search(fault.words, found.words("failed" if fault.verdict == 1 else "could not run"))
    assert named, found.output
    assert shop.left_behind() == []
    fault_table.append((fault.name, found.verdict, named[0]))


def test_several_wrongs_are_each_named(shop: DrillShop) -> None:
    together = [fault for fault in FAULTS if fault.name in TOGETHER]
    assert len(together) == len(TOGETHER)
    with saved("nightly", CUT_DUMP, FILE_CHANGED)(shop):
        found = shop.drill(hooks=[fault.hook for fault in together], key="/root/stranger")
    assert found.status == 1, found.output
    for fault in together:
        assert re.search(fault.words, found.words("failed")), (fault.name, found.output)


@pytest.mark.skipif(not FULL, reason=LONG)
def test_what_a_killed_drill_leaves_is_swept_and_the_next_one_is_well(shop: DrillShop, fault_table: list[Row]) -> None:
    shop.must("ship")
    shop.write(SETTINGS, "{}")
    for step in DRILL_STEPS:
        assert shop.hooked([KILLED.format(step=step)], "drill").status == 137, step
        # What cron does by day.
        assert shop.must("drill", "--overdue") == ""
        assert shop.left_behind() == [], step
    found = shop.drill()
    assert (found.status, shop.left_behind()) == (0, []), found.output
    fault_table.append(
        (f"drill killed at {len(DRILL_STEPS)} steps", found.verdict, "the next one, nothing left behind")
    )


@pytest.mark.skipif(not FULL, reason=LONG)
def test_job_that_is_killed_spoils_no_copy(shop: DrillShop, fault_table: list[Row]) -> None:
    killed = 0
    for job, steps in JOB_STEPS.items():
        for step in steps:
            ended = shop.hooked([KILLED.format(step=step)], job).status
            if ended == 0:
                break
            assert ended == 137, (job, step)
            killed += 1
            shop.must("ship")
        assert ended == 0, f"{job} is not over after {step} programs"
    assert killed >= 10
    for name in ("far", "near"):
        found = shop.drill("--from", name, parts=1)
        assert found.status == 0, found.output
    fault_table.append((f"jobs killed at {killed} steps", found.verdict, "the next drills of both repositories"))


def test_ship_in_the_middle_of_a_night_spoils_neither(shop: DrillShop) -> None:
    # Those of runs that were killed stay for two days.
    shop.shell("cd /data; touch .pi-commerce-canary-new; touch -d '3 days ago' .pi-commerce-canary-old", shop.files)
    left = shop.shell(CANARIES, shop.files).output.replace(".pi-commerce-canary-old\n", "")
    done = shop.hooked([BESIDE], "nightly")
    assert done.status == 0, done.output
    found = shop.drill(parts=1)
    assert found.status == 0, found.output
    assert shop.shell(CANARIES, shop.files).output == left


def test_name_of_the_drills_that_is_somebody_elses_is_left_alone(shop: DrillShop) -> None:
    name = f"{shop.project}-drill_scratch_mine"
    shop.engine.volumes.create(name)
    try:
        refused = shop.backup("drill")
        assert refused.status == 2
        assert f"{name}: has a name of the drill's and is none of its; rename it" in refused.output
        assert shop.engine.volumes.get(name).name == name
    finally:
        shop.engine.volumes.get(name).remove()
    shop.write_plan(repositories={"near": {"url": f"{FOLDER}/drill/near", "password_file": "/none"}})
    try:
        refused = shop.backup("drill")
    finally:
        shop.write_plan()
    assert (refused.status, "which a drill empties; move it" in refused.output) == (2, True), refused.output


REFUSED = [
    (["drill", "--from", "moon"], {}, "there is no repository 'moon'; there are: near, far"),
    (["drill"], {"repository": "mars"}, "there is no repository 'mars'"),
    (["drill"], {"overdue": 3}, "settings.json: is no settings file"),
]


@pytest.mark.parametrize(("words", "settings", "text"), REFUSED, ids=str)
def test_settings_that_make_no_sense_are_named(
    shop: DrillShop, words: list[str], settings: dict[str, object], text: str
) -> None:
    shop.write(SETTINGS, json.dumps(settings))
    said = shop.backup(*words)
    assert (said.status, text in said.output) == (1, True), said.output


def test_owner_is_told_of_a_bad_drill_and_of_one_that_is_overdue(shop: DrillShop) -> None:
    shop.write(NOTIFY, RECORDER)
    shop.shell(f"chmod +x {NOTIFY}")
    try:
        assert shop.drill(budget_minutes=0.001).status == 2
        assert shop.told() == "--key drill-unknown --level warning restore drill: COULD-NOT-VERIFY # Restore drill"
        noted = shop.noted()
        try:
            who_is_told_when_it_is_overdue(shop, noted)
        finally:
            shop.write(STATE, json.dumps(noted))
    finally:
        shop.shell(f"rm {NOTIFY}")


def who_is_told_when_it_is_overdue(shop: DrillShop, noted: dict[str, Any]) -> None:
    """More and more days after the last good one, and where there was none at all."""
    for days, key, level in (
        (34, "", ""),
        (36, "drill-overdue", "warning"),
        (46, "drill-overdue-urgent", "critical"),
    ):
        past = {**noted, "since": time.time() - 99 * DAY, "succeeded": time.time() - days * DAY}
        shop.write(STATE, json.dumps(past))
        said = shop.backup("drill", "--overdue")
        assert (said.status, f"for {days} days, 35 are allowed" in said.output) == (int(bool(key)), bool(key))
        assert shop.told().startswith(key and f"--key {key} --level {level} restore drill is overdue")
    # Never one at all: from when it could have been on.
    shop.write(STATE, json.dumps({**noted, "since": time.time() - 36 * DAY, "succeeded": 0}))
    assert shop.backup("drill", "--overdue").status == 1


@pytest.mark.skipif(not FULL, reason=LONG)
def test_shop_that_is_well_raises_no_alarm(shop: DrillShop, fault_table: list[Row]) -> None:
    took = [_healthy(shop, number) for number in range(HEALTHY)]
    fault_table.append((f"nothing, {HEALTHY} times", "verified", f"each time, in {min(took):.0f} to {max(took):.0f} s"))


def _healthy(shop: DrillShop, number: int) -> float:
    """A drill of data that nobody has foreseen; how long it took (seconds)."""
    shop.trade()
    shop.must("nightly" if number % 4 == 3 else "ship")
    shop.trade()
    shop.must("ship")
    started = time.monotonic()
    found = shop.drill("--from", ("far", "near")[number % 2], key="/root/operator")
    assert found.status == 0, found.output
    return time.monotonic() - started


def test_drill_of_a_shop_with_n8n_after_one_that_was_killed_and_while_copies_go_on(
    shop: DrillShop, secrets_folder: Path
) -> None:
    shop.add_n8n(secrets_folder)
    shop.trade()
    shop.must("nightly")
    shop.must("ship")
    shop.write(SETTINGS, json.dumps({"kept": 1}))
    # Drills whose clock was ahead on purpose: theirs would be the last one.
    shop.shell(f"cd {FOLDER}/drills && ls 2* | awk -v now=$(date -u +%Y%m%dT%H%M%SZ) '$0 > now' | xargs -r rm")
    assert shop.hooked([KILLED.format(step=60)], "drill").status == 137
    assert shop.left_behind()
    shop.host.exec_run(
        [
            "sh",
            "-c",
            "python3 -m pi_backup drill --operator-key < /root/operator > /tmp/said 2>&1; echo $? > /tmp/status",
        ],
        detach=True,
    )
    wait_until(lambda: any("scratch-postgres" in name for name in shop.left_behind()), 600, "it has begun")
    for listed in shop.scratch_containers():
        found = shop.engine.api.inspect_container(listed["Id"])
        assert found["HostConfig"]["NetworkMode"].split(":")[0] in ("none", "container")
        assert not found["HostConfig"]["PortBindings"]
        # It ends by itself, whatever becomes of the drill.
        assert found["Config"]["Entrypoint"] == ["timeout"]
    shop.must("ship")
    busy = shop.backup("drill")
    assert (busy.status, "another drill is running" in busy.output) == (75, True), busy.output
    wait_until(lambda: shop.shell("cat /tmp/status").status == 0, 900, "it has ended")
    output = shop.shell("cat /tmp/said").output
    assert shop.shell("cat /tmp/status").output == "0\n", output
    assert shop.left_behind() == []

    names = shop.shell(f"cd {FOLDER}/drills && ls 2*").output.split()
    assert [name.split(".")[1] for name in names] == ["json", "md"]
    report = json.loads(shop.shell(f"cat {FOLDER}/drills/{names[0]}").output)
    assert {entry["outcome"] for entry in report["checks"]} == {"passed"}, output
    assert {"n8n starts", "n8n credentials", "n8n workflow", "bundle opens"} <= {e["name"] for e in report["checks"]}
    assert report["mib_per_second"] > 0
    metrics = shop.shell(f"stat -c %a {FOLDER}/drill.prom; cat {FOLDER}/drill.prom").output
    assert metrics.startswith("644\n")
    assert f"pi_drill_success_timestamp_seconds {report['ended']:.0f}\n" in metrics
    assert 'pi_drill_check{check="n8n workflow"} 0\n' in metrics
    assert re.search(r'^pi_drill_rpo_seconds\{store="postgres_data"\} \d+', metrics, re.MULTILINE)


@pytest.mark.skipif(not FULL, reason=LONG)
def test_wrong_key_of_n8n_is_found(shop: DrillShop, secrets_folder: Path, fault_table: list[Row]) -> None:
    key = secrets_folder / "n8n_encryption_key"
    kept = key.read_text()
    key.write_text("0" * 32)
    try:
        found = shop.drill()
    finally:
        key.write_text(kept)
    assert found.status == 1, found.output
    named = re.search(r"n8n (starts: .*encryption key|credentials: .*do not decrypt)", found.words("failed"))
    assert named, found.output
    fault_table.append(("wrong key of n8n", found.verdict, named[0]))
