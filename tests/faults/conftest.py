"""Every test here needs the converged machine; some share what happened to it."""

from __future__ import annotations

import episodes as drifting
import machine
import pytest
import talk as talking


@pytest.fixture(autouse=True)
def _site(first_run: machine.Finished) -> None:
    """Every test here needs the machine."""


@pytest.fixture(scope="session")
def episodes(first_run: machine.Finished) -> dict[int, drifting.Episode]:
    """All batches of drifts by number, planted and mended."""
    # The first night of a young machine leaves its canaries in n8n; it would come at any moment.
    machine.pi("pi-commerce-backup nightly --wait 300")
    return {batch: drifting.play(batch) for batch in drifting.BATCHES}


@pytest.fixture(scope="session")
def talk(
    first_run: machine.Finished, episodes: dict[int, drifting.Episode], tmp_path_factory: pytest.TempPathFactory
) -> talking.Talk:
    """What was said and shown when the machine, mended, was run once more, and checked with other secrets."""
    return talking.listen(first_run, episodes, tmp_path_factory.mktemp("given"))
