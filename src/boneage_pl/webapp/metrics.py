"""Prometheus metrics: request counts, durations and queue length."""

import time
from typing import Any

from prometheus_client import CollectorRegistry, Gauge, Histogram, generate_latest

_PATHS = ("/api/v1/predict", "/api/v1/model", "/healthz", "/metrics")
_SECONDS = (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)  # histogram buckets; our choice


class Metrics:
    """Request counts and durations by path and status; `serving` is the number of predictions in progress."""

    def __init__(self) -> None:
        self.serving = 0
        self._registry = CollectorRegistry()
        self._seconds = Histogram(
            "boneage_request_seconds",
            "Duration of requests",
            ["path", "status"],
            registry=self._registry,
            buckets=_SECONDS,
        )
        queue = Gauge("boneage_queue", "Predictions in progress", registry=self._registry)
        queue.set_function(lambda: self.serving)

    def count(self, path: str, status: int, seconds: float) -> None:
        """Record a request; paths outside the API are counted as `other`."""
        self._seconds.labels(path if path in _PATHS else "other", status).observe(seconds)

    def text(self) -> str:
        """Return the metrics in Prometheus text format."""
        return generate_latest(self._registry).decode()


class MeasureRequests:
    """ASGI middleware that records requests in `Metrics`."""

    def __init__(self, app: Any, metrics: Metrics) -> None:
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve and record a request."""
        start, status = time.perf_counter(), 500

        async def record_status(message: Any) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        try:
            await self.app(scope, receive, record_status)
        finally:
            if scope["type"] == "http":
                path = scope["path"].removeprefix(scope.get("root_path", ""))
                self.metrics.count(path, status, time.perf_counter() - start)
