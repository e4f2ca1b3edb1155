"""Services of the shop, stopped and started one by one: their containers, as Compose calls them."""

from __future__ import annotations

from .commands import run

START_SECONDS = 120
STOP_SECONDS = 180
LABEL = "com.docker.compose"


def running(project: str, seconds: float = START_SECONDS) -> set[str]:
    """Names of the services that run. Raises CommandFailed."""
    row = f'{{{{.Label "{LABEL}.service"}}}}'
    shown = run("docker", "ps", "--filter", f"label={LABEL}.project={project}", "--format", row, seconds=seconds)
    return set(shown.split())


def stop(project: str, service: str, seconds: float = STOP_SECONDS) -> None:
    """Stop a service: it has as long as its file grants it (stop_grace_period), at most `seconds`.

    Raises CommandFailed.
    """
    run("docker", "stop", f"{project}-{service}-1", seconds=seconds)


def start(project: str, service: str) -> None:
    """Start a service. Raises CommandFailed."""
    run("docker", "start", f"{project}-{service}-1", seconds=START_SECONDS)
