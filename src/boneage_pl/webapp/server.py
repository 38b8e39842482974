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
from boneage_pl.webapp.service import PredictionService
from boneage_pl.webapp.uploads import Uploads

log = logging.getLogger(__name__)
_CLEANUP_SECONDS = 60  # between searches for expired uploads
_FIRST_PORT, _PORTS = 7860, 100
_LOCAL = ("127.0.0.1", "localhost", "::1")


def bind(host: str, port: int | None) -> socket.socket:
    """Return a listening socket.

    Args:
        host: host name or address of this machine; IPv6 with or without brackets.
        port: port number; `None` for the first free one from 7860.

    Raises:
        BoneAgeError: the address or port is not available.
    """
    at = f"host={host}" + (f" port={port}" if port else "")
    for number in [port] if port else range(_FIRST_PORT, _FIRST_PORT + _PORTS):
        try:
            family, kind, protocol, _, address = socket.getaddrinfo(
                host.strip("[]"), number, type=socket.SOCK_STREAM
            )[0]
            bound = socket.socket(family, kind, protocol)  # TCP given, so that asyncio sets TCP_NODELAY
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                bound.bind(address)
                bound.listen(socket.SOMAXCONN)  # a port can be bound twice, but not listened on
                return bound
            except OSError:
                bound.close()
                raise
        except OSError as error:
            if error.errno == errno.EADDRINUSE and port is None:
                continue
            if error.errno == errno.EADDRINUSE:
                why = "the port is in use. Choose another, or port=null for the first free one."
            elif error.errno == errno.EACCES:
                why = "ports below 1024 need administrator rights. Choose another."
            else:
                why = "not an address of this machine. Use 127.0.0.1 for local clients, 0.0.0.0 for all."
            raise BoneAgeError(f"{at}: {why}") from error
    raise BoneAgeError(f"{at}: no port from {_FIRST_PORT} to {_FIRST_PORT + _PORTS - 1} is free. Give port=.")


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
    """Serve until SIGINT or SIGTERM, then delete all uploads.

    Args:
        service: makes the predictions.
        bound: from `bind`.
        max_bytes: size limit of one upload, all files together.
        max_images: largest number of images per upload.
        page: serve the page as well as the API.
        token: token that clients must send; `None` for open access.
        root_path: prefix that a reverse proxy strips, such as `/boneage`.
        allowed_hosts: accepted `Host` headers; `None` for any, or for local names if the address is local.
    """
    with tempfile.TemporaryDirectory(prefix="boneage_pl_page_", ignore_cleanup_errors=True) as folder:
        # read by Gradio and by huggingface_hub, which it imports
        os.environ |= {"GRADIO_TEMP_DIR": folder, "GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_OFFLINE": "1"}
        uploads, metrics = Uploads(Path(folder)), Metrics()
        api = create_api(service, metrics, max_images)
        if page:
            _mount_page(api, service, uploads, max_bytes, max_images, root_path)
        host, port = bound.getsockname()[:2]
        local = host in _LOCAL
        hosts = list(allowed_hosts or ((*_LOCAL, "[::1]") if local else ["*"]))
        app: App = TrustedHostMiddleware(api, hosts)  # type: ignore[assignment]
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
        netloc = f"[{host}]" if ":" in host else host
        print(f"http://{netloc}:{port}/{'' if page else 'docs'}\nPress Ctrl-C to stop.", flush=True)
        if not local and token is None:
            print(
                "Anyone who can reach this address can use the server; restrict access with token=.",
                flush=True,
            )
        _wait_for_signal(uploads.delete_expired)
        server.should_exit = True
        thread.join(10)


def _mount_page(
    api: Any, service: PredictionService, uploads: Uploads, max_bytes: int, max_images: int, root_path: str
) -> None:
    import gradio

    from boneage_pl.webapp.ui import Limits, build_ui, style

    logging.getLogger("httpx").setLevel(logging.WARNING)
    ui = build_ui(service, uploads, Limits(max_bytes, max_images, 4 * max_bytes))
    gradio.mount_gradio_app(
        api,
        ui.queue(),
        path="/",
        root_path=root_path or None,
        max_file_size=max_bytes,
        run_history=False,  # would store radiographs in the browser
        enable_monitoring=False,
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
        footer_links=[],
        theme=gradio.themes.Default(
            primary_hue="blue", font=["system-ui", "sans-serif"], font_mono=["ui-monospace"]
        ),
        head=f"<style>{style()}</style>",  # css= would only apply inside the tabs
    )


def _wait_for_signal(cleanup: Callable[[], object]) -> None:
    stopped = threading.Event()

    def stop(_: int, __: FrameType | None) -> None:
        stopped.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    while not stopped.wait(_CLEANUP_SECONDS):
        try:
            cleanup()
        except Exception:
            log.exception("cleanup failed; the server continues")
