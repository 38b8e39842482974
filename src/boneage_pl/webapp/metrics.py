"""Requests, errors, seconds and the queue, in Prometheus' text format."""

import time
from collections import Counter, defaultdict
from typing import Any

_PATHS = ("/api/v1/predict", "/api/v1/model", "/healthz", "/metrics")


class Metrics:
    """Counts requests by path and status, and their seconds; `serving` predictions are in progress."""

    def __init__(self) -> None:
        self.serving = 0
        self._requests: Counter[tuple[str, int]] = Counter()
        self._seconds: defaultdict[str, float] = defaultdict(float)

    def count(self, path: str, status: int, seconds: float) -> None:
        """Count a request; those of the page, and of what is not there, are one path."""
        path = path if path in _PATHS else "other"
        self._requests[path, status] += 1
        self._seconds[path] += seconds

    def text(self) -> str:
        """Return all of them."""
        lines = ["# TYPE boneage_requests_total counter"]
        for (path, status), count in sorted(self._requests.items()):
            lines.append(f'boneage_requests_total{{path="{path}",status="{status}"}} {count}')
        errors = sum(count for (_, status), count in self._requests.items() if status >= 500)
        lines += ["# TYPE boneage_errors_total counter", f"boneage_errors_total {errors}"]
        lines.append("# TYPE boneage_request_seconds_total counter")
        for path, seconds in sorted(self._seconds.items()):
            lines.append(f'boneage_request_seconds_total{{path="{path}"}} {seconds:.6f}')
        lines += ["# TYPE boneage_queue gauge", f"boneage_queue {self.serving}"]
        return "\n".join(lines) + "\n"


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
