"""What Prometheus reads."""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry, Info, ProcessCollector, disable_created_metrics, generate_latest
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from . import __version__

RESULTS = ("allowed", "denied", "peek", "reserved", "error")


class Metrics(Collector):
    """Counters of one service, plain numbers. Every series exists from the start, so a rate() sees the first event."""

    content_type = b"text/plain; version=0.0.4; charset=utf-8"

    def __init__(self, apis: Iterable[str], callers: Iterable[str] = ()) -> None:
        """Prepare the series of each known API and caller."""
        disable_created_metrics()
        # By API and result, one of RESULTS.
        self.checks: dict[tuple[str, str], int] = {}
        self.know(apis)
        self.callers: Counter[str] = Counter(dict.fromkeys(callers, 0))
        self.redis_errors = self.degraded = self.shadow = self.reports = self.reload_errors = 0
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        build = Info("rate_limiter_build", "Version of the service.", registry=self._registry)
        build.info({"version": __version__, "python": platform.python_version()})
        self._registry.register(self)

    def know(self, apis: Iterable[str]) -> None:
        """Have series for these APIs too."""
        for api in apis:
            for result in RESULTS:
                self.checks.setdefault((api, result), 0)

    def render(self) -> bytes:
        """All series as Prometheus text."""
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        """Hand the numbers over."""
        checks = CounterMetricFamily(
            "rate_limiter_checks",
            "Checks by API and result; a peek (cost 0) is neither allowed nor denied.",
            labels=["api", "result"],
        )
        for labels, number in self.checks.items():
            checks.add_metric(labels, number)
        yield checks
        requests = CounterMetricFamily(
            "rate_limiter_requests", "Requests of each caller that has a token.", labels=["caller"]
        )
        for caller, number in self.callers.items():
            requests.add_metric([caller], number)
        yield requests
        for name, help_text, number in (
            ("redis_errors", "Questions to Redis that failed or timed out.", self.redis_errors),
            ("degraded", "Checks that were answered without Redis.", self.degraded),
            ("shadow_denied", "Checks that were allowed only because their policy is in shadow mode.", self.shadow),
            ("reports", "Refusals of providers that were reported.", self.reports),
            (
                "reload_errors",
                "Changed policies files that were refused; the policies before stay in force.",
                self.reload_errors,
            ),
        ):
            yield CounterMetricFamily(f"rate_limiter_{name}", help_text, value=number)
