"""What a machine tells at the start of a run, and which work may be left out for it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import host_state
import plays
import pytest

ME = {"owner": str(os.getuid()), "group": str(os.getgid())}
ROOT = "/etc/pi-commerce"
REQUEST: dict[str, Any] = {
    "root": ROOT,
    "files": [
        {"path": "proxy/nginx.conf", "content": "listen\n", **ME},
        {"path": "proxy/reload", "content": "#!/bin/sh\n", "mode": "0750", **ME},
    ],
    "directories": [{"path": "proxy/tls", "mode": "0700", **ME}],
    "purge": ["proxy"],
}


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A machine that is as REQUEST wants it."""
    proxy = tmp_path / "etc/pi-commerce/proxy"
    (proxy / "tls").mkdir(parents=True, mode=0o700)
    for name, content, mode in (("nginx.conf", "listen\n", 0o644), ("reload", "#!/bin/sh\n", 0o750)):
        (proxy / name).write_text(content)
        (proxy / name).chmod(mode)
    return tmp_path


def holds(machine: Path, **changes: Any) -> bool:
    """Whether the request, with some options changed, needs no call."""
    return host_state.holds({**REQUEST, **changes}, host_state.files(str(machine)))


def test_a_tree_that_is_as_it_shall_be_needs_no_call(machine: Path) -> None:
    assert holds(machine)


@pytest.mark.parametrize("path", ["etc/pi-commerce/proxy/.file_tree-x1", "etc/pi-commerce/.file_tree-x2"])
def test_half_written_file_of_a_killed_run_needs_a_call(machine: Path, path: str) -> None:
    (machine / path).write_text("half")
    assert not holds(machine, purge=[])


def test_files_that_are_not_yet_in_force_need_a_call(machine: Path) -> None:
    mark = machine / "var/lib/pi-commerce.unapplied-etc-pi-commerce"
    mark.parent.mkdir(parents=True)
    assert holds(machine, apply="true")
    mark.touch()
    assert not holds(machine, apply="true")
    assert holds(machine)


def test_what_nobody_told_needs_a_call() -> None:
    assert not host_state.holds(REQUEST, host_state.UNKNOWN["files"])


def replace_by_link(proxy: Path) -> None:
    """The same content, reached through a link."""
    (proxy / "nginx.conf").rename(proxy.parent / "elsewhere")
    (proxy / "nginx.conf").symlink_to("../elsewhere")


@pytest.mark.parametrize(
    "drift",
    [
        lambda proxy: (proxy / "nginx.conf").write_text("listen 80\n"),
        lambda proxy: (proxy / "nginx.conf").unlink(),
        lambda proxy: (proxy / "nginx.conf").chmod(0o666),
        lambda proxy: (proxy / "reload").chmod(0o700),
        lambda proxy: (proxy / "tls").chmod(0o755),
        lambda proxy: (proxy / "tls").rmdir(),
        lambda proxy: (proxy / "tls/stray").write_text(""),
        lambda proxy: (proxy / "stray").symlink_to("/etc"),
        replace_by_link,
    ],
)
def test_each_kind_of_drift_needs_a_call(machine: Path, drift: Callable[[Path], None]) -> None:
    drift(machine / "etc/pi-commerce/proxy")
    assert not holds(machine)


@pytest.mark.parametrize(
    "changes",
    [
        {"files": [{**REQUEST["files"][0], "content": "other\n"}, REQUEST["files"][1]]},
        {"files": [{**REQUEST["files"][0], "owner": str(os.getuid() + 1)}, REQUEST["files"][1]]},
        {"files": [{**REQUEST["files"][0], "owner": "nobody"}, REQUEST["files"][1]]},
        {"files": [{**REQUEST["files"][0], "path": "/proxy/nginx.conf/.."}, REQUEST["files"][1]]},
        {"files": REQUEST["files"][:1]},
        {"root_mode": "0700"},
        {"root": "/etc/elsewhere"},
        {"purge": ["nothing-there"]},
        {"files": [], "purge": [], "directories": [], "root": "/etc/elsewhere"},
    ],
)
def test_each_other_wish_needs_a_call(machine: Path, changes: dict[str, Any]) -> None:
    assert not holds(machine, **changes)


