"""The request filter allows only what page and API need."""

import asyncio
import base64
import json
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from omegaconf import OmegaConf

from boneage_pl import app as commands
from boneage_pl.errors import BoneAgeError
from boneage_pl.webapp.metrics import Metrics
from boneage_pl.webapp.middleware import MAX_SERVING, RequestFilter
from boneage_pl.webapp.uploads import Uploads

MB = 1 << 20


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Read the whole body, and respond with a file's path as Gradio does."""
    while (message := await receive())["type"] == "http.request" and message.get("more_body"):
        pass
    if message["type"] == "http.disconnect":
        raise ConnectionError("the client is gone")
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": scope["uploaded"], "more_body": True})
    await send({"type": "http.response.body", "body": b""})


def fetch(
    path: str,
    method: str = "GET",
    *,
    uploads: Uploads | None = None,
    token: str | None = None,
    metrics: Metrics | None = None,
    body: Iterable[bytes] = (b"",),
    uploaded: list[str] | None = None,
    **headers: str,
) -> tuple[int, Any]:
    """Return status and body for a request in several parts."""
    parts = [{"type": "http.request", "body": part, "more_body": True} for part in body]
    parts[-1]["more_body"] = False
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return parts.pop(0)

    head = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "http", "path": path, "method": method, "headers": head}
    scope["uploaded"] = json.dumps(uploaded or []).encode()
    metrics = metrics or Metrics()
    asyncio.run(RequestFilter(app, metrics, 2 * MB, uploads, token)(scope, receive, send))
    assert metrics.serving in (0, MAX_SERVING)
    return sent[0]["status"], json.loads(b"".join(part.get("body", b"") for part in sent[1:]))


PAGE = [
    "/",
    "/config",
    "/assets/index-x.js",
    "/theme.css",
    "/gradio_api/heartbeat/a1",
    "/gradio_api/queue/data",
]
API = ["/api/v1/predict", "/api/v1/model", "/healthz", "/metrics", "/docs", "/openapi.json"]


def test_page_and_api_requests_pass(tmp_path: Path):
    for path in (*PAGE, *API):
        assert fetch(path, uploads=Uploads(tmp_path))[0] == 200, path
        assert fetch(path)[0] == (200 if path in API else 404), path  # without the page


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/file=/etc/passwd",
        "/gradio_api/file=http://example.com/x.png",
        "/gradio_api/proxy=http://example.com",
        "/gradio_api/info",
        "/gradio_api/runs",
        "/gradio_api/component_server",
        "/gradio_api/call/look",
        "/assets/../secret",
        "/api/v2/predict",
        "/\n",
    ],
)
def test_other_requests_are_refused(tmp_path: Path, path: str):
    assert fetch(path, uploads=Uploads(tmp_path))[0] == 404


@pytest.mark.parametrize(
    ("path", "most"), [("/gradio_api/upload", 3), ("/api/v1/predict", 3), ("/gradio_api/queue/join", 1)]
)
def test_bodies_are_limited_as_they_arrive(tmp_path: Path, path: str, most: int):
    def post(megabytes: int, **headers: str) -> tuple[int, Any]:
        return fetch(path, "POST", uploads=Uploads(tmp_path), body=[bytes(MB)] * megabytes, **headers)

    assert post(most)[0] == 200
    status, problem = post(most + 1)  # chunked, without a length
    assert status == 413
    assert "at most 2 MB" in problem["detail"]
    assert post(most + 1, content_length="10")[0] == 413  # a wrong length
    assert post(1, content_length=str(10 * MB))[0] == 413


def test_uploads_get_places_of_their_own(tmp_path: Path):
    uploads = Uploads(tmp_path)
    paths = []
    shared = tmp_path / "checksum" / "x.png"
    for _ in range(2):  # of two clients, whose files Gradio stores under one name
        shared.parent.mkdir()
        shared.write_bytes(b"x")
        paths += fetch("/gradio_api/upload", "POST", uploads=uploads, uploaded=[str(shared)])[1]
    assert len(set(paths)) == 2
    assert not shared.exists()
    assert all(uploads.contains(Path(path)) and Path(path).name == "x.png" for path in paths)


def test_token_is_needed_but_for_health():
    basic = base64.b64encode(b"anyone:secret").decode()
    for header in ("Bearer secret", f"Basic {basic}"):
        assert fetch("/metrics", token="secret", authorization=header)[0] == 200
    for header in ("", "secret", "Bearer", "Bearer secret2", "Basic secret", "Basic ÿ", "Digest secret"):
        assert fetch("/api/v1/model", token="secret", authorization=header)[0] == 401, header
    assert fetch("/healthz", token="secret")[0] == 200


def test_more_predictions_than_threads_are_refused_unread():
    busy = Metrics()
    busy.serving = MAX_SERVING
    assert fetch("/api/v1/predict", "POST", metrics=busy)[0] == 503
    assert fetch("/healthz", metrics=busy)[0] == 200


def test_metrics_have_few_names():
    metrics = Metrics()
    for path in ("/api/v1/predict", "/assets/x.js", '/api/"}evil', "/healthz"):
        metrics.count(path, 200, 0.5)
    text = metrics.text()
    assert 'boneage_request_seconds_count{path="other",status="200"} 2.0' in text
    assert "evil" not in text


def test_upload_needs_room_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    uploads = Uploads(tmp_path)
    free = 17 * MB
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=free))
    for length, status in (("1000", 200), (str(2 * MB), 507)):
        given = fetch("/gradio_api/upload", "POST", uploads=uploads, content_length=length)
        assert given[0] == status
    free = 15 * MB
    status, body = fetch("/gradio_api/upload", "POST", uploads=uploads)  # in chunks
    assert (status, body["detail"]) == (507, "The server's disk is full. Try again later.")
    assert fetch("/api/v1/predict", "POST", uploads=uploads)[0] == 200  # in memory


def test_empty_token_of_the_environment_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("BONEAGE_TOKEN", "")
    with pytest.raises(BoneAgeError, match="BONEAGE_TOKEN is empty"):
        commands.app(OmegaConf.create({"page": False, "token": None}))
