"""An upgrade shows its plan, does exactly that, and puts back what does not work."""

from __future__ import annotations

import http.server
import json
import socketserver
import stat
import sys
import threading
from pathlib import Path
from typing import Any

import plays
import pytest
from pi_common import alerts, locks
from pi_common.errors import PiError
from pi_updates import __main__ as program
from pi_updates import engine, machine, packages, settings, upgrade

OLD = {"n8n": "registry.test/n8n:1", "redis": "registry.test/valkey:8", "rate_limiter": "pi-commerce/rate_limiter:a1"}


class Machine:
    """A machine with three services, a registry that has a newer image of two, and newer packages where wanted."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Everything is well and old."""
        self.folder, self.state_file = folder, folder / "engine.json"
        self.live, self.staged = folder / "compose", folder / "staged"
        self.packages: list[packages.Package] = []
        self.installed: list[str] = []
        self.engine_breaks = False
        for place in (self.live, self.staged):
            place.mkdir()
            for name, reference in OLD.items():
                (place / f"{name}.yml").write_text(f"services: {{{name}: {{image: '{reference}'}}}}\n")
            (place / "overrides.yml").write_text("services: {n8n: {labels: {a: b}}}\n")
        images = {name: f"sha256:{name}-old" for name in OLD}
        self.write(
            {
                "calls": [],
                "containers": {
                    name: {"reference": OLD[name], "image": images[name], "restarts": 0, "behaviour": "well"}
                    for name in OLD
                },
                "tags": {OLD[name]: images[name] for name in OLD},
                "registry": {f"sha256:{name}-digest": images[name] for name in ("n8n", "redis")},
                "behaviour": {},
            }
        )
        self.offered = {OLD[name]: f"sha256:{name}-digest" for name in ("n8n", "redis")}
        docker = folder / "bin/docker"
        docker.parent.mkdir()
        stand_in = plays.ROOT / "tests/unit/engine_stand_in.py"
        docker.write_text(f'#!/bin/sh\nexec {sys.executable} {stand_in} {self.state_file} "$@"\n')
        docker.chmod(docker.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("PATH", f"{docker.parent}:/usr/bin:/bin")
        monkeypatch.setattr(engine, "offered", self.ask)
        monkeypatch.setattr(packages, "newer", lambda _names: self.packages)
        monkeypatch.setattr(packages, "keep", lambda _packages, _folder: None)
        monkeypatch.setattr(packages, "install", self.install)
        monkeypatch.setattr(packages, "put_back", lambda _folder: self.installed.append("old"))
        monkeypatch.setattr(upgrade, "PAUSE", 0.01)
        monkeypatch.setattr(locks, "AT_WORK", folder / "at-work.lock")
        monkeypatch.setattr(program, "BACKUP", folder / "backup")
        monkeypatch.setattr(program, "WAIT_SECONDS", 0)
        monkeypatch.setattr(alerts, "PROGRAM", "nobody")
        monkeypatch.setattr(machine, "outdated", list)
        self.settings = folder / "settings.json"
        self.settings.write_text(
            json.dumps(
                {
                    "folder": str(folder / "state"),
                    "metrics": str(folder / "updates.prom"),
                    "window_from": "04:00",
                    "window_until": "06:00",
                    "reboot": True,
                    "pending_days": 7,
                    "stale_days": 3,
                    "healthy_seconds": 1,
                    "watched_seconds": 0.1,
                    "project": "pi-commerce",
                    "compose": str(self.live),
                    "held": ["docker"],
                }
            )
        )

    def ask(self, reference: str) -> str:
        """What the registry has now."""
        if reference not in self.offered:
            raise PiError(f"{reference}: no such host")
        return self.offered[reference]

    def install(self, wanted: list[packages.Package]) -> None:
        """The packages; the engine may not come back with them."""
        self.installed.append("new")
        if self.engine_breaks:
            raise PiError("docker.service does not start")

    def read(self) -> dict[str, Any]:
        """The engine's state."""
        found: dict[str, Any] = json.loads(self.state_file.read_text())
        return found

    def write(self, state: dict[str, Any]) -> None:
        """Change the engine's state."""
        self.state_file.write_text(json.dumps(state))

    def newer(self, service: str, behaviour: str = "well", reference: str = "") -> None:
        """The registry has a new image, under the same name or another; `behaviour` is what comes of it."""
        state, digest = self.read(), f"sha256:{service}-newer"
        state["registry"][digest] = f"sha256:{service}-new"
        state["behaviour"][f"sha256:{service}-new"] = behaviour
        self.write(state)
        self.offered[reference or OLD[service]] = digest
        if reference:
            (self.staged / f"{service}.yml").write_text(f"services: {{{service}: {{image: '{reference}'}}}}\n")

    def run(self, *words: str) -> int:
        """Call the program."""
        return program.main(["--settings", str(self.settings), *words])

    def upgrade(self, confirm: str = "") -> int:
        """The verb upgrade."""
        return self.run("upgrade", "--staged", str(self.staged), *(["--confirm", confirm] if confirm else []))

    def image(self, service: str) -> str:
        """What the service runs."""
        return str(self.read()["containers"][service]["image"])

    def starts(self) -> list[str]:
        """Services that were made anew, in order."""
        return [call[-1] for call in self.read()["calls"] if call[0] == "compose" and "up" in call]


@pytest.fixture
def pi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """A machine."""
    return Machine(tmp_path, monkeypatch)


def test_nothing_newer_is_no_work(pi: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    assert pi.upgrade() == 0
    assert "everything is the newest there is" in capsys.readouterr().out
    assert pi.starts() == []


def test_plan_is_shown_and_nothing_done_without_the_words(pi: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    pi.newer("redis")
    pi.packages = [packages.Package("docker.io", "26.1.5-1", "26.1.5-2")]
    for confirm in ("", "upgrade redis", "yes"):
        assert pi.upgrade(confirm) == 2
        shown = capsys.readouterr().out
        assert "engine: docker.io 26.1.5-1 -> 26.1.5-2" in shown
        assert "redis: registry.test/valkey:8, redis-old -> redis-newer" in shown
        assert '--confirm "upgrade engine redis"' in shown
    assert pi.starts() == []
    assert not [call for call in pi.read()["calls"] if call[0] in ("pull", "tag")]
    assert pi.installed == []


def test_new_image_under_the_same_name(pi: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    pi.newer("redis")
    assert pi.upgrade("upgrade redis") == 0
    assert pi.image("redis") == "sha256:redis-new"
    assert pi.starts() == ["redis"]
    assert pi.read()["tags"]["pi-commerce/before:redis"] == "sha256:redis-old"
    assert "upgraded: redis" in capsys.readouterr().out
    assert pi.upgrade() == 0, "the next one finds more to do"


def test_new_version_in_the_inventory(pi: Machine) -> None:
    pi.newer("n8n", reference="registry.test/n8n:2")
    assert pi.upgrade("upgrade n8n") == 0
    assert pi.image("n8n") == "sha256:n8n-new"
    # site.yml would write the very same.
    assert (pi.live / "n8n.yml").read_text() == (pi.staged / "n8n.yml").read_text()
    assert pi.read()["containers"]["n8n"]["reference"] == "registry.test/n8n:2"


@pytest.mark.parametrize("behaviour", ["unhealthy", "flapping"])
@pytest.mark.parametrize("reference", ["", "registry.test/n8n:2"])
def test_image_that_does_not_work_is_put_back(
    pi: Machine, behaviour: str, reference: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (pi.live / "n8n.yml").read_text()
    pi.newer("n8n", behaviour, reference)
    assert pi.upgrade("upgrade n8n") == 1
    assert pi.image("n8n") == "sha256:n8n-old"
    assert pi.read()["containers"]["n8n"]["reference"] == OLD["n8n"]
    assert pi.read()["tags"][OLD["n8n"]] == "sha256:n8n-old", "site.yml would start the broken one"
    assert (pi.live / "n8n.yml").read_text() == before
    shown = capsys.readouterr().out
    assert "FATAL: this image is broken" in shown
    assert "put back, because it did not work: n8n" in shown
    assert not upgrade.unfinished(settings.load(pi.settings))


def test_nothing_is_begun_after_what_did_not_work(pi: Machine) -> None:
    pi.newer("n8n", "unhealthy")
    pi.newer("redis")
    assert pi.upgrade("upgrade n8n redis") == 1
    assert pi.image("redis") == "sha256:redis-old"


def test_image_that_cannot_be_fetched_changes_nothing(pi: Machine) -> None:
    pi.newer("redis")
    pi.write({**pi.read(), "registry_away": True})
    assert pi.upgrade("upgrade redis") == 1
    assert pi.starts() == []


def test_registry_that_does_not_answer_holds_nothing_else_up(pi: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    pi.newer("redis")
    del pi.offered[OLD["n8n"]]
    assert pi.upgrade("upgrade redis") == 0
    assert "n8n: stays as it is, registry.test/n8n:1: no such host" in capsys.readouterr().out


def test_our_own_image_is_left_to_site_yml(pi: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    (pi.staged / "rate_limiter.yml").write_text("services: {rate_limiter: {image: 'pi-commerce/rate_limiter:b2'}}\n")
    assert pi.upgrade() == 0
    assert "rate_limiter: is built by site.yml" in capsys.readouterr().out


@pytest.mark.parametrize("how", ["unhealthy", "gone"])
def test_machine_that_is_not_well_is_refused(pi: Machine, how: str, capsys: pytest.CaptureFixture[str]) -> None:
    pi.newer("redis")
    state = pi.read()
    if how == "gone":
        del state["containers"]["n8n"]
    else:
        state["containers"]["n8n"]["behaviour"] = how
    pi.write(state)
    assert pi.upgrade("upgrade redis") == 2
    assert "n8n" in capsys.readouterr().err
    assert pi.starts() == []


def test_engine_comes_first_and_is_put_back(pi: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    pi.newer("redis")
    pi.packages = [packages.Package("docker.io", "26.1.5-1", "26.1.5-2")]
    pi.engine_breaks = True
    assert pi.upgrade("upgrade engine redis") == 1
    assert pi.installed == ["new", "old"]
    assert pi.image("redis") == "sha256:redis-old"
    assert "put back, because it did not work: engine" in capsys.readouterr().out
    pi.engine_breaks = False
    assert pi.upgrade("upgrade engine redis") == 0
    assert pi.image("redis") == "sha256:redis-new"


def test_shop_is_saved_first_or_nothing_is_touched(pi: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    pi.newer("redis")
    program.BACKUP.write_text(f'#!/bin/sh\necho "$@" >{pi.folder}/saved\nexit 1\n')
    program.BACKUP.chmod(0o755)
    assert pi.upgrade("upgrade redis") == 2
    assert "could not be saved first" in capsys.readouterr().err
    assert pi.starts() == []
    program.BACKUP.write_text(f'#!/bin/sh\necho "$@" >{pi.folder}/saved\n')
    assert pi.upgrade("upgrade redis") == 0
    assert (pi.folder / "saved").read_text() == "ship --wait 0\n"


def test_upgrade_waits_for_nobody_who_moves_data_for_long(pi: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    pi.newer("redis")
    with locks.held(locks.AT_WORK, PiError(), shared=True):
        assert pi.upgrade("upgrade redis") == 75
    assert "try again later" in capsys.readouterr().err
    assert pi.starts() == []


def test_upgrade_that_was_cut_off_is_put_back(pi: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    pi.newer("n8n", reference="registry.test/n8n:2")

    class PowerCutError(Exception):
        """Nobody catches it."""

    def cut(*_: object) -> None:
        raise PowerCutError

    with monkeypatch.context() as patched:
        patched.setattr(upgrade, "_wait", cut)
        with pytest.raises(PowerCutError):
            pi.upgrade("upgrade n8n")
    assert pi.image("n8n") == "sha256:n8n-new"
    monkeypatch.setattr(machine, "uptime", lambda: 60.0)
    assert pi.run("look") == 0
    assert pi.image("n8n") == "sha256:n8n-old"
    assert not upgrade.unfinished(settings.load(pi.settings))


def test_undo_puts_the_whole_last_upgrade_back(pi: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    assert pi.run("undo") == 2
    before = (pi.live / "n8n.yml").read_text()
    pi.newer("redis")
    pi.newer("n8n", reference="registry.test/n8n:2")
    assert pi.upgrade("upgrade n8n redis") == 0
    assert pi.run("undo") == 0
    assert (pi.image("n8n"), pi.image("redis")) == ("sha256:n8n-old", "sha256:redis-old")
    assert (pi.live / "n8n.yml").read_text() == before
    assert "put back: redis, n8n" in capsys.readouterr().out


class Engine(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """The engine's own way in, as far as it asks a registry."""

    daemon_threads = True


class Answers(http.server.BaseHTTPRequestHandler):
    """Knows one image."""

    def do_GET(self) -> None:
        known = self.path == "/distribution/registry.test:5000/valkey:8/json"
        found = {"Descriptor": {"digest": "sha256:abc"}} if known else {"message": "manifest unknown"}
        body = json.dumps(found).encode()
        self.send_response(200 if known else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def address_string(self) -> str:
        return "engine"

    def log_message(self, *_: object) -> None:
        """Nobody reads it."""


def test_engine_is_asked_what_a_registry_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "docker.sock"
    monkeypatch.setattr(engine, "SOCKET", str(path))
    with pytest.raises(PiError, match="cannot ask"):
        engine.offered("registry.test:5000/valkey:8")
    with Engine(str(path), Answers) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            assert engine.offered("registry.test:5000/valkey:8") == "sha256:abc"
            with pytest.raises(PiError, match="valkey:9: manifest unknown"):
                engine.offered("registry.test:5000/valkey:9")
        finally:
            server.shutdown()


@pytest.mark.parametrize(
    ("reference", "name"),
    [
        ("postgres:17", "postgres"),
        ("docker.io/library/postgres:17", "docker.io/library/postgres"),
        ("registry.test:5000/valkey:8", "registry.test:5000/valkey"),
        ("registry.test:5000/valkey", "registry.test:5000/valkey"),
        ("n8nio/n8n:2.41.1@sha256:abc", "n8nio/n8n"),
    ],
)
def test_name_of_a_repository(reference: str, name: str) -> None:
    assert engine.repository(reference) == name


def test_packages_that_become_newer_are_read_from_apt(monkeypatch: pytest.MonkeyPatch) -> None:
    told = (
        "NOTE: This is only a simulation!\n"
        "Inst docker.io [26.1.5+dfsg1-9+b9] (26.1.5+dfsg1-9+b11 Debian-Security:13/stable-security [arm64])\n"
        "Inst libnew1 (1.0 Debian:13 [arm64])\n"
        "Conf docker.io (26.1.5+dfsg1-9+b11 Debian-Security:13/stable-security [arm64])\n"
    )
    there = "docker.io installed\ndocker-doc config-files\nlibdocker1 installed\nrunc installed\n"
    asked: list[tuple[str, ...]] = []

    def run(*words: str, **_: float) -> str:
        asked.append(words)
        return there if words[0] == "dpkg-query" else told if "--simulate" in words else ""

    monkeypatch.setattr(packages, "run", run)
    assert packages.newer(["docker", "runc"]) == [
        packages.Package("docker.io", "26.1.5+dfsg1-9+b9", "26.1.5+dfsg1-9+b11")
    ]
    assert asked[-1][-2:] == ("docker.io", "runc")
    assert packages.newer(["podman"]) == []
