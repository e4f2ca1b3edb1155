"""How many webhooks a second are on the disk and answered, beside a bare INSERT ... COMMIT of the same PostgreSQL.

`make bench WHAT=intake` starts PostgreSQL, Redis, a consumer and the webhook handler in containers of its own, and
measures in turns:

- bare: pgbench, one INSERT of the same body a transaction, with 1, 8 and 32 clients; the best of them counts
- intake: 64 connections that send signed webhooks as fast as they are answered
- delivery: the same, while each event is also handed over to the consumer
- steady: 300 a second, whether the last were answered or not

SECONDS=8 is how long each takes, RUNS=3 how many rounds; the medians are printed.
"""

from __future__ import annotations

import asyncio
import copy
import os
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import machine

sys.path += [str(machine.ROOT / folder) for folder in ("tests/services", "molecule/shared", "plugins/module_utils")]

import intake_calls
import intake_parts
import uvloop

SECONDS = int(os.environ.get("SECONDS", "8"))
RUNS = int(os.environ.get("RUNS", "3"))
# Each with one secret, as it is when none is being changed.
STORED, HANDED = "custom/stored", "custom/handed"
CLIENTS = (1, 8, 32)
CONNECTIONS = 64
STEADY = 300
# An order of a few lines, as shops send it.
BODY_BYTES = 2000
TABLE = "CREATE TABLE bare (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, key text UNIQUE, body bytea)"
INSERT = (
    "\\set number random(1, 1000000000000000)\n"
    f"INSERT INTO bare (key, body) VALUES (:number, decode(repeat('5a', {BODY_BYTES}), 'hex'))"
    " ON CONFLICT DO NOTHING;\n"
)


@dataclass
class Measured:
    """What came of one run: how many were stored in how long, how long each took (milliseconds), what went wrong."""

    seconds: float = 0
    waits: list[float] = field(default_factory=list)
    wrong: list[bytes] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Stored webhooks a second."""
        return len(self.waits) / self.seconds

    def percentile(self, share: float) -> float:
        """Milliseconds that this share of them took at most."""
        return sorted(self.waits)[min(len(self.waits) - 1, int(len(self.waits) * share))]


def requests(count: int, endpoint: str) -> Iterator[bytes]:
    """Signed webhooks, whole, each of an order of its own."""
    for number in range(count):
        head = f'{{"type":"order","order_id":"B-{time.time_ns()}-{number}","note":"'
        body = (head + "z" * (BODY_BYTES - len(head) - 2) + '"}').encode()
        call = intake_calls.custom(body=body, endpoint=endpoint)
        headers = {"host": "bench", "content-type": "application/json", "content-length": str(len(body))} | call.headers
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        yield f"POST /webhooks/{endpoint} HTTP/1.1\r\n{lines}\r\n".encode() + body


class Connection(asyncio.Protocol):
    """One kept-alive connection: one request after the other."""

    def __init__(self) -> None:
        self._answer: asyncio.Future[bytes] | None = None
        self._read = b""
        self._transport: asyncio.WriteTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.WriteTransport", transport)

    def data_received(self, data: bytes) -> None:
        self._read += data
        if self._answer and not self._answer.done() and self._read.endswith(b"}"):
            self._answer.set_result(self._read)
            self._read = b""

    def connection_lost(self, error: Exception | None) -> None:
        if self._answer and not self._answer.done():
            self._answer.set_result(b"lost")

    async def ask(self, request: bytes) -> bytes:
        assert self._transport
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._answer


def note(measured: Measured, began: float, answer: bytes) -> None:
    if answer.startswith(b"HTTP/1.1 200") and b'"stored"' in answer:
        measured.waits.append((time.perf_counter() - began) * 1000)
    else:
        measured.wrong.append(answer[:300])


async def as_fast_as_possible(address: tuple[str, int], prepared: list[bytes]) -> Measured:
    measured, left = Measured(), iter(prepared)
    started = time.perf_counter()

    async def one() -> None:
        _, connection = await asyncio.get_running_loop().create_connection(Connection, *address)
        for request in left:
            if time.perf_counter() - started > SECONDS:
                return
            began = time.perf_counter()
            note(measured, began, await connection.ask(request))

    await asyncio.gather(*(one() for _ in range(CONNECTIONS)))
    measured.seconds = time.perf_counter() - started
    return measured


async def at_a_steady_pace(address: tuple[str, int], prepared: list[bytes]) -> Measured:
    """An answer that is late delays no other: what waits for a connection has begun to wait when it was due."""
    measured, free = Measured(), asyncio.Queue[Connection]()
    for _ in range(CONNECTIONS * 4):
        _, connection = await asyncio.get_running_loop().create_connection(Connection, *address)
        free.put_nowait(connection)
    started = time.perf_counter()

    async def one(number: int, request: bytes) -> None:
        due = started + number / STEADY
        await asyncio.sleep(due - time.perf_counter())
        connection = await free.get()
        note(measured, due, await connection.ask(request))
        free.put_nowait(connection)

    await asyncio.gather(*(one(number, request) for number, request in enumerate(prepared)))
    measured.seconds = time.perf_counter() - started
    return measured


def bare(parts: intake_parts.Parts, clients: int) -> float:
    """Transactions a second of pgbench."""
    said = parts.parts["postgres"].tool(
        *("pgbench", "-n", "-c", str(clients), "-j", "1", "-T", str(SECONDS), "-U", "shop"),
        *("-f", script(parts), "shop"),
    )
    found = re.search(r"tps = ([0-9.]+)", said)
    assert found, said
    return float(found[1])


def script(parts: intake_parts.Parts) -> str:
    """pgbench's script, where that can read it."""
    part = parts.parts["postgres"]
    if isinstance(part, intake_parts.Box):
        part.tool("sh", "-c", f"cat > /tmp/bare.sql <<'END'\n{INSERT}END")
        return "/tmp/bare.sql"
    path = Path(tempfile.gettempdir()) / "pi-commerce-bare.sql"
    path.write_text(INSERT)
    return str(path)


