"""Which repository a rebuild takes, and what it lays out of a sealed bundle."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pytest
from pi_backup import plan
from pi_backup.engine import Repository, Snapshot
from pi_backup.rebuild import Clock, Source, lay_out

PLAN = plan.parse(
    {
        **{"host": "shop-pi", "project": "p", "folder": "/none", "engine": "restic", "secrets_folder": "/none"},
        **{"recipients": [], "sealed": [], "host_paths": [], "spool_mib": 1, "keep": {}, "services": []},
        "repositories": {"near": {"url": "/near", "password_file": "/none"}},
    }
)


def snapshot(kind: str, time: float, point: float = 0) -> Snapshot:
    return Snapshot("id", time, "shop-pi", (), (kind, f"point={point:.6f}"))


@pytest.mark.parametrize(
    ("snapshots", "point"),
    [
        ([], 0),
        ([snapshot("nightly", 100, 90), snapshot("ship", 400, 390)], 390),
        # PostgreSQL did not answer any more: what came later is no newer for it.
        ([snapshot("ship", 400, 390), snapshot("ship", 700)], 390),
        ([snapshot("ship", 400), snapshot("ship", 700)], 700),
        ([snapshot("ship", 400, 390), snapshot("images", 900)], 390),
    ],
)
def test_data_is_as_new_as_its_last_point(snapshots: list[Snapshot], point: float) -> None:
    assert Source(Repository(PLAN, "near"), snapshots).point == point


def bundle(*names: str) -> io.BytesIO:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name in names:
            entry = tarfile.TarInfo(name)
            entry.uid, entry.gid, entry.mode = os.getuid(), os.getgid(), 0o640
            entry.size = len(name)
            archive.addfile(entry, io.BytesIO(name.encode()))
    packed.seek(0)
    return packed


def test_only_what_was_asked_for_is_laid_out(tmp_path: Path) -> None:
    packed = bundle("etc/tls/cert.pem", "etc/tls/key.pem", "etc/tlsother", "etc/shadow", "etc/tls/../../etc/passwd")
    assert lay_out(packed, ["/etc/tls"], tmp_path) == ["/etc/tls/cert.pem", "/etc/tls/key.pem"]
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == ["cert.pem", "key.pem"]
    assert (tmp_path / "etc/tls/key.pem").read_text() == "etc/tls/key.pem"
    assert (tmp_path / "etc/tls/key.pem").stat().st_mode & 0o777 == 0o640


def test_link_comes_back_where_it_leads_to_what_lies_beside_it(tmp_path: Path) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name, to in (("cert.pem", "cert-2.pem"), ("out.pem", "../cert.pem"), ("root", "/"), ("up", "..")):
            entry = tarfile.TarInfo(f"etc/tls/{name}")
            entry.type, entry.linkname = tarfile.SYMTYPE, to
            archive.addfile(entry)
    for _ in range(2):
        packed.seek(0)
        assert lay_out(packed, ["/etc/tls"], tmp_path) == ["/etc/tls/cert.pem"]
        assert [path.name for path in (tmp_path / "etc/tls").iterdir()] == ["cert.pem"]
    assert os.readlink(tmp_path / "etc/tls/cert.pem") == "cert-2.pem"


def test_clock_gives_each_step_the_time_until_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    moments = iter([10.0, 12.5, 20.0])
    monkeypatch.setattr("time.monotonic", lambda: next(moments))
    heard: list[str] = []
    clock = Clock(heard.append)
    for word in ("one", "two", "three"):
        clock.say(word)
    assert heard == ["one", "two", "three"]
    assert clock.seconds == {"one": 2.5, "two": 7.5}
