"""What a backup costs and what a restore takes, always beside the plain thing: `make bench WHAT=backup`.

A small shop in containers (tests/services/backup_shop.py) and, for what a killed service takes to come back, a virtual
Pi of its own (KEEP=1 keeps and reuses it). In one run and in turns, so that a slow computer is slow for all:

- SIZE GB (default 1) of files, half of them compressible: restored by the program, by the bare engine, copied by `cp`
- the latency of a database at a fixed rate of requests: at rest, during ships and nightlies one after the other
- a Redis of 1 GB, from the backup until it answers with all its keys
- every service on the virtual Pi: killed, until it is healthy again (KILLS times each; 0 leaves that out)

Figures are this computer's, not a Raspberry Pi's; the ratios are what to look at.
"""

from __future__ import annotations

import json
import os
import shlex
import statistics
import sys
import threading
import time
from collections.abc import Callable, Sequence

import docker
import machine

sys.path += [str(machine.ROOT / folder) for folder in ("tests/services", "molecule/shared", "plugins/module_utils")]

from backup_shop import FOLDER, Shop

SIZE = float(os.environ.get("SIZE", "1"))
RUNS = int(os.environ.get("RUNS", "3"))
KILLS = int(os.environ.get("KILLS", "5"))
REDIS_KEYS = int(os.environ.get("REDIS_KEYS", "1000000"))
LOAD_SECONDS = 40
SHIP_EVERY = 300
# Files of 4 MiB: random bytes, then the same bytes over and over.
MAKE_FILES = """
import os, pathlib, sys
folder = pathlib.Path("/data/bench")
folder.mkdir()
for number in range(int(sys.argv[1])):
    (folder / f"{number}.bin").write_bytes(os.urandom(2 << 20) + os.urandom(256) * (1 << 13))
"""
MAKE_KEYS = """
for key = ARGV[1], ARGV[2] do
  local parts = {}
  for part = 1, 25 do parts[part] = redis.sha1hex(key .. '.' .. part) end
  redis.call('SET', 'bench:' .. key, table.concat(parts))
end"""
KEYS_AT_ONCE = 20_000
GOALS = {
    "restored / bare engine": ">= 0.5",
    "p99 with one ship in five minutes": "< 1.10 of idle",
    "Redis, 1 GB": "< 120 s",
    "service restart p95": "< 60 s",
}


def seconds(work: Callable[[], object]) -> float:
    """How long it takes."""
    begun = time.monotonic()
    work()
    return time.monotonic() - begun


def run(shop: Shop, script: str) -> str:
    """A script on the shop's machine; it must succeed."""
    said = shop.shell(f"set -e\n{script}")
    if said.status:
        sys.exit(f"{script}: {said.output}")
    return said.output


def percentile(samples: Sequence[tuple[float, float]], share: float) -> float:
    """The value below which that share of the weight lies: samples are (value, weight)."""
    ordered, total, passed = sorted(samples), sum(weight for _, weight in samples), 0.0
    for value, weight in ordered:
        passed += weight
        if passed >= share * total:
            return value
    return ordered[-1][0]


