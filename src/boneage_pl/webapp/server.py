"""Serve the page and the API."""

import errno
import logging
import os
import signal
import socket
import tempfile
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import uvicorn
from starlette.middleware.trustedhost import TrustedHostMiddleware

from boneage_pl.errors import BoneAgeError
from boneage_pl.webapp.api import create_api
from boneage_pl.webapp.metrics import MeasureRequests, Metrics
from boneage_pl.webapp.middleware import App, RequestFilter
from boneage_pl.webapp.service import PredictionService, SessionImage
from boneage_pl.webapp.uploads import TTLCache, Uploads

log = logging.getLogger(__name__)
_SWEEP = 60  # seconds between searches for abandoned uploads
_FIRST_PORT, _PORTS = 7860, 100
_LOCAL = ("127.0.0.1", "localhost", "::1")


def bind(host: str, port: int | None) -> socket.socket:
    """Return a socket that is bound to an address.

    Args:
        host: a name or number of this machine's; IPv6 with or without brackets.
        port: of it; `None` for the first free one from 7860 on.

    Raises:
        BoneAgeError: nothing can be served there.
    """
    at = f"host={host}" + (f" port={port}" if port else "")
    for number in [port] if port else range(_FIRST_PORT, _FIRST_PORT + _PORTS):
        try:
            family, kind, protocol, _, address = socket.getaddrinfo(
                host.strip("[]"), number, type=socket.SOCK_STREAM
            )[0]
            bound = socket.socket(family, kind, protocol)  # asyncio sends at once if it is TCP's
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do
            try:
                bound.bind(address)
                bound.listen(socket.SOMAXCONN)  # two may bind a port, one may listen
                return bound
            except OSError:
                bound.close()
                raise
        except OSError as error:
            if error.errno == errno.EADDRINUSE and port is None:
                continue
            if error.errno == errno.EADDRINUSE:
                why = "the port is taken. Stop what uses it, or give another; null takes the first free one."
            elif error.errno == errno.EACCES:
                why = "only an administrator may serve there; ports from 1024 on are free for all."
            else:
                why = "no address of this machine. 127.0.0.1 is for itself, 0.0.0.0 for all that reach it."
            raise BoneAgeError(f"{at}: {why}") from error
    raise BoneAgeError(f"{at}: no port from {_FIRST_PORT} on is free.")


def serve(
    service: PredictionService,
    bound: socket.socket,
    *,
    max_bytes: int,
    max_images: int,
    page: bool = True,
    token: str | None = None,
    root_path: str = "",
    allowed_hosts: Sequence[str] | None = None,
) -> None:
    """Serve until SIGINT or SIGTERM; uploads are gone then.

    Args:
        service: predicts.
        bound: see `bind`.
        max_bytes: of one upload, all of its files together.
        max_images: of one upload.
        page: whether there is a page beside the API.
        token: that clients must have; `None` for all of them.
        root_path: below which a reverse proxy serves it, such as `/boneage`; it strips that off.
        allowed_hosts: by which names clients may call the server; `None` for any, or of a server for this
            machine alone its own names.
    """
    with tempfile.TemporaryDirectory(prefix="boneage_pl_page_", ignore_cleanup_errors=True) as folder:
        # read by Gradio and by Hugging Face's hub, which it imports
        os.environ |= {"GRADIO_TEMP_DIR": folder, "GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_OFFLINE": "1"}
        uploads, kept = Uploads(Path(folder)), TTLCache[SessionImage]()
        metrics = Metrics()
        api = create_api(service, metrics, max_images)
        if page:
            _mount_page(api, service, uploads, kept, max_bytes, max_images, root_path)
        host, port = bound.getsockname()[:2]
        local = host in _LOCAL
        names = list(allowed_hosts or ((*_LOCAL, "[::1]") if local else ["*"]))
        app: App = TrustedHostMiddleware(api, names)  # type: ignore[assignment]
        app = RequestFilter(app, metrics, max_bytes, uploads if page else None, token)
        app = MeasureRequests(app, metrics)
        config = uvicorn.Config(
            app,  # type: ignore[arg-type]
            log_level="warning",
            access_log=False,
            root_path=root_path,
            timeout_graceful_shutdown=3,
            server_header=False,
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=([bound],), daemon=True, name="server")
        thread.start()
        shown = f"[{host}]" if ":" in host else host
        print(f"http://{shown}:{port}/{'' if page else 'docs'}\nCtrl-C stops it", flush=True)
        if not local and token is None:
            print("whoever reaches this address can use it; token= protects it", flush=True)
        _until_stopped(uploads.delete_expired, kept.expire)
        server.should_exit = True
        thread.join(10)


def _mount_page(
    api: Any,
    service: PredictionService,
    uploads: Uploads,
    kept: TTLCache[SessionImage],
    max_bytes: int,
    max_images: int,
    root_path: str,
) -> None:
    import gradio

    from boneage_pl.webapp.ui import Limits, build_ui, style

    logging.getLogger("httpx").setLevel(logging.WARNING)
    ui = build_ui(service, uploads, kept, Limits(max_bytes, max_images, 4 * max_bytes))
    gradio.mount_gradio_app(
        api,
        ui.queue(),
        path="/",
        root_path=root_path or None,
        max_file_size=max_bytes,
        run_history=False,  # it would keep radiographs in the browser
        enable_monitoring=False,
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
        footer_links=[],
        theme=gradio.themes.Default(
            primary_hue="blue", font=["system-ui", "sans-serif"], font_mono=["ui-monospace"]
        ),
        head=f"<style>{style()}</style>",  # given as css=, it would not reach beyond the tabs
    )


def _until_stopped(*tidy: Callable[[], object]) -> None:
    stopped = threading.Event()

    def stop(_: int, __: FrameType | None) -> None:
        stopped.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    while not stopped.wait(_SWEEP):
        for do in tidy:
            try:
                do()
            except Exception:
                log.exception("tidying up failed; the server goes on")
