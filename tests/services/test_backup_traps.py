"""What has cost others their data, one test each."""

from __future__ import annotations

import time

from backup_shop import FOLDER, SPOOL_MIB, Shop
from waiting import wait_until

AOF = "/data/appendonlydir"
KILL = """
import os, pathlib, signal, subprocess, sys
ship = subprocess.Popen(["python3", "-m", "pi_backup", "ship"], start_new_session=True)
while not [lock for lock in pathlib.Path(sys.argv[1]).iterdir() if "tmp" not in lock.name]:
    assert ship.poll() is None, "it was faster"
os.killpg(ship.pid, signal.SIGKILL)
ship.wait()
print("killed")
"""
FLIP = """
import os, sys
for path in sys.argv[1:]:
    os.chmod(path, 0o600)
    with open(path, "r+b") as pack:
        pack.seek(500000)
        byte = pack.read(1)
        pack.seek(500000)
        pack.write(bytes([byte[0] ^ 1]))
"""
ROWS = """
import os, sqlite3, sys
base = sqlite3.connect(sys.argv[1])
base.execute("PRAGMA journal_mode=WAL")
base.execute("PRAGMA wal_autocheckpoint=0")
base.execute("CREATE TABLE IF NOT EXISTS rows (number)")
base.executemany("INSERT INTO rows VALUES (?)", [(number,) for number in range(2000)])
base.commit()
os._exit(0)  # as a crash would: the rows are in the -wal alone
"""


def test_flipped_bit_in_a_pack_is_found_before_anything_is_replaced(shop: Shop) -> None:
    """A plain check passes, and a restore leaves a file of full length with other bytes."""
    find = f"find {FOLDER}/near/data -type f -size +1M"
    before = set(shop.shell(find).output.split())
    shop.shell("head -c 3000000 /dev/urandom > /data/random", shop.files)
    shop.must("ship")
    packs = " ".join(set(shop.shell(find).output.split()) - before)
    shop.write("/tmp/flip.py", FLIP)
    assert shop.shell(f"mkdir -p /root/packs && cp {packs} /root/packs && python3 /tmp/flip.py {packs}").status == 0
    try:
        assert shop.restic("check").status == 0
        shop.shell("echo live > /data/live", shop.files)
        said = shop.backup("restore", "files", "--from", "near", "--confirm", "replace files with newest")
        assert said.status == 1, said.output
        assert "repository near" in said.output
        assert shop.shell("cat /data/live", shop.files).output == "live\n"
    finally:
        shop.shell(f"for pack in {packs}; do cp /root/packs/${{pack##*/}} $pack; done")
    shop.must("discard", shop.confirmed("files", "--from", "near"))


def test_backup_that_is_killed_stops_neither_the_next_one_nor_a_prune(shop: Shop) -> None:
    shop.shell("head -c 60000000 /dev/urandom > /data/large", shop.files)
    shop.write("/tmp/kill.py", KILL)
    assert shop.shell(f"python3 /tmp/kill.py {FOLDER}/near/locks").output == "killed\n"
    locked = shop.shell(f"ls {FOLDER}/near/locks").output.split()
    assert locked
    shop.shell("rm /data/large", shop.files)
    shop.must("ship")
    shop.must("prune", "near")
    assert not set(locked) & set(shop.shell(f"ls {FOLDER}/near/locks").output.split())


def test_redis_that_makes_its_append_only_log_anew_is_saved_after_that(shop: Shop) -> None:
    shop.cli("EVAL", "for key = 1, 100 do redis.call('SET', 'slow:' .. key, key) end", "0")
    shop.cli("CONFIG", "SET", "rdb-key-save-delay", "50000")
    shop.cli("BGREWRITEAOF")
    # What has begun stays slow.
    shop.cli("CONFIG", "SET", "rdb-key-save-delay", "0")
    shop.cli("SET", "canary", "written meanwhile")
    assert "aof_rewrite_in_progress:1" in shop.cli("INFO", "persistence")
    shop.must("ship")
    shop.cli("SET", "canary", "written later")
    kept = shop.confirmed("redis")
    assert shop.cli("GET", "canary") == "written meanwhile"
    shop.must("discard", kept)


def test_redis_with_an_append_only_log_does_not_start_empty_from_a_dump(shop: Shop) -> None:
    shop.cli("SET", "canary", "in the dump")
    shop.must("ship")
    # The trap: the dump is there, the log is not.
    shop.shell(f"rm -r {AOF}", shop.redis)
    shop.cli("CONFIG", "SET", "appendonly", "no")
    shop.redis.kill()
    shop.redis.start()
    wait_until(lambda: shop.shell("valkey-cli PING", shop.redis).status == 0, 30, "it answers")
    assert shop.cli("DBSIZE") == "0"
    # What it has now is newer data, for those who do not know better.
    kept = shop.confirmed("redis")
    assert shop.cli("GET", "canary") == "in the dump"
    shop.redis.restart()
    wait_until(
        lambda: shop.shell("valkey-cli GET canary", shop.redis).output.strip() == "in the dump", 30, "it is back"
    )
    shop.must("discard", kept)


def test_zeros_at_the_end_of_the_log_are_cut_off_and_nothing_else_is(shop: Shop) -> None:
    shop.cli("SET", "canary", "before the cut")
    shop.cli("WAITAOF", "1", "0", "5000")
    shop.redis.kill()
    volume = f"{shop.root}/{shop.volume('redis_data')}/_data"
    log = shop.shell(f"ls {volume}/appendonlydir/*.incr.aof | tail -1").output.strip()
    shop.shell(f"head -c 512 /dev/zero >> {log}")
    shop.redis.start()
    wait_until(
        lambda: shop.shell("valkey-cli GET canary", shop.redis).output.strip() == "before the cut", 30, "it is up"
    )
    assert shop.shell(f"ls {volume}/before-repair").output.count(".aof") >= 2


