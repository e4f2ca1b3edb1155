"""What one check costs, side by side with the bare script in Redis: `make bench WHAT=limiter`.

Everything runs on this computer's loopback against one Redis, in turns, five rounds, medians: rates and times move
with what else the computer does, ratios of one run less so, CPU time least. Wants redis-benchmark and wrk, and a Redis
(installed, or our image).

- raw: a GCRA script by EVALSHA, 32 connections, not pipelined: the unit. CPU of redis-benchmark and Redis
- 10 logs, raw: the script of our own that a call of 10 checks runs, likewise; what Redis can do of them at most
- check, 10 per call: our service, an exact log of 180 a second, 256 tenants; CPU of the service and Redis. Beyond
  46,000 checks a second the tenants' quotas are used up, and what is more is denied, as by the bare script
- 10, all let in: the same under a limit that is never reached
- uvicorn: the same limiter behind uvicorn instead of its own front
- FastAPI + limits: what one would write first
"""

from __future__ import annotations

import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from urllib.request import urlopen

import machine
from waiting import wait_until

sys.path[:0] = [str(machine.ROOT / folder) for folder in ("tests/services", "molecule/shared")]

from local_redis import LocalRedis, free_port  # noqa: E402
from rate_limiter_server import SOURCE  # noqa: E402

