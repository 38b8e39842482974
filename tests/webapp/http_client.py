"""An HTTP client of the page."""

import json
import socket
import uuid
from collections.abc import Sequence
from typing import Any

import httpx

ONE, MANY = "on_upload", "on_click"


def free_port() -> int:
    """Return a free port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


class Caller:
    """Uploads and predicts by HTTP, like the page's script."""

    def __init__(self, url: str) -> None:
        self.http = httpx.Client(base_url=url, timeout=120)
        self.calls = {d["api_name"]: d["id"] for d in self.http.get("/config").json()["dependencies"]}

    def upload(self, *files: tuple[str, bytes]) -> httpx.Response:
        return self.http.post("/gradio_api/upload", files=[("files", file) for file in files])

    def call(self, function: str, data: Sequence[Any]) -> Any:
        """Return the result of a function of the page for component values; `None` if it is rejected."""
        session = uuid.uuid4().hex
        order = {"fn_index": self.calls[function], "data": list(data), "session_hash": session}
        joined = self.http.post("/gradio_api/queue/join", json=order)
        assert joined.status_code == 200, joined.text
        with self.http.stream("GET", "/gradio_api/queue/data", params={"session_hash": session}) as events:
            for line in events.iter_lines():
                if line.startswith("data:") and (event := json.loads(line[5:]))["msg"] == "process_completed":
                    return event["output"]["data"] if event["success"] else None
        raise AssertionError("no result")

    def one(self, name: str, content: bytes, sex: str = "F") -> str:
        """Return the page's HTML for an image."""
        (path,) = self.upload((name, content)).json()
        return self.call(ONE, [named(path, name), None, sex, "", "", ""])[-1]

    def many(self, *files: tuple[str, bytes], sex: str = "unknown") -> str:
        """Return the page's table for several images."""
        paths = self.upload(*files).json()
        dropped = [named(path, name) for path, (name, _) in zip(paths, files, strict=True)]
        return self.call(MANY, [dropped, sex])[-1]


def named(path: str, name: str) -> dict[str, Any]:
    return {"path": path, "orig_name": name, "meta": {"_type": "gradio.FileData"}}
