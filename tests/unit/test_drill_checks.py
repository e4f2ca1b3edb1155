"""How a drill judges: what could not be checked never counts; what is of the machine is no fault of the copies."""

from __future__ import annotations

import errno
import os
import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest
from pi_backup.commands import CommandFailed
from pi_backup.drill import canaries, report
from pi_backup.drill.checks import BAD, FAILED, LEFT, PASSED, UNABLE, UNKNOWN, VERIFIED, Check, Ladder, Left, Unable
from pi_backup.drill.n8n import executed
from pi_backup.engine import RepositoryError
from pi_backup.errors import BackupError, Refused


def ladder(seconds: float = 60) -> Ladder:
    """A ladder that nobody watches, and whose repository does not open any more."""
    made = Ladder(time.monotonic() + seconds, lambda text: None)
    made.doubt = lambda error: isinstance(error, RepositoryError)
    return made


VERDICTS = [
    ([], UNKNOWN),
    ([LEFT], UNKNOWN),
    ([PASSED], VERIFIED),
    ([PASSED, LEFT], VERIFIED),
    ([PASSED, UNABLE], UNKNOWN),
    ([PASSED, FAILED], BAD),
    ([UNABLE, FAILED, LEFT], BAD),
]


@pytest.mark.parametrize(("outcomes", "verdict"), VERDICTS, ids=str)
def test_only_what_was_checked_and_is_well_counts(outcomes: list[str], verdict: str) -> None:
    made = ladder()
    made.done = [Check(str(number), outcome, "") for number, outcome in enumerate(outcomes)]
    assert made.verdict == verdict


ERRORS: list[tuple[Exception, str]] = [
    (BackupError("the log has a hole"), FAILED),
    (Refused("there is no base yet"), FAILED),
    (KeyError("files"), FAILED),
    (ValueError("no JSON"), FAILED),
    (FileNotFoundError(errno.ENOENT, "gone"), FAILED),
    (CommandFailed("shop-drill: pg_restore", 1, "end of file"), FAILED),
    (Left("only by `make drill`"), LEFT),
    (Unable("no memory"), UNABLE),
    (OSError(errno.ENOSPC, "full"), UNABLE),
    (CommandFailed("shop-drill: pg_restore", None, "slow"), UNABLE),
    (CommandFailed("shop-drill: pg_restore", 137, "killed"), UNABLE),
    (CommandFailed("docker run", 1, "no daemon"), UNABLE),
    (CommandFailed("restic", 1, "write: no space left on device"), UNABLE),
    (RepositoryError("connection reset", 1), UNABLE),
]


@pytest.mark.parametrize(("error", "outcome"), ERRORS, ids=lambda value: repr(value)[:40])
def test_error_is_of_the_copies_or_of_the_machine(error: Exception, outcome: str) -> None:
    def part() -> None:
        raise error

    made = ladder()
    assert made.check("one", part) is None
    assert [entry.outcome for entry in made.done] == [outcome]


def test_error_of_this_program_itself_is_not_swallowed() -> None:
    with pytest.raises(ZeroDivisionError):
        ladder().check("one", lambda: 1 // 0)


def test_nothing_is_begun_when_the_time_is_up() -> None:
    made = ladder(seconds=-1)
    assert made.check("one", lambda: pytest.fail("it was begun")) is None
    assert made.verdict == UNKNOWN


def test_what_is_counted_of_a_volume_is_what_comes_back(tmp_path: Path) -> None:
    """Not SQLite's companions; and of what is compared byte by byte, nothing that is still being written."""
    for name in ("settled", "written", canaries.FILE + "0" * 32, "shop.db-wal"):
        (tmp_path / name).write_text("content of some length")
    with sqlite3.connect(tmp_path / "shop.db") as base:
        base.execute("CREATE TABLE rows (number)")
    (tmp_path / "large").write_bytes(bytes(canaries.SAMPLED_BYTES + 1))
    past = time.time() - 2 * canaries.SETTLED_SECONDS
    for path in tmp_path.iterdir():
        if path.name != "written":
            os.utime(path, (past, past))
    found = canaries.inspect(tmp_path)
    assert found["files"] == 4
    assert set(found["sample"]) == {"settled"}
    assert found["sample"]["settled"] == canaries.look(tmp_path / "settled")
    assert canaries.look(tmp_path / "gone") == []


EXECUTION = '{\n  "data": {"token": "t1"},\n  "status": "success"\n}\n'


@pytest.mark.parametrize("after", ["", "Failed to record workflow statistic\n", "left {\n"])
@pytest.mark.parametrize("before", ["", "Some warning\n", "{one line}\n"])
@pytest.mark.parametrize("code", [0, 139])
def test_execution_is_read_whatever_n8n_logs_around_it(before: str, after: str, code: int) -> None:
    status, document = executed(f"{before}{EXECUTION}{after}exit code {code}\n")
    assert (status, document) == ("success", EXECUTION.strip())


@pytest.mark.parametrize("said", ["", "Error: no such workflow\n", EXECUTION[:-4], "{\n"])
def test_execution_without_a_document_names_what_n8n_said_and_how_it_ended(said: str) -> None:
    with pytest.raises(BackupError, match=r"does not run \(1\): ") as refused:
        executed(f"{said}exit code 1\n")
    assert said in str(refused.value)


def test_report_says_what_was_found_and_when_the_bundle_was_opened() -> None:
    given: dict[str, Any] = {
        "host": "shop-pi",
        "repository": "far",
        "verdict": BAD,
        "exit": 1,
        "started": 0.0,
        "ended": 60.0,
        "seconds": 60.0,
        "fetched_mib": 10.0,
        "mib_per_second": 5.0,
        "opened": 0.0,
        "checks": [
            vars(Check("freshness", PASSED, "ok", figures={"rpo_seconds": {"db": 12.5}})),
            vars(Check("log", FAILED, "a hole | in\nit", 1.5)),
        ],
    }
    page = report.markdown(given)
    assert page.startswith("# Restore drill of shop-pi: FAILED\n")
    assert "secrets bundle: never yet." in page
    assert "| log | failed | 1.5 | a hole \\| in it |\n" in page
    lines = report.metrics(given, {"succeeded": 0.0, "opened": 1_795_000_000.0}).splitlines()
    assert {
        "pi_drill_success_timestamp_seconds 0",
        "pi_drill_opened_timestamp_seconds 1795000000",
        "pi_drill_verdict 1",
        'pi_drill_rpo_seconds{store="db"} 12.5',
        'pi_drill_check{check="log"} 1',
        'pi_drill_check_seconds{check="log"} 1.5',
        "pi_drill_restore_bytes_per_second 5242880",
    } <= set(lines)
