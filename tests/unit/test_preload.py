"""The callback that loads filters and tests once a run (plugins/callback/preload.py)."""

from __future__ import annotations

from pathlib import Path

import plays
import pytest

PLUGIN = """
from pathlib import Path

with (Path(__file__).parents[1] / "loaded-{kind}").open("a") as log:
    log.write("x")


class {kind}Module:
    def {method}(self):
        return {{"odd_{method}": lambda number: number % 2 == 1}}
"""


@pytest.mark.parametrize(("kind", "asked"), [("Filter", "3 | odd_filters"), ("Test", "3 is odd_tests")])
def test_what_tasks_ask_with_is_loaded_once_for_all_of_them(tmp_path: Path, kind: str, asked: str) -> None:
    folder = tmp_path / f"{kind.lower()}_plugins"
    folder.mkdir()
    (folder / "odd.py").write_text(PLUGIN.format(kind=kind, method=f"{kind.lower()}s"))
    tasks = [{"assert": {"that": [asked, f"not ({asked.replace('3', '4')})"]}}] * 3
    status, output = plays.play(tmp_path, tasks)
    assert status == 0, output
    assert (tmp_path / f"loaded-{kind}").read_text() == "x"
