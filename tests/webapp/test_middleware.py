"""What stands before the server lets through what the page asks for, and nothing else."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from boneage_pl.webapp.middleware import RequestFilter
from boneage_pl.webapp.uploads import Uploads


def asked(tmp_path: Path, path: str, method: str = "GET", **headers: str) -> tuple[int, Any]:
    async def app(_: Any, __: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b'["/up', "more_body": True})
        await send({"type": "http.response.body", "body": b'load"]'})

    said: list[Any] = []

    async def send(message: Any) -> None:
        said.append(message)

    async def receive() -> Any:
        return {}

    uploads = Uploads(tmp_path)
    head = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "http", "path": path, "method": method, "headers": head}
    asyncio.run(RequestFilter(app, uploads, 1 << 21)(scope, receive, send))
    assert dict(uploads._waiting) == (
        {"/upload": 1} if path == "/gradio_api/upload" and len(said) == 3 else {}
    )
    return said[0]["status"], b"".join(part.get("body", b"") for part in said[1:])


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/config",
        "/assets/index-x.js",
        "/theme.css",
        "/gradio_api/heartbeat/a1",
        "/gradio_api/queue/data",
    ],
)
def test_page_requests_pass(tmp_path: Path, path: str):
    assert asked(tmp_path, path)[0] == 200


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
        "/docs",
        "/\n",
    ],
)
def test_other_requests_are_refused(tmp_path: Path, path: str):
    assert asked(tmp_path, path)[0] == 404


def test_uploads_are_tracked_and_limited(tmp_path: Path):
    upload = "/gradio_api/upload"
    assert asked(tmp_path, upload, "POST", content_length="2000000")[0] == 200
    status, body = asked(tmp_path, upload, "POST", content_length="9000000")
    assert (status, json.loads(body)["detail"]) == (
        413,
        "That is 8 MB, and no more than 2 are taken at once.",
    )
    assert asked(tmp_path, upload, "POST")[0] == 411
    assert asked(tmp_path, "/gradio_api/queue/join", "POST", content_length="2000000")[0] == 413