def main() -> None:
    """Measure and print."""
    settings: dict[str, Any] = copy.deepcopy(intake_parts.SETTINGS)
    intake_parts.SECRETS |= {STORED: ["stored-secret"], HANDED: ["handed-secret"]}
    # What comes to one is only stored, what comes to the other is handed on too.
    settings["endpoints"] |= {STORED: {}, HANDED: {}}
    settings["routes"] = [{"endpoint": HANDED, "topics": ["*"], "consumers": ["shop"]}]
    rows: dict[str, list[float]] = {}
    with (
        tempfile.TemporaryDirectory(prefix="pytest-intake-") as folder,
        intake_parts.running(Path(folder), settings=settings) as parts,
    ):
        address = parts.parts["handler"].address()
        assert address
        parts.parts["postgres"].tool("psql", "-qXU", "shop", "-d", "shop", "-c", TABLE)
        idle = parts.parts["handler"].resident_mib()

        def keep(name: str, value: float) -> None:
            rows.setdefault(name, []).append(value)

        def run(name: str, measured: Measured) -> None:
            assert not measured.wrong, measured.wrong[:3]
            keep(f"{name}, webhooks/s", measured.rate)
            keep(f"{name}, ms p50", measured.percentile(0.5))
            keep(f"{name}, ms p99", measured.percentile(0.99))
            keep("resident MiB", parts.parts["handler"].resident_mib())

        for _ in range(RUNS):
            best = max(bare(parts, clients) for clients in CLIENTS)
            keep("bare, commits/s (best of 1, 8, 32 clients)", best)
            run("intake", uvloop.run(as_fast_as_possible(address, list(requests(SECONDS * 5000, STORED)))))
            run("delivery", uvloop.run(as_fast_as_possible(address, list(requests(SECONDS * 5000, HANDED)))))
            run("steady", uvloop.run(at_a_steady_pace(address, list(requests(SECONDS * STEADY, STORED)))))
            for name in ("intake", "delivery"):
                keep(f"{name} / bare", rows[f"{name}, webhooks/s"][-1] / best)
    print(f"{RUNS} rounds of {SECONDS} s, bodies of {BODY_BYTES} bytes; idle {idle:.0f} MiB")
    for name in sorted(rows):
        values = rows[name]
        middle = max(values) if name == "resident MiB" else statistics.median(values)
        print(f"{name:<44} {middle:>9.2f}   ({min(values):.2f} to {max(values):.2f})")


if __name__ == "__main__":
    main()
