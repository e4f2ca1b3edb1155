"""Services of the shop, stopped and started one by one: their containers, as Compose calls them."""

from __future__ import annotations

import subprocess

from .errors import BodyError

START_SECONDS = 120
STOP_SECONDS = 180
LABEL = "com.docker.compose"


def docker(*words: str, seconds: float) -> str:
    """Output of a docker command. Raises BodyError."""
    try:
        done = subprocess.run(("docker", *words), capture_output=True, text=True, timeout=seconds, check=False)
    except (OSError, subprocess.TimeoutExpired) as problem:
        raise BodyError(f"docker {words[0]}: {problem}") from problem
    if done.returncode:
        raise BodyError(f"docker {' '.join(words)}: {done.stderr.strip() or done.returncode}")
    return done.stdout


def running(project: str, seconds: float = START_SECONDS) -> set[str]:
    """Names of the services that run. Raises BodyError."""
    row = f'{{{{.Label "{LABEL}.service"}}}}'
    return set(docker("ps", "--filter", f"label={LABEL}.project={project}", "--format", row, seconds=seconds).split())


def stop(project: str, service: str, seconds: float = STOP_SECONDS) -> None:
    """Stop a service: it has as long as its file grants it (stop_grace_period), at most `seconds`. Raises BodyError."""
    docker("stop", f"{project}-{service}-1", seconds=seconds)


def start(project: str, service: str) -> None:
    """Start a service. Raises BodyError."""
    docker("start", f"{project}-{service}-1", seconds=START_SECONDS)
