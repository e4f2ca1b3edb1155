"""Filters that turn the project's files and the catalog's rows into what modules take."""

from __future__ import annotations

from pathlib import Path

import plays
import pytest
import summary
from ansible.errors import AnsibleFilterError

FILTERS = plays.filters("monitoring") | plays.filters("tree")


def test_source_version_changes_with_every_part(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("one")
    first = FILTERS["source_version"](FILTERS["source_files"](str(tmp_path)), "base:1")
    assert first == FILTERS["source_version"](FILTERS["source_files"](str(tmp_path)), "base:1")
    assert first != FILTERS["source_version"](FILTERS["source_files"](str(tmp_path)), "base:2")
    (tmp_path / "b").write_text("")
    second = FILTERS["source_version"](FILTERS["source_files"](str(tmp_path)), "base:1")
    (tmp_path / "b").rename(tmp_path / "c")
    assert len({first, second, FILTERS["source_version"](FILTERS["source_files"](str(tmp_path)), "base:1")}) == 3


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(AnsibleFilterError, match="gone: there is no such folder"):
        FILTERS["source_files"](str(tmp_path / "gone"))


def test_source_files_leave_caches_out_and_carry_the_prefix(tmp_path: Path) -> None:
    for path in ("pkg/a.py", "pkg/__pycache__/a.pyc", ".ruff_cache/x"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text("text")
    assert FILTERS["source_files"](str(tmp_path), "build/") == [{"path": "build/pkg/a.py", "content": "text"}]


def test_secret_file_is_for_its_service_alone() -> None:
    entry = {"name": "db_password", "uid": 999, "gid": 1000, "services": ["db"]}
    assert FILTERS["secret_file"](entry, {"db_password": "x"}) == {
        "path": "db_password",
        "secret_content": "x",
        "mode": "0400",
        "owner": "999",
        "group": "1000",
    }


def test_scrape_target_becomes_a_group_and_a_probe() -> None:
    target = {"service": "limiter", "target": "limiter:3001", "path": "/metrics"}
    assert FILTERS["scrape_group"](target) == {
        "targets": ["limiter:3001"],
        "labels": {"job": "limiter", "__metrics_path__": "/metrics"},
    }
    assert FILTERS["scrape_probe"](target)["port"] == 3001


def test_summary_shows_state_memory_and_facts() -> None:
    rows = [
        {"service": "db", "ok": True, "memory_mib": 40, "limit_mib": 512, "restarts": 0, "detail": "psql ok"},
        {"service": "web", "ok": False, "memory_mib": None, "limit_mib": 96, "restarts": 3, "detail": "refused"},
    ]
    text = summary.render(rows, {"secrets": "/a/file"})
    assert "db       ok      40 MiB  512 MiB  psql ok" in text
    assert "web      FAILED  ?       96 MiB   refused, 3 restarts" in text
    assert text.endswith("secrets  /a/file")