def files(shop: Shop) -> list[tuple[str, str, str]]:
    """Restores of a volume of SIZE GB against the bare engine and a copy."""
    count = max(1, round(SIZE * 1000 / 4.2))
    made = shop.shell(f"python3 - {count} <<'END'\n{MAKE_FILES}\nEND", shop.files)
    if made.status:
        sys.exit(made.output)
    volume = f"{shop.root}/{shop.volume('files_data')}/_data"
    saved = [seconds(lambda: shop.must("ship"))]
    size = int(run(shop, f"du -sm {volume}").split()[0])
    scratch = f"{shop.root}/bench-{shop.project}"
    snapshot = run(shop, f"{shop.near} restic snapshots --no-lock --json latest --tag ship | head -c 100000")
    latest = snapshot.rsplit('"id":"', 1)[1][:64]
    ways = {
        "cp": f"cp -a {volume} {scratch}; sync",
        "restic": f"{shop.near} restic restore --no-lock --quiet {latest}:{volume} --target {scratch}; sync",
        "ours": "python3 -m pi_backup restore files --from near --confirm 'replace files with newest'; sync",
    }
    times: dict[str, list[float]] = {way: [] for way in ways}
    for turn in range(RUNS):
        for way, script in ways.items():
            run(shop, f"rm -rf {scratch}")
            times[way].append(seconds(lambda script=script: run(shop, script)))  # type: ignore[misc]
            print(f"{turn + 1}/{RUNS} {way}: {times[way][-1]:.1f} s", flush=True)
        kept = " ".join(shop.state("kept"))
        run(shop, f"for name in {kept}; do python3 -m pi_backup discard $name; done")
    run(shop, f"rm -rf {scratch}")
    shop.shell("rm -r /data/bench", shop.files)
    shop.shell(f"rm -f {FOLDER}/state/sizes.json")
    middle = {way: statistics.median(found) for way, found in times.items()}
    named = {"cp": "plain copy", "restic": "bare engine", "ours": "restored by the program"}
    rows = [
        (f"{named[way]}, {size} MiB", f"{found:.1f} s", f"{size / found:.0f} MiB/s") for way, found in middle.items()
    ]
    return [
        (f"first save of {size} MiB to two places", f"{saved[0]:.1f} s", f"{size / saved[0]:.0f} MiB/s"),
        *rows,
        ("restored / bare engine", f"{middle['restic'] / middle['ours']:.2f}", "rate to rate"),
        ("restored / plain copy", f"{middle['cp'] / middle['ours']:.2f}", "rate to rate"),
    ]


def under(shop: Shop, words: str) -> tuple[list[float], float]:
    """Latencies (ms) while a job runs again and again (none: at rest), and how long one run took."""
    shop.shell("rm -f /tmp/bench.*", shop.postgres)
    over, took = threading.Event(), [0.0]

    def again() -> None:
        while words and not over.is_set():
            took.append(seconds(lambda: run(shop, f"nice ionice -c 3 python3 -m pi_backup {words}")))

    at_work = threading.Thread(target=again)
    at_work.start()
    load = f"pgbench -n -R 40 -c 4 -j 1 -T {LOAD_SECONDS} -l --log-prefix=/tmp/bench -U postgres shop"
    said = shop.shell(load, shop.postgres)
    over.set()
    at_work.join()
    if said.status:
        sys.exit(said.output)
    lines = shop.shell("cat /tmp/bench.*", shop.postgres).output.splitlines()
    return [int(line.split()[2]) / 1000 for line in lines], statistics.median(took[1:] or took)


def latency(shop: Shop) -> list[tuple[str, str, str]]:
    """What requests feel of a backup."""
    said = shop.shell("pgbench -iq -s 10 -U postgres shop", shop.postgres)
    if said.status:
        sys.exit(said.output)
    shop.must("nightly")
    samples: dict[str, list[float]] = {"": [], "ship": [], "nightly": []}
    took = dict.fromkeys(samples, 0.0)
    for turn in range(RUNS):
        for job, found in samples.items():
            more, took[job] = under(shop, job)
            found += more
            print(f"{turn + 1}/{RUNS} latency, {job or 'idle'}: {len(more)} requests", flush=True)
    p99 = {job: percentile([(value, 1) for value in found], 0.99) for job, found in samples.items()}
    p50 = {job: statistics.median(found) for job, found in samples.items()}
    idle = [(value, (SHIP_EVERY - took["ship"]) / len(samples[""])) for value in samples[""]]
    mixed = percentile([*idle, *((value, took["ship"] / len(samples["ship"])) for value in samples["ship"])], 0.99)
    rows = [
        (
            f"request latency, {job or 'idle'}",
            f"p50 {p50[job]:.1f}, p99 {p99[job]:.1f} ms",
            f"{p99[job] / p99['']:.2f} of idle",
        )
        for job in samples
    ]
    return [
        *rows,
        ("one ship, one nightly", f"{took['ship']:.1f} s, {took['nightly']:.1f} s", ""),
        ("p99 with one ship in five minutes", f"{mixed:.1f} ms", f"{mixed / p99['']:.2f} of idle"),
    ]


