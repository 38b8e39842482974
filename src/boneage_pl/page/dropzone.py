"""Gradio's file component, made to hand over uploads with their owners' names, and nothing else."""

from pathlib import Path
from typing import Any

import gradio as gr

from boneage_pl.page.dropped import UploadedFile


def file_dropzone(**options: Any) -> gr.File:
    """Return a component whose value is a list of `UploadedFile`.

    Methods are replaced on the component: for a class of our own Gradio writes a stub beside this file.

    Args:
        options: of Gradio's component.
    """
    zone = gr.File(elem_classes="drop", **options)
    move = zone.async_move_resource_to_block_cache

    async def refusing(path: str | Path | None) -> str | None:
        if path is not None and "://" in str(path):  # Gradio would fetch it
            raise gr.Error("Only files that are dropped here are read.")
        return await move(path)

    zone.async_move_resource_to_block_cache = refusing  # type: ignore[method-assign, assignment]
    zone.preprocess = _files  # type: ignore[method-assign, assignment]
    return zone


def _files(payload: Any) -> list[UploadedFile]:
    listed = [] if payload is None else getattr(payload, "root", [payload])
    return [UploadedFile(Path(file.path), file.orig_name or Path(file.path).name) for file in listed]
