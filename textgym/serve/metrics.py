"""The counts of a service in Prometheus' text format."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.005, 0.02, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)


class Metrics:
    """Counts requests and their outcomes; each service has a registry of its own."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "textgym_requests", "Requests answered.", ["path", "status"], registry=self._registry
        )
        self._seconds = Histogram(
            "textgym_request_seconds",
            "Seconds from the first byte of a request to its answer.",
            ["path"],
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._items = Counter(
            "textgym_items",
            "Samples or sequences by outcome: scored, abstained, failed/KIND, evaluated.",
            ["outcome"],
            registry=self._registry,
        )

    def watch_pending(self, num_pending: Callable[[], int]) -> None:
        """Show how many requests are worked on or wait."""
        gauge = Gauge(
            "textgym_pending_requests", "Requests worked on or waiting.", registry=self._registry
        )
        gauge.set_function(num_pending)

    def count_request(self, path: str, status: int, seconds: float) -> None:
        """Count one answered request."""
        self._requests.labels(path, str(status)).inc()
        self._seconds.labels(path).observe(seconds)

    def count_items(self, outcomes: Iterable[str]) -> None:
        """Count samples or sequences by outcome."""
        for outcome in outcomes:
            self._items.labels(outcome).inc()

    def text(self) -> bytes:
        """Return all counts."""
        return generate_latest(self._registry)
