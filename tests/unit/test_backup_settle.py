"""The databases write down what they hold before the power goes."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from pi_backup import __main__ as program

DOCKER = """#!/bin/sh
case "$*" in
"container inspect "*) echo '[{"State": {"Running": RUNNING}}]' ;;
*psql*) echo "$*: $(cat)" >> FOLDER/calls; [ ! -e FOLDER/broken ] || { echo "no server" >&2; exit 2; } ;;
*valkey-cli*)
  said=$(cat)
  echo "$said" | grep -v AUTH >> FOLDER/calls
  case "$said" in
  *BGSAVE*) echo x >> FOLDER/saves; echo "Background saving started" ;;
  *) printf 'rdb_saves:%s\\n' "$(cat FOLDER/saves 2>/dev/null | wc -l)"
    printf 'rdb_bgsave_in_progress:0\\nrdb_last_bgsave_status:ok\\n' ;;
  esac ;;
esac
"""


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A plan with both databases, and an engine that writes down what it is asked."""
    stores = {
        "postgres": {"kind": "postgres", "volume": "postgres_data", "spool": "postgres_spool", "databases": []},
        "redis": {"kind": "redis", "volume": "redis_data", "user": "backup", "password_secret": "redis_password"},
        "n8n": {"kind": "n8n", "volume": "n8n_data"},
    }
    plain = {"image": "x", "uid": 1, "gid": 1, "needs": [], "databases": []}
    content = {
        "host": "shop-pi",
        "project": "shop",
        "folder": str(tmp_path / "state"),
        "engine": "restic",
        "secrets_folder": str(tmp_path),
        "repositories": {"near": {"url": "/near", "password_file": "x"}},
        "recipients": [],
        "sealed": [],
        "host_paths": [],
        "spool_mib": 1,
        "keep": {},
        "services": [{"name": name, **plain, "stores": [store]} for name, store in stores.items()],
    }
    (tmp_path / "plan.json").write_text(json.dumps(content))
    (tmp_path / "redis_password").write_text("in-plain-sight\n")
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    engine(tmp_path)
    return tmp_path


def engine(shop: Path, running: str = "true") -> None:
    """Have the containers run, or not."""
    path = shop / "bin/docker"
    path.write_text(DOCKER.replace("FOLDER", str(shop)).replace("RUNNING", running))
    path.chmod(0o755)


def settle(shop: Path) -> int:
    """The program's exit code."""
    return program.main(["--plan", str(shop / "plan.json"), "settle"])


def calls(shop: Path) -> str:
    """What the databases were asked."""
    return (shop / "calls").read_text() if (shop / "calls").exists() else ""


def test_both_databases_do_it(shop: Path) -> None:
    assert settle(shop) == program.DONE
    assert ": CHECKPOINT" in calls(shop)
    assert "BGSAVE" in calls(shop)
    assert "in-plain-sight" not in calls(shop)


def test_one_that_fails_keeps_the_other_from_nothing(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (shop / "broken").touch()
    assert settle(shop) == program.WRONG
    assert "settle: postgres_data: " in capsys.readouterr().err
    assert "BGSAVE" in calls(shop)


def test_databases_that_do_not_run_are_left_alone(shop: Path) -> None:
    engine(shop, "false")
    assert settle(shop) == program.DONE
    assert calls(shop) == ""
