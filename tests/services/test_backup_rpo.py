"""The promise: what was written before the last minutes is never lost, however suddenly the machine is.

Everything runs as on a Pi, with seconds instead of minutes: something is written into every store all the time, cron
starts `ship` at its hours, a night may fall, and at a random moment the machine is gone. The next one gets its data
from the far repository. `FULL=1` does that twenty times; `SEED=...` does it once more as it was.
"""

from __future__ import annotations

import json
import math
import os
import random
import secrets
import time
from collections.abc import Iterator

import pytest
from backup_shop import FOLDER, Shop
from docker import DockerClient
from waiting import wait_until

DESTROYED = 20 if os.environ.get("FULL") else 2
SEED = int(os.environ.get("SEED", secrets.randbelow(1_000_000)))
# Instead of five minutes.
INTERVAL = 3.0
# A row, a key, a file and a row in SQLite, ten times a second each, all named by the time they were written at.
ROWS = "psql -Xq -U postgres -d shop -c 'SELECT 1' -f - <<'END'\nINSERT INTO tokens DEFAULT VALUES \\watch 0.1\nEND"
KEYS = """valkey-cli -r -1 -i 0.1 EVAL "
local now = redis.call('TIME')
return redis.call('RPUSH', KEYS[1], now[1] .. '.' .. string.format('%06d', now[2]))" 1 tokens"""
FILES = """
import pathlib, sqlite3, time
folder = pathlib.Path("/data/tokens")
folder.mkdir(exist_ok=True)
base = sqlite3.connect("/data/tokens.db", isolation_level=None)
base.execute("PRAGMA journal_mode=WAL")
base.execute("CREATE TABLE IF NOT EXISTS tokens (at REAL)")
while True:
    (folder / f"{time.time():.6f}").touch()
    base.execute("INSERT INTO tokens VALUES (?)", [round(time.time(), 6)])
    time.sleep(0.1)
"""
READ_FILES = "import os; print(*os.listdir('/data/tokens'))"
READ_SQLITE = (
    "import sqlite3; print(*(at for at, in sqlite3.connect('/data/tokens.db').execute('SELECT at FROM tokens')))"
)
# As cron does it: at every full interval, whether or not the one before has ended.
CRON = """
import subprocess, sys, threading, time
def run():
    started = time.time()
    status = subprocess.run(["python3", "-m", "pi_backup", "ship"], stdout=subprocess.DEVNULL).returncode
    print(started, time.time(), status, file=log, flush=True)
log = open("/root/runs", "a")
while True:
    print(time.time(), file=open("/root/begun", "a"))
    threading.Thread(target=run).start()
    time.sleep(float(sys.argv[1]))
"""
# A night that has staged its data and waits with saving it.
HELD_NIGHT = """
import pathlib, time
from pi_backup import __main__, jobs
upload = jobs.Run.upload
def late(self, *given):
    pathlib.Path("/tmp/staged").touch()
    end = time.time() + 120
    while not pathlib.Path("/tmp/go").exists() and time.time() < end:
        time.sleep(0.1)
    return upload(self, *given)
jobs.Run.upload = late
pathlib.Path("/tmp/ended").write_text(str(__main__.main(["nightly"])))
"""
TOKENS = "CREATE TABLE IF NOT EXISTS tokens (at timestamptz DEFAULT clock_timestamp())"


@pytest.fixture(scope="module")
def mortal(engine: DockerClient) -> Iterator[Shop]:
    """A shop that is going to be lost."""
    made = Shop(engine)
    try:
        made.start()
        made.sql(TOKENS, "shop")
        yield made
    finally:
        made.remove()


def rows(shop: Shop) -> set[float]:
    """The times of the rows in PostgreSQL."""
    return set(map(float, shop.sql("SELECT extract(epoch FROM at) FROM tokens", "shop").output.split()))


def written(shop: Shop) -> dict[str, set[float]]:
    """The times of everything that is in each store."""
    texts = {
        "redis_data": shop.cli("LRANGE", "tokens", "0", "-1"),
        "files_data": shop.shell(f'python3 -c "{READ_FILES}"', shop.files).output,
        "files_data (SQLite)": shop.shell(f'python3 -c "{READ_SQLITE}"', shop.files).output,
    }
    found = {store: {float(word) for word in text.split()} for store, text in texts.items()}
    return {"postgres_data": rows(shop), **found}


