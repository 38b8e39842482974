"""Requests by status, their seconds and the queue, as Prometheus reads them."""

import time
from typing import Any

from prometheus_client import CollectorRegistry, Gauge, Histogram, generate_latest

_PATHS = ("/api/v1/predict", "/api/v1/model", "/healthz", "/metrics")
_SECONDS = (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)  # bounds of the histogram; our choice


class Metrics:
    """Counts requests and their seconds by path and status; `serving` predictions are in progress."""

    def __init__(self) -> None:
        self.serving = 0
        self._registry = CollectorRegistry()
        self._seconds = Histogram(
            "boneage_request_seconds",
            "requests and how long they took",
            ["path", "status"],
            registry=self._registry,
            buckets=_SECONDS,
        )
        queue = Gauge("boneage_queue", "predictions in progress", registry=self._registry)
        queue.set_function(lambda: self.serving)

    def count(self, path: str, status: int, seconds: float) -> None:
        """Count a request; those of the page, and of what is not there, are one path."""
        self._seconds.labels(path if path in _PATHS else "other", status).observe(seconds)

    def text(self) -> str:
        """Return all of them."""
        return generate_latest(self._registry).decode()


class MeasureRequests:
    """ASGI middleware that counts requests in `Metrics`."""

    def __init__(self, app: Any, metrics: Metrics) -> None:
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve a request, and count it."""
        start, status = time.perf_counter(), 500

        async def noted(message: Any) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        try:
            await self.app(scope, receive, noted)
        finally:
            if scope["type"] == "http":
                path = scope["path"].removeprefix(scope.get("root_path", ""))
                self.metrics.count(path, status, time.perf_counter() - start)