def test_log_that_is_damaged_elsewhere_is_left_for_a_person(shop: Shop) -> None:
    for number in range(30):
        shop.cli("SET", f"bulk:{number}", "x" * 60000)
    shop.cli("WAITAOF", "1", "0", "5000")
    shop.must("ship")
    shop.redis.kill()
    volume = f"{shop.root}/{shop.volume('redis_data')}/_data"
    log = shop.shell(f"ls {volume}/appendonlydir/*.incr.aof | tail -1").output.strip()
    before = shop.shell(f"stat -c %s {log}").output
    # Where a command begins: damage within a value would not be seen by anybody.
    shop.shell(f"sed -i '0,/^\\*3\\r$/s//#3\\r/' {log}")
    assert shop.shell(f"stat -c %s {log}").output == before
    shop.redis.start()

    def refused() -> bool:
        shop.redis.reload()
        return str(shop.redis.status) == "exited"

    wait_until(refused, 30, "it refuses to start")
    assert "restore redis from the backup" in shop.redis.logs(tail=5).decode()
    assert shop.shell(f"stat -c %s {log}").output == before
    shop.must("discard", shop.confirmed("redis"))
    assert shop.cli("STRLEN", "bulk:29") == "60000"


def test_sqlite_comes_back_whole_and_without_the_log_of_another_moment(shop: Shop) -> None:
    shop.shell("rm -rf /data/*", shop.files)
    shop.shell(
        f"cat > /tmp/rows.py <<'END'\n{ROWS}\nEND\nmkdir /data/app; python3 /tmp/rows.py /data/app/shop.db", shop.files
    )
    assert "-wal" in shop.shell("ls /data/app", shop.files).output
    shop.must("ship")
    count = (
        "import sqlite3; print(sqlite3.connect('/data/app/shop.db').execute('SELECT count(*) FROM rows').fetchone()[0])"
    )
    # More rows of another moment, again in the -wal alone.
    shop.shell("python3 /tmp/rows.py /data/app/shop.db", shop.files)
    kept = shop.confirmed("files")
    assert shop.shell("ls /data/app", shop.files).output.split() == ["shop.db"]
    assert shop.shell(f'python3 -c "{count}"', shop.files).output.strip() == "2000"
    shop.must("discard", kept)


def test_quiet_log_leaves_the_server_with_every_ship(shop: Shop) -> None:
    """archive_timeout would wait for a checkpoint; here nobody waits, and nothing is written but one row."""
    moment = shop.order("alone in its segment")
    started = time.monotonic()
    shop.must("ship")
    point = shop.state("near")["points"]["postgres_data"]
    assert moment <= point <= moment + time.monotonic() - started + 5


def test_dump_holds_all_rows_and_one_that_was_cut_off_is_refused(shop: Shop) -> None:
    shop.order("in the dump")
    shop.must("nightly")
    listed = shop.restic("ls", "--tag", "nightly", "latest").output.splitlines()
    path = next(line for line in listed if line.endswith("shop.dump"))
    read = f"{shop.near} restic dump --tag nightly latest {path}"
    load = f"docker exec -i {shop.project}-postgres-1 pg_restore -U postgres --exit-on-error -d copy"
    for cut, complete in (("cat", True), ("head -c -2000", False)):
        shop.sql("CREATE DATABASE copy")
        said = shop.shell(f"{read} | {cut} | {load}")
        assert (said.status == 0) == complete, said.output
        if complete:
            rows = "SELECT count(*), max(word) FILTER (WHERE word = 'in the dump') FROM orders"
            assert shop.sql(rows, "copy").output == shop.sql(rows, "shop").output
        shop.sql("DROP DATABASE copy")


def test_full_spool_drops_log_instead_of_filling_the_disk_and_a_new_base_mends_it(shop: Shop) -> None:
    base = shop.state("chain")["base"]
    wal = f"{shop.root}/{shop.volume('postgres_spool')}/_data/wal"
    for number in range(4):
        shop.sql(
            f"CREATE TABLE filler{number} AS SELECT string_agg(md5(random()::text), '') "
            "FROM generate_series(1, 200000) GROUP BY random() < 0.1; SELECT pg_switch_wal()",
            "shop",
        )
    wait_until(lambda: shop.shell(f"ls {wal}/gap").status == 0, 60, "log is dropped")
    waiting = "SELECT count(*) FROM pg_ls_archive_statusdir() WHERE name LIKE '%.ready'"
    wait_until(lambda: shop.sql(waiting).output == "0", 60, "the server gets rid of its log")
    assert int(shop.shell(f"du -sm {wal}").output.split()[0]) < SPOOL_MIB + 17
    said = shop.backup("ship")
    assert said.status == 1
    assert "the spool was full" in said.output
    assert shop.state("chain")["base"] != base
    # Brought back, they would fill the spool again.
    shop.sql("DROP TABLE filler0, filler1, filler2, filler3", "shop")
    shop.order("after the gap")
    # Meanwhile the server may have cleaned up after them, and that is log too.
    wait_until(lambda: shop.backup("ship").status == 0, 120, "ships go on")
    shop.must("discard", shop.confirmed("web"))
    assert shop.orders()[-1] == "after the gap"
