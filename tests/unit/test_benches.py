"""Each bench begins as `make bench` begins it: one that nobody calls for a while is not found broken when needed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BENCHES = sorted(path.stem for path in (ROOT / "tests/bench").glob("*.py") if path.stem != "__init__")


@pytest.mark.parametrize("name", BENCHES)
def test_bench_finds_what_it_imports(name: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", f"import bench.{name}"],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": "tests"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
