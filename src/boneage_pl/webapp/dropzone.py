"""Gradio component that accepts uploaded files only."""

from pathlib import Path
from typing import Any

import gradio as gr

from boneage_pl.webapp.batch_upload import UploadedFile
from boneage_pl.webapp.uploads import Uploads


def file_dropzone(uploads: Uploads, **options: Any) -> gr.File:
    """Return a component whose value is a list of `UploadedFile`.

    Methods are replaced on the instance, because Gradio writes a stub file for every subclass.

    Args:
        uploads: the folder of uploaded files.
        options: passed to `gradio.File`.
    """
    dropzone = gr.File(elem_classes="drop", **options)

    async def checked(path: str | Path | None) -> str | None:
        if path is not None and not uploads.contains(Path(path)):
            # otherwise Gradio would read any local file, and fetch any URL
            raise gr.Error("Only uploaded files are read.", print_exception=False)
        return None if path is None else str(path)

    dropzone.async_move_resource_to_block_cache = checked  # type: ignore[method-assign, assignment]
    dropzone.preprocess = _files  # type: ignore[method-assign, assignment]
    return dropzone


def _files(payload: Any) -> list[UploadedFile]:
    uploaded = [] if payload is None else getattr(payload, "root", [payload])
    return [UploadedFile(Path(file.path), file.orig_name or Path(file.path).name) for file in uploaded]
