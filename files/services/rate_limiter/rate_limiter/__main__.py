"""Start the service: ``python -m rate_limiter``. Exit code 2: a setting is wrong."""

from __future__ import annotations

import logging
import os
import sys

import uvicorn

from . import __version__, logs
from .app import App
from .config import Config
from .errors import ConfigError
from .limiter import Limiter
from .metrics import Metrics
from .policies import load_policies

_log = logging.getLogger("rate_limiter")


def main() -> int:
    """Serve until SIGTERM; return the exit code."""
    logs.configure()
    try:
        config = Config.from_environment(os.environ)
        policies = load_policies(config.policies)
    except ConfigError as error:
        _log.critical("refusing to start: %s", error)
        return 2
    _log.info("version %s, port %d, limits of %s", __version__, config.port, ", ".join(policies))
    uvicorn.run(
        App(Limiter(config), policies, Metrics(policies)),
        host=config.host,
        port=config.port,
        loop="uvloop",
        http="httptools",
        ws="none",
        lifespan="on",
        log_config=None,
        log_level="warning",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=5,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
