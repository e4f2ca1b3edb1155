"""What Prometheus reads."""

from __future__ import annotations

import platform
from collections.abc import Iterable

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Info,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

from . import __version__

RESULTS = ("allowed", "denied", "peek", "error")


class Metrics:
    """Counters of one service. Every series exists from the start, so a rate() sees the first event."""

    content_type = b"text/plain; version=0.0.4; charset=utf-8"

    def __init__(self, apis: Iterable[str]) -> None:
        """Prepare the series of each known API."""
        disable_created_metrics()
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        build = Info("rate_limiter_build", "Version of the service.", registry=self._registry)
        build.info({"version": __version__, "python": platform.python_version()})
        checks = Counter(
            "rate_limiter_checks",
            "Checks by API and result; a peek (cost 0) is neither allowed nor denied.",
            ["api", "result"],
            registry=self._registry,
        )
        self._checks = {(api, result): checks.labels(api, result) for api in apis for result in RESULTS}
        self.redis_errors = Counter(
            "rate_limiter_redis_errors",
            "Questions to Redis that failed or timed out.",
            registry=self._registry,
        )

    def count(self, api: str, result: str) -> None:
        """Count one check of a known API; ``result`` is one of RESULTS."""
        self._checks[api, result].inc()

    def render(self) -> bytes:
        """All series as Prometheus text."""
        return generate_latest(self._registry)
