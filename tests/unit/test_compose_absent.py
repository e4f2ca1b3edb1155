"""`compose_absent` where there is no engine; with one it is tested by the scenario `stack`."""

from __future__ import annotations

from pathlib import Path

import plays


def test_without_an_engine_there_is_nothing_to_take(tmp_path: Path) -> None:
    found = plays.module("compose_absent", str(tmp_path), project="shop", volumes=True)
    assert (found["changed"], found["removed"]) == (False, [])
