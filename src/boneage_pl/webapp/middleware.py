"""ASGI middleware that allow-lists endpoints and limits upload sizes."""

import json
import re
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from boneage_pl.webapp.uploads import Uploads

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

# What the page asks for. The server has more: it would hand out files, and fetch other hosts' for anyone.
_ALLOWED_PATHS = re.compile(
    r"/|/config|/theme\.css|/favicon\.ico|/(assets|static)/[\w./@-]+"
    r"|/gradio_api/(startup-events|upload|upload_progress|queue/join|queue/data|reset|cancel|heartbeat/[\w-]+)"
)
_UPLOAD = "/gradio_api/upload"
_MAX_REQUEST_BYTES = 1 << 20  # bytes of any other request; our choice: they are a few hundred


class RequestFilter:
    """Refuses other requests than the page's, and larger ones than it should make.

    Args:
        app: that answers.
        uploads: registers files that arrive.
        most: bytes of one upload, all of its files together.
    """

    def __init__(self, app: App, uploads: Uploads, most: int) -> None:
        self.app, self.uploads, self.most = app, uploads, most

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer a request, as ASGI has it."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        path = scope.get("path", "")
        if scope["type"] != "http" or not _ALLOWED_PATHS.fullmatch(path) or ".." in path:
            await _send_error(send, 404, "There is no such thing here.")
            return
        uploading = path == _UPLOAD
        if problem := self._too_large(scope, self.most if uploading else _MAX_REQUEST_BYTES):
            await _send_error(send, *problem)
            return
        await self.app(scope, receive, self._track_upload(send) if uploading else send)

    def _too_large(self, scope: Message, most: int) -> tuple[int, str] | None:
        if scope["method"] in ("GET", "HEAD"):
            return None
        length = dict(scope["headers"]).get(b"content-length", b"")
        if not length.isdigit():
            return 411, "An upload must say how long it is."
        if int(length) > most:
            return 413, f"That is {int(length) >> 20} MB, and no more than {most >> 20} are taken at once."
        return None

    def _track_upload(self, send: Send) -> Send:
        """Return a `send` that reads along which files have arrived."""
        body = bytearray()
        status = 0

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            elif message["type"] == "http.response.body" and status == 200:
                body.extend(message.get("body", b""))
                if not message.get("more_body"):
                    self.uploads.add(json.loads(body))
            await send(message)

        return noted


async def _send_error(send: Send, status: int, words: str) -> None:
    body = json.dumps({"detail": words}).encode()
    head = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": head})
    await send({"type": "http.response.body", "body": body})
