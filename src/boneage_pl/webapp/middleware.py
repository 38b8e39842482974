"""ASGI middleware: allow-list of paths, token, enforced upload limits."""

import base64
import hmac
import json
import re
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from boneage_pl.webapp.metrics import Metrics
from boneage_pl.webapp.uploads import Uploads

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

_API = r"/api/v1/(predict|model)|/healthz|/metrics|/docs|/openapi\.json|/static-offline-docs/[\w.-]+"
# Endpoints that the page uses. Gradio's others serve local files and fetch remote ones.
_PAGE = (
    r"|/|/config|/theme\.css|/favicon\.ico|/(assets|static)/[\w./@-]+"
    r"|/gradio_api/(startup-events|upload|upload_progress|queue/join|queue/data|reset|cancel|heartbeat/[\w-]+)"
)
_UPLOAD, _PREDICT = "/gradio_api/upload", "/api/v1/predict"
MAX_SERVING = 32  # predictions in progress; our choice: further ones get 503
_FORM_BYTES = 1 << 20  # of a form without its files, and of any other request; our choice


class RequestFilter:
    """Rejects requests outside the page and the API, and oversized ones.

    Args:
        app: the application.
        metrics: counts the predictions in progress.
        max_bytes: size limit of one upload, all files together.
        uploads: the folder of uploaded files; `None` without the page.
        token: token that clients must send; `None` for open access. A browser prompts for it as a password.
    """

    def __init__(
        self,
        app: App,
        metrics: Metrics,
        max_bytes: int,
        uploads: Uploads | None = None,
        token: str | None = None,
    ) -> None:
        self.app, self.metrics, self.max_bytes = app, metrics, max_bytes
        self.uploads, self.token = uploads, token
        self._allowed = re.compile(_API + (_PAGE if uploads else ""))

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Serve a request (ASGI)."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        path = scope.get("path", "").removeprefix(scope.get("root_path", ""))
        if scope["type"] != "http" or not self._allowed.fullmatch(path) or ".." in path:
            await _send_error(send, 404, "Not found.")
            return
        headers = dict(scope["headers"])
        given = headers.get(b"authorization", b"").decode("latin-1")
        if self.token and path != "/healthz" and not is_authorized(given, self.token):
            await _send_error(
                send, 401, "A token is required.", (b"www-authenticate", b'Basic realm="boneage_pl"')
            )
            return
        limit = _FORM_BYTES + (self.max_bytes if path in (_UPLOAD, _PREDICT) else 0)
        length = headers.get(b"content-length", b"")
        if not length.isdigit():
            length = b"0"  # chunked: counted on arrival
        if int(length) > limit:
            await _send_error(send, 413, self._too_large())
            return
        if path == _UPLOAD and self.uploads and not self.uploads.have_room(int(length)):
            await _send_error(send, 507, "The server's disk is full. Try again later.")
            return
        if path == _PREDICT and self.metrics.serving >= MAX_SERVING:  # before reading the body
            await _send_error(
                send, 503, "Too many requests are queued. Try again later.", (b"retry-after", b"5")
            )
            return
        counted = _Counted(receive, send, limit)
        self.metrics.serving += path == _PREDICT
        try:
            if path == _UPLOAD and self.uploads:
                with self.uploads.arriving():
                    await self.app(scope, counted.receive, _claim_files(self.uploads, counted.send))
            else:
                await self.app(scope, counted.receive, counted.send)
        except Exception:
            if not counted.exceeded:
                raise
        finally:
            self.metrics.serving -= path == _PREDICT
        if counted.exceeded and not counted.started:
            await _send_error(send, 413, self._too_large())

    def _too_large(self) -> str:
        return f"Too large: at most {self.max_bytes >> 20} MB per upload."


def _claim_files(uploads: Uploads, send: Send) -> Send:
    """Return a `send` that moves uploaded files to private folders and responds with their new paths."""
    body = bytearray()
    start: Message = {}

    async def send_claimed(message: Message) -> None:
        nonlocal start
        if message["type"] == "http.response.start":
            start = message
            return
        body.extend(message.get("body", b""))
        if message.get("more_body"):
            return
        content = bytes(body)
        if start["status"] == 200:
            content = json.dumps([uploads.claim(path) for path in json.loads(content)]).encode()
        head = [(name, value) for name, value in start["headers"] if name.lower() != b"content-length"]
        await send({**start, "headers": [*head, (b"content-length", str(len(content)).encode())]})
        await send({"type": "http.response.body", "body": content})

    return send_claimed


class _Counted:
    """Counts the bytes of a request; past the limit the application sees a disconnected client."""

    def __init__(self, receive: Receive, send: Send, limit: int) -> None:
        self._receive, self._send, self._left = receive, send, limit
        self.started = self.exceeded = False

    async def receive(self) -> Message:
        message = await self._receive()
        self._left -= len(message.get("body", b""))
        if self._left < 0:
            self.exceeded = True
            return {"type": "http.disconnect"}
        return message

    async def send(self, message: Message) -> None:
        if self.started or not self.exceeded:
            self.started = True
            await self._send(message)


async def _send_error(send: Send, status: int, detail: str, *headers: tuple[bytes, bytes]) -> None:
    body = json.dumps({"detail": detail}).encode()
    head = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()), *headers]
    await send({"type": "http.response.start", "status": status, "headers": head})
    await send({"type": "http.response.body", "body": body})


def is_authorized(header: str, token: str) -> bool:
    """Whether an `Authorization` header has the token, as a bearer token or as the password of any user."""
    scheme, _, given = header.partition(" ")
    if scheme.lower() == "basic":
        try:
            given = base64.b64decode(given, validate=True).decode().partition(":")[2]
        except ValueError:
            return False
    elif scheme.lower() != "bearer":
        return False
    return hmac.compare_digest(given.encode(), token.encode())
