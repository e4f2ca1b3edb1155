"""What Prometheus reads."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

_BUCKETS = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0)


class Metrics:
    """The counters of one process."""

    content_type = "text/plain; version=0.0.4; charset=utf-8"

    def __init__(self, endpoints: Iterable[str], consumers: Iterable[str]) -> None:
        disable_created_metrics()
        registry = self._registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self.received = Counter(
            "webhook_received",
            "Webhooks by result: stored, duplicate, or why not.",
            ["endpoint", "result"],
            registry=registry,
        )
        self.seconds = Histogram(
            "webhook_seconds",
            "From the first byte to the answer, of those stored.",
            buckets=_BUCKETS,
            registry=registry,
        )
        self.handed = Counter(
            "webhook_handed",
            "Attempts to hand an event over, by how they ended.",
            ["consumer", "outcome"],
            registry=registry,
        )
        self.waiting = Gauge(
            "webhook_outbox", "Events not handed over, waiting or given up.", ["consumer", "state"], registry=registry
        )
        # A rate has to see the first one.
        for endpoint in endpoints:
            for result in ("stored", "duplicate", "signature"):
                self.received.labels(endpoint, result)
        for consumer in consumers:
            self.handed.labels(consumer, "done")
            for state in ("pending", "dead"):
                self.waiting.labels(consumer, state)

    def render(self) -> bytes:
        """All series as text."""
        return generate_latest(self._registry)