ROUNDS = int(os.environ.get("ROUNDS", "5"))
SECONDS = 3
CONNECTIONS = 32
TICK = os.sysconf("SC_CLK_TCK")
PEERS = Path(__file__).parent / "limiter_peers"
RAW = """
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local full = math.max(now, tonumber(redis.call('GET', KEYS[1]) or now)) + 5556
if full - now > 1000000 then return {0, 0, full - 1000000 - now} end
redis.call('SET', KEYS[1], string.format('%.0f', full), 'PX', math.ceil((full - now) / 1000))
return {1, math.floor((1000000 - full + now) / 5556), 0}
"""
LIMIT, SPAN = 180, 1_000_000
POLICIES = {
    "bench": {"limit": LIMIT, "window_seconds": SPAN // 1_000_000},
    "wide": {"limit": 1000, "window_seconds": SPAN // 1_000_000},
}
LOGS = ["20", *["rl:raw/block:__rand_int__", "rl:raw:__rand_int__"] * 10, *[str(LIMIT), str(SPAN), "1"] * 10]
TEN = """'{"checks":[' .. string.rep(one .. ',', 9) .. one .. ']}'"""


class Measured(NamedTuple):
    """Checks a second, milliseconds at the 50th and 99th percentile, CPU microseconds a check, MiB of the service."""

    rate: float
    half: float
    late: float
    cpu: float
    memory: float = 0


def cpu_of(pid: int) -> float:
    """Seconds of CPU that a process has taken."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def memory_of(pid: int) -> float:
    """MiB that a process holds."""
    found = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) / 1024 if found else 0


def raw(redis: LocalRedis, program: str, words: list[str], each: int) -> Measured:
    """A bare script that does so many checks, by redis-benchmark."""
    before, children = cpu_of(redis.pid), os.times()
    calls = 60_000 // each
    command = [program, "-p", str(redis.port), "--user", "default", "-a", redis.admin_password]
    command += ["-c", str(CONNECTIONS), "-n", str(calls), "-r", "256", "--csv", "evalsha", *words]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    after = os.times()
    client = after.children_user + after.children_system - children.children_user - children.children_system
    numbers = [float(field) for field in re.findall(r'"([\d.]+)"', printed.splitlines()[-1])]
    cpu = (cpu_of(redis.pid) - before + client) / (calls * each) * 1e6
    return Measured(numbers[0] * each, numbers[3], numbers[5], cpu)


def load(redis: LocalRedis, pid: int, port: int, path: str, body: str, each: int, api: str = "bench") -> Measured:
    """One service, by wrk; ``body`` is Lua that makes one of ``one``, a check of ``api``."""
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        # Put together once: what the caller itself does is not what is measured.
        script.write(
            "local ready, last = {}, 0\nfunction init()\n  for number = 1, 256 do\n"
            f"""    local one = '{{"api":"{api}","key":"' .. number .. '"}}'\n"""
            f"    ready[number] = wrk.format('POST', '{path}', {{['Content-Type'] = 'application/json'}}, {body})\n"
            "  end\nend\nfunction request()\n  last = last % 256 + 1\n  return ready[last]\nend\n"
        )
        script.flush()
        before = cpu_of(pid) + cpu_of(redis.pid)
        command = ["wrk", "-c", str(CONNECTIONS), "-t", "1", "-d", f"{SECONDS}s", "--latency", "-s", script.name]
        printed = subprocess.run(
            [*command, f"http://127.0.0.1:{port}"], check=True, capture_output=True, text=True
        ).stdout
    if wrong := re.search(r"Non-2xx.*|Socket errors.*", printed):
        raise SystemExit(f"{path}: {wrong[0]}")
    count = int(re.search(r"(\d+) requests in", printed)[1]) * each  # type: ignore[index]
    rate = float(re.search(r"Requests/sec: +([\d.]+)", printed)[1]) * each  # type: ignore[index]
    units = {"us": 0.001, "ms": 1.0, "s": 1000.0}
    found = {
        share: float(number) * units[unit] for share, number, unit in re.findall(r"(\d+)% +([\d.]+)(us|ms|s)", printed)
    }
    used = cpu_of(pid) + cpu_of(redis.pid) - before
    return Measured(rate, found["50"], found["99"], used / count * 1e6, memory_of(pid))


@contextmanager
def service(command: list[str], port: int, path: str, environment: dict[str, str]) -> Iterator[tuple[int, float]]:
    """A process that answers 200 on ``path``: its id, and the seconds until it listened."""
    began = time.monotonic()
    process = subprocess.Popen(command, cwd=SOURCE, env={**os.environ, **environment}, stderr=subprocess.DEVNULL)
    try:
        while True:
            try:
                urlopen(f"http://127.0.0.1:{port}{path}", timeout=5).close()
                break
            except OSError:
                if time.monotonic() - began > 30 or process.poll() is not None:
                    raise SystemExit(f"{' '.join(command)} does not answer") from None
                time.sleep(0.005)
        yield process.pid, time.monotonic() - began
    finally:
        process.terminate()
        process.wait(10)


def programs() -> str:
    """The name of redis-benchmark. Ends the program where it or wrk is missing."""
    found = next((name for name in ("redis-benchmark", "valkey-benchmark") if shutil.which(name)), None)
    if not found or not shutil.which("wrk"):
        raise SystemExit(
            "redis-benchmark and wrk are needed: make bench WHAT=limiter installs them on Debian and Ubuntu, as root"
        )
    return found


def measure(folder: Path) -> tuple[dict[str, list[Measured]], dict[str, float]]:
    """All of it, in turns: rows by name, and seconds to start."""
    benchmark, redis = programs(), LocalRedis(folder)
    ports = {name: free_port() for name in ("own", "uvicorn", "peer")}
    (folder / "password").write_text(redis.limiter_password)
    (folder / "policies.json").write_text(json.dumps({"policies": POLICIES}))
    settings = {
        "REDIS_HOST": "127.0.0.1",
        "REDIS_PORT": str(redis.port),
        "REDIS_PASSWORD_FILE": str(folder / "password"),
        # It is to be measured with Redis, however slow this computer is.
        "REDIS_TIMEOUT": "5",
        "RATE_LIMITER_HOST": "127.0.0.1",
        "RATE_LIMITER_PORT": str(ports["own"]),
        "RATE_LIMITER_POLICIES": str(folder / "policies.json"),
        "PEER_REDIS": f"async+redis://default:{redis.admin_password}@127.0.0.1:{redis.port}",
        "PYTHONPATH": f"{SOURCE}:{PEERS}",
    }
    uvicorn = [
        sys.executable,
        "-m",
        "uvicorn",
        "--loop",
        "uvloop",
        "--http",
        "httptools",
        "--log-level",
        "error",
        "--no-access-log",
    ]
    rows: dict[str, list[Measured]] = {}
    try:
        ours = (SOURCE / "rate_limiter/scripts/check_logs.lua").read_text()
        one, logs = (str(redis.command("SCRIPT", "LOAD", text)) for text in (RAW, ours))
        with (
            service([sys.executable, "-m", "rate_limiter"], ports["own"], "/openapi.json", settings) as own,
            service(
                [*uvicorn, "--port", str(ports["uvicorn"]), "asgi:app"], ports["uvicorn"], "/openapi.json", settings
            ) as asgi,
            service(
                [*uvicorn, "--port", str(ports["peer"]), "fastapi_limits:app"], ports["peer"], "/openapi.json", settings
            ) as peer,
        ):
            for _ in range(ROUNDS):
                for name, row in (
                    ("raw", lambda: raw(redis, benchmark, [one, "1", "rl:__rand_int__"], 1)),
                    ("10 logs, raw", lambda: raw(redis, benchmark, [logs, *LOGS], 10)),
                    ("check", lambda: load(redis, own[0], ports["own"], "/v1/check", "one", 1)),
                    ("10 per call", lambda: load(redis, own[0], ports["own"], "/v1/checks", TEN, 10)),
                    ("10, all let in", lambda: load(redis, own[0], ports["own"], "/v1/checks", TEN, 10, "wide")),
                    ("uvicorn", lambda: load(redis, asgi[0], ports["uvicorn"], "/v1/check", "one", 1)),
                    ("FastAPI + limits", lambda: load(redis, peer[0], ports["peer"], "/v1/check", "one", 1)),
                ):
                    wait_until(lambda: not redis.command("KEYS", "rl:*"), 10, "quotas that are free again")
                    rows.setdefault(name, []).append(row())
            return rows, {"check": own[1], "uvicorn": asgi[1], "FastAPI + limits": peer[1]}
    finally:
        redis.remove()


def main() -> None:
    """Measure, print, and say which goals are met."""
    with tempfile.TemporaryDirectory() as folder:
        rows, starts = measure(Path(folder))
    middle = {
        name: Measured(*(statistics.median(column) for column in zip(*found, strict=True)))
        for name, found in rows.items()
    }
    one = middle["raw"]
    heads = ("checks/s", "/ raw", "p50 ms", "p99 ms", "/ raw", "CPU us", "/ raw", "MiB", "start s")
    print(" " * 18 + "".join(f"{head:>9}" for head in heads))
    for name, row in middle.items():
        numbers = [row.rate, row.rate / one.rate, row.half, row.late, row.late / one.late, row.cpu, row.cpu / one.cpu]
        numbers += [row.memory] if row.memory else []
        numbers += [starts[name]] if name in starts else []
        print(f"{name:18}" + "".join(f"{number:9.{0 if number >= 1000 else 2}f}" for number in numbers))
    check, ten, peer = middle["check"], middle["10 per call"], middle["FastAPI + limits"]
    goals = {
        "full check / raw >= 0.45 (stretch 0.9)": (check.rate / one.rate, check.rate >= 0.45 * one.rate),
        "10 checks per call / raw >= 2.5": (ten.rate / one.rate, ten.rate >= 2.5 * one.rate),
        "p99 / raw <= 3 (stretch 1.5)": (check.late / one.late, check.late <= 3 * one.late),
        "CPU / raw <= 2.2": (check.cpu / one.cpu, check.cpu <= 2.2 * one.cpu),
        "CPU of FastAPI + limits / ours >= 8": (peer.cpu / check.cpu, peer.cpu >= 8 * check.cpu),
        "MiB under load <= 45": (check.memory, check.memory <= 45),
        "seconds to start < 0.5": (starts["check"], starts["check"] < 0.5),
    }
    print(f"\nload of this computer {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    for goal, (number, met) in goals.items():
        print(f"{'met' if met else 'not met':9}{number:7.2f}  {goal}")


if __name__ == "__main__":
    main()
