"""Gradio component that takes files which were dropped, and nothing else."""

from pathlib import Path
from typing import Any

import gradio as gr

from boneage_pl.webapp.batch_upload import UploadedFile
from boneage_pl.webapp.uploads import Uploads


def file_dropzone(uploads: Uploads, **options: Any) -> gr.File:
    """Return a component whose value is a list of `UploadedFile`.

    Methods are replaced on the component: for a class of our own Gradio writes a stub beside this file.

    Args:
        uploads: whose files it takes.
        options: of Gradio's component.
    """
    zone = gr.File(elem_classes="drop", **options)

    async def checked(path: str | Path | None) -> str | None:
        if path is not None and not uploads.contains(Path(path)):
            # a mounted Gradio would read any file of this machine, and fetch any other's
            raise gr.Error("Only files that are dropped here are read.", print_exception=False)
        return None if path is None else str(path)

    zone.async_move_resource_to_block_cache = checked  # type: ignore[method-assign, assignment]
    zone.preprocess = _files  # type: ignore[method-assign, assignment]
    return zone


def _files(payload: Any) -> list[UploadedFile]:
    listed = [] if payload is None else getattr(payload, "root", [payload])
    return [UploadedFile(Path(file.path), file.orig_name or Path(file.path).name) for file in listed]
