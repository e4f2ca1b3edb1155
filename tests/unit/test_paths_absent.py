"""`paths_absent` takes away what it is told, and nothing that belongs to others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import plays
import pytest


def run(**options: Any) -> dict[str, Any]:
    """The module's result."""
    return plays.module("paths_absent", **options)


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A tree with two roles' files."""
    for name in ("shop/proxy/tls/key.pem", "shop/stack/redis.yml", "elsewhere/precious"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    return tmp_path / "shop"


def test_each_goes_once_and_the_shared_folder_with_the_last(shop: Path) -> None:
    for name, left in (("proxy", True), ("stack", False)):
        for changed in (True, False):
            assert run(paths=[str(shop / name)], if_empty=[str(shop)])["changed"] == changed
        assert shop.exists() == left


def test_check_tells_and_takes_nothing(shop: Path) -> None:
    paths = [str(shop / "proxy"), str(shop / "stack")]
    told = run(paths=paths, if_empty=[str(shop)], _ansible_check_mode=True)
    assert told["removed"] == [*paths, str(shop)]
    assert told["diff"]["before"] == "".join(f"{path}\n" for path in told["removed"])
    assert (shop / "proxy/tls/key.pem").exists()


def test_link_goes_and_what_it_points_to_stays(shop: Path, tmp_path: Path) -> None:
    (shop / "link").symlink_to(tmp_path / "elsewhere")
    (shop / "broken").symlink_to(tmp_path / "nowhere")
    run(paths=[str(shop / "link"), str(shop / "broken")])
    assert sorted(path.name for path in shop.iterdir()) == ["proxy", "stack"]
    assert (tmp_path / "elsewhere/precious").exists()


@pytest.mark.parametrize("path", ["/", "/etc", "/etc/", "relative/path", "/etc/../usr"])
def test_what_belongs_to_the_system_is_refused(shop: Path, path: str) -> None:
    for options in ({"paths": [str(shop), path]}, {"paths": [str(shop)], "if_empty": [path]}):
        # A check, should the refusal ever be missing.
        refused = run(**options, _ansible_check_mode=True)
        assert refused["failed"]
        assert "name what is to go itself" in refused["msg"]
    assert shop.exists()
