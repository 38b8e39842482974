"""Export with `torch.export`."""

import io
import json
import warnings
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from boneage_pl.deploy.export_module import ExportModule, PredictFn, translate_export_errors

METADATA_FILE = "boneage_pl.json"  # inside the archive


def write_program(model: ExportModule, path: Path, metadata: Mapping[str, str]) -> None:
    """Write a float32 model with a dynamic batch size and its metadata."""
    any_batch = {0: torch.export.Dim.DYNAMIC}
    with translate_export_errors("format=torch_export"), torch.no_grad():
        shapes = {"image": any_batch, "male": any_batch}
        program = torch.export.export(model, model.example(), dynamic_shapes=shapes)
        buffer = io.BytesIO()  # PyTorch's own writer aborts the process if the disk is full
        torch.export.save(program, buffer, extra_files={METADATA_FILE: json.dumps(metadata)})
    path.write_bytes(buffer.getbuffer())


def open_program(path: Path) -> PredictFn:
    """Return the prediction function of a file, run by PyTorch."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about tensors that are views of the file
        module = torch.export.load(path).module()

    def predict(image: NDArray[np.uint8], male: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.inference_mode():
            return module(torch.from_numpy(image), torch.from_numpy(male)).numpy()

    return predict