def test_of_what_only_its_owner_may_read_no_digest_is_told(machine: Path) -> None:
    secret = machine / "etc/pi-commerce/secrets/password"
    secret.parent.mkdir()
    secret.write_text("guess me")
    secret.chmod(0o400)
    known = host_state.files(str(machine))
    assert known["/etc/pi-commerce/secrets/password"].endswith(" -")
    for name in ("content", "secret_content"):
        wish = {"path": "secrets/password", name: "guess me", "mode": "0400", **ME}
        assert not host_state.holds({"root": ROOT, "files": [wish]}, known), name


def test_a_linked_folder_is_not_looked_into(machine: Path) -> None:
    (machine / "etc/pi-commerce").rename(machine / "real")
    (machine / "etc/pi-commerce").symlink_to("../real")
    assert list(host_state.files(str(machine))) == ["/etc/pi-commerce"]


STATUS = """Package: cron
Essential: yes
Status: install ok installed
Architecture: amd64

Package: openssl
Status: deinstall ok config-files

Package: tzdata
Status: install ok half-configured

Package: python3
Status: hold ok installed
"""


def test_only_complete_packages_count_as_installed() -> None:
    assert host_state.packages(STATUS) == "cron python3"


def test_a_name_that_a_restart_would_change_is_not_the_name() -> None:
    assert host_state.hostname("shop-pi", "shop-pi\n") == "shop-pi"
    assert host_state.hostname("shop-pi", "raspberrypi\n") == ""


def test_a_masked_unit_is_not_enabled(tmp_path: Path) -> None:
    (tmp_path / "sysinit.target.wants").mkdir()
    for name in ("one.service", "two.service"):
        (tmp_path / "sysinit.target.wants" / name).symlink_to("/usr/lib/systemd/system/" + name)
    (tmp_path / "two.service").symlink_to("/dev/null")
    assert host_state.enabled_units(str(tmp_path)) == ["one.service"]


def container(service: str = "redis", digest: str = "d1", image: str = "i1", **state: Any) -> dict[str, Any]:
    """What `docker inspect` says, as far as it matters."""
    labels = {"service": service, "config-hash": digest, "image": image}
    return {
        "Name": f"/pi-commerce-{service}-1",
        "Config": {
            "Image": "valkey:8",
            "Labels": {f"com.docker.compose.{key}": value for key, value in labels.items()},
        },
        "State": {"Status": "running", "Health": {"Status": "healthy"}, **state},
    }


@pytest.mark.parametrize(
    ("containers", "images", "problem"),
    [
        ([], {"valkey:8": "i1"}, "has no container"),
        ([container(Status="exited")], {"valkey:8": "i1"}, "is exited"),
        ([container(Status="paused")], {"valkey:8": "i1"}, "is paused"),
        ([container(Health={"Status": "unhealthy"})], {"valkey:8": "i1"}, "unhealthy"),
        ([container(digest="d2")], {"valkey:8": "i1"}, "is declared differently"),
        ([container()], {"valkey:8": "i2"}, "another image"),
        ([container()], {}, "another image"),
        ([container(), container()], {"valkey:8": "i1"}, "two containers"),
        ([{**container(), "Name": "/1f2e3d4c5b6a_pi-commerce-redis-1"}], {"valkey:8": "i1"}, "is being replaced"),
        ([container(), container("n8n")], {"valkey:8": "i1"}, "n8n: is not declared"),
    ],
)
def test_whatever_compose_would_touch_is_named(
    containers: list[dict[str, Any]], images: dict[str, str], problem: str
) -> None:
    assert problem in " ".join(host_state.drift({"redis": "d1"}, containers, images))


def test_a_stack_as_declared_has_not_drifted() -> None:
    assert host_state.drift({"redis": "d1"}, [container()], {"valkey:8": "i1"}) == []


def test_nothing_is_relied_on_while_another_run_may_be_at_work() -> None:
    seen = {**host_state.UNKNOWN, "packages": "cron", "stack_drift": []}
    assert host_state.trusted(seen, []) == {**seen, "leftovers": []}
    assert host_state.trusted(seen, ["process 7"]) == {**host_state.UNKNOWN, "leftovers": ["process 7"]}


def test_a_changed_tree_makes_everything_told_before_unknown(tmp_path: Path) -> None:
    """A role that ran before may have moved what a later one relies on."""
    tasks: list[dict[str, Any]] = [
        {"set_fact": {"pi_state": {**host_state.UNKNOWN, "packages": "cron"}, "cacheable": True}},
        {"file_tree": {"root": str(tmp_path), "files": [{"path": "a", "content": "b", **ME}]}},
        {"assert": {"that": "ansible_facts.pi_state.packages == ''"}},
    ]
    status, output = plays.play(tmp_path, tasks)
    assert status == 0, output