def test_a_night_alone_brings_back_all_that_it_says(mortal: Shop) -> None:
    """Also what was written while the copy was checked."""
    mortal.shell(ROWS.replace("0.1", "0.01"), mortal.postgres, detach=True)
    wait_until(lambda: mortal.sql("SELECT count(*) > 9 FROM tokens", "shop").output == "t", 60, "the writer")
    mortal.must("nightly")
    before = rows(mortal)
    reached = json.loads(mortal.shell(f"cat {FOLDER}/state/far.json").output)["points"]["postgres_data"]
    mortal.destroy()

    mortal.machine()
    mortal.confirmed("all", "--from", "far")
    lost = before - rows(mortal)
    assert lost, "nothing was written after the night"
    assert min(lost) > reached


def test_night_that_is_saved_after_a_ship_of_later_data_hides_none_of_it(mortal: Shop) -> None:
    # After a restore the log goes on from a new base.
    mortal.must("nightly")
    mortal.write("/tmp/night.py", HELD_NIGHT)
    mortal.shell("python3 /tmp/night.py", detach=True)
    wait_until(lambda: mortal.shell("test -e /tmp/staged").status == 0, 120, "the night has staged everything")
    mortal.sql("INSERT INTO tokens VALUES ('2001-01-01 00:00Z')", "shop")
    mortal.cli("SET", "late", "here")
    mortal.shell("touch /data/late", mortal.files)
    begun = time.time()
    mortal.must("ship")
    mortal.shell("touch /tmp/go")
    wait_until(lambda: mortal.shell("test -e /tmp/ended").status == 0, 120, "the night ends")
    assert mortal.shell("cat /tmp/ended").output == "0"
    points = json.loads(mortal.shell(f"cat {FOLDER}/state/far.json").output)["points"]
    assert min(points.values()) >= begun
    mortal.destroy()

    mortal.machine()
    said = mortal.confirmed("all", "--from", "far")
    assert 978307200.0 in rows(mortal)
    assert mortal.cli("GET", "late") == "here"
    assert mortal.shell("test -e /data/late", mortal.files).status == 0, said


def live(shop: Shop, chance: random.Random) -> dict[str, set[float]]:
    """Write and save for a while, then destroy; what had been written, and what the program said it had saved."""
    shop.shell(ROWS, shop.postgres, detach=True)
    shop.shell(KEYS, shop.redis, detach=True)
    shop.shell(f"python3 - <<'END'\n{FILES}\nEND", shop.files, detach=True)
    wait_until(lambda: shop.shell(f'python3 -c "{READ_SQLITE}" | grep -q .', shop.files).status == 0, 60, "the writers")
    shop.must("ship")
    shop.write("/tmp/cron.py", CRON)
    shop.shell(f"python3 /tmp/cron.py {INTERVAL}", detach=True)
    wait_until(lambda: shop.shell("test -s /root/runs").status == 0, 120, "the first run ends")
    end = time.time() + chance.uniform(0, 4 * INTERVAL)
    if chance.random() < 0.5:
        shop.shell("python3 -m pi_backup nightly", detach=True)
    wait_until(lambda: time.time() > end, 60, "the machine's end")
    return written(shop)


def promised(shop: Shop, end: float) -> float:
    """Seconds: the interval, a run, and one that was missed; longer runs than the interval miss more of them."""
    begun = [float(line) for line in shop.shell("cat /root/begun").output.split()]
    ended = [tuple(map(float, line.split()))[:2] for line in shop.shell("cat /root/runs").output.splitlines()]
    pending = [end - start for start in begun if not any(abs(start - started) < 0.5 for started, _ in ended)]
    longest = max([stop - start for start, stop in ended] + pending)
    return INTERVAL * (1 + max(1, math.ceil(longest / INTERVAL))) + longest


@pytest.mark.parametrize("number", range(DESTROYED))
def test_nothing_older_than_promised_is_lost_with_the_machine(mortal: Shop, number: int) -> None:
    chance = random.Random(SEED + number)  # noqa: S311 - not a secret
    print(f"SEED={SEED + number}")
    before = live(mortal, chance)
    end = time.time()
    promise = promised(mortal, end)
    points = json.loads(mortal.shell(f"cat {FOLDER}/state/far.json").output)["points"]
    mortal.destroy()

    mortal.machine()
    mortal.confirmed("all", "--from", "far")
    found = written(mortal)
    for store, times in before.items():
        assert max(times) > end - promise, f"{store}: nothing was written that could be lost"
        lost = times - found[store]
        age = end - min(lost, default=end)
        lost_at = f"the oldest {age:.1f} s before the end, {promise:.1f} s are promised"
        print(f"{store}: {len(times)} written, {len(lost)} lost, {lost_at}")
        assert age <= promise, store
        # What metrics and `status` call restorable is.
        assert not [moment for moment in lost if moment <= points[store.split()[0]]], store
