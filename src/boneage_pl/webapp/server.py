"""Launch the server."""

import logging
import os
import signal
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from boneage_pl.errors import BoneAgeError
from boneage_pl.webapp.service import PredictionService, SessionImage
from boneage_pl.webapp.uploads import TTLCache, Uploads

_SWEEP = 60  # seconds between searches for abandoned uploads
_LOCAL = ("127.0.0.1", "localhost", "::1")


def serve(desk: PredictionService, host: str, port: int | None, megabytes: int, pictures: int) -> None:
    """Serve until SIGINT or SIGTERM; uploads are gone then.

    Args:
        desk: the prediction service.
        host: the address that is listened on.
        port: of it; `None` for the first free one from 7860 on.
        megabytes: of one drop.
        pictures: of one drop.

    Raises:
        BoneAgeError: nothing can be served there.
    """
    with tempfile.TemporaryDirectory(prefix="boneage_pl_page_", ignore_cleanup_errors=True) as folder:
        # read by Gradio and by Hugging Face's hub, which it imports
        os.environ |= {"GRADIO_TEMP_DIR": folder, "GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_OFFLINE": "1"}
        import gradio

        from boneage_pl.webapp.middleware import RequestFilter
        from boneage_pl.webapp.ui import Limits, build_ui, style

        logging.getLogger("httpx").setLevel(logging.WARNING)  # Gradio asks itself whether it is there
        uploads = Uploads(Path(folder))
        most = megabytes << 20
        kept: TTLCache[SessionImage] = TTLCache()
        page = build_ui(desk, uploads, kept, Limits(most, pictures, 4 * most))
        try:
            _, local, _ = page.queue().launch(
                server_name=host,
                server_port=port,
                app_kwargs={"middleware": [_middleware(RequestFilter, uploads, most)]},
                max_file_size=most,
                share=False,
                run_history=False,  # it would keep radiographs in the browser
                enable_monitoring=False,
                ssr_mode=False,
                pwa=False,
                mcp_server=False,
                footer_links=[],
                quiet=True,
                prevent_thread_lock=True,
                theme=gradio.themes.Default(
                    primary_hue="blue", font=["system-ui", "sans-serif"], font_mono=["ui-monospace"]
                ),
                head=f"<style>{style()}</style>",  # given as css=, it would not reach beyond the tabs
            )
        except OSError as error:
            raise BoneAgeError(f"host={host} port={port}: nothing can be served there ({error}).") from error
        try:
            print(f"{local}\nCtrl-C stops it", flush=True)
            if host not in _LOCAL:
                print("whoever reaches this address can ask; there is no password", flush=True)
            _until_stopped(uploads.delete_expired, kept.expire)
        finally:
            page.close(verbose=False)


def _middleware(guard: Any, uploads: Uploads, most: int) -> Any:
    from starlette.middleware import Middleware

    return Middleware(guard, uploads=uploads, most=most)


def _until_stopped(*tidy: Callable[[], object]) -> None:
    stopped = threading.Event()

    def stop(_: int, __: FrameType | None) -> None:
        stopped.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    while not stopped.wait(_SWEEP):
        for do in tidy:
            do()