def redis(shop: Shop) -> list[tuple[str, str, str]]:
    """How long a Redis of about 1 GB takes to come back."""
    shop.cli("CONFIG", "SET", "maxmemory", "0")
    for first in range(1, REDIS_KEYS, KEYS_AT_ONCE):
        shop.cli("EVAL", MAKE_KEYS, "0", str(first), str(min(first + KEYS_AT_ONCE - 1, REDIS_KEYS)))
    size = int(shop.cli("DBSIZE"))
    memory = next(line for line in shop.cli("INFO", "memory").splitlines() if line.startswith("used_memory_human"))
    saved = seconds(lambda: shop.must("ship"))

    def back() -> None:
        run(shop, "python3 -m pi_backup restore redis --from near --confirm 'replace redis with newest'")
        while (found := shop.shell("valkey-cli DBSIZE", shop.redis).output.strip()) != str(size):
            if "LOADING" not in found and "refused" not in found:
                sys.exit(f"{found} keys came back instead of {size}")
            time.sleep(0.2)

    took = seconds(back)
    return [
        (f"Redis, {memory.split(':')[1]}, {size} keys: one ship", f"{saved:.1f} s", ""),
        ("Redis, 1 GB: back with all keys", f"{took:.1f} s", ""),
    ]


def killed(name: str) -> float:
    """Seconds from the kill of a container's main process until its health check passes, asked without a pause."""
    test = json.loads(machine.pi(f"docker inspect {name}"))[0]["Config"]["Healthcheck"]["Test"]
    assert test[0] == "CMD", f"{name}: {test}"
    script = f"""
set -eu
started() {{ docker inspect --format '{{{{.State.StartedAt}}}}' {name}; }}
before=$(started)
begun=$(date +%s.%N)
kill -9 "$(docker inspect --format '{{{{.State.Pid}}}}' {name})"
for try in $(seq 3000); do
  sleep 0.1
  [ "$(started)" = "$before" ] || ! docker exec {name} {shlex.join(test[1:])} >/dev/null 2>&1 || break
done
[ "$try" -lt 3000 ]
echo "$(date +%s.%N) $begun" | awk '{{print $1 - $2}}'
"""
    return float(machine.pi(script))


def restarts() -> list[tuple[str, str, str]]:
    """How long services take to be healthy after their main process was killed."""
    if not (os.environ.get("KEEP") and (machine.STATE / "secrets.vault.yml").exists()):
        machine.make("down")
        machine.make("up")
    names = machine.pi("docker ps --format '{{.Names}}' --filter health=healthy").split()
    rows, everything = [], []
    for name in names:
        taken = [killed(name) for _ in range(KILLS)]
        everything += taken
        print(f"{name}: {', '.join(f'{value:.1f}' for value in taken)} s", flush=True)
        rows.append((f"{name} killed", f"median {statistics.median(taken):.1f} s", f"longest {max(taken):.1f} s"))
    if not os.environ.get("KEEP"):
        machine.make("down")
    return [*rows, ("service restart p95", f"{percentile([(value, 1) for value in everything], 0.95):.1f} s", "")]


def main() -> None:
    """Measure, print."""
    machine.make("images")
    client = docker.from_env()
    shop = Shop(client)
    try:
        shop.start()
        table = [*files(shop), *latency(shop), *redis(shop)]
    finally:
        shop.remove()
        client.close()
    if KILLS:
        table += restarts()
    print(f"\nmeasured in containers on this computer ({os.cpu_count()} processors), not on a Raspberry Pi")
    for name, value, more in table:
        goal = next((f"  goal {goal}" for start, goal in GOALS.items() if name.startswith(start)), "")
        print(f"{name:<52} {value:>32}  {more}{goal}".rstrip())


if __name__ == "__main__":
    main()
