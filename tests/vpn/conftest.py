"""Two virtual Pis, converged once, and a device in their network; `make vpn` gives them machines of their own."""

from __future__ import annotations

import os
from collections.abc import Iterator

import docker
import machine
import mesh
import pytest
from mesh import PIS, Device

ONE, TWO = PIS


@pytest.fixture(scope="session")
def engine() -> Iterator[docker.DockerClient]:
    client = docker.from_env()
    yield client
    client.close()


@pytest.fixture(scope="session")
def both(engine: docker.DockerClient) -> Iterator[machine.Finished]:
    """Two machines from nothing that have been converged once, in one run; or, with KEEP, those of the run before."""
    kept = os.environ.get("KEEP")
    if not (kept and mesh.STATE.exists()):
        for pi in PIS:
            pi.manage("down")
        for pi in PIS:
            pi.manage("up")
        engine.networks.get(ONE.container).connect(f"{TWO.container}-pi", ipv4_address=TWO.shared)
    try:
        yield mesh.converge()
    finally:
        if not kept:
            engine.networks.get(ONE.container).disconnect(f"{TWO.container}-pi")
            for pi in PIS:
                pi.manage("down")


@pytest.fixture
def device(both: machine.Finished, engine: docker.DockerClient) -> Iterator[Device]:
    made = Device(engine)
    try:
        yield made
    finally:
        made.container.remove(force=True, v=True)
