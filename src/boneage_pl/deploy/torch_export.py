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

METADATA_FILE = "boneage_pl.json"  # among the files inside


def write_program(model: ExportModule, path: Path, metadata: Mapping[str, str]) -> None:
    """Write a model in float32, whose batch may have any size, with its metadata."""
    any_batch = {0: torch.export.Dim.DYNAMIC}
    with translate_export_errors("format=torch_export"), torch.no_grad():
        shapes = {"image": any_batch, "male": any_batch}
        program = torch.export.export(model, model.example(), dynamic_shapes=shapes)
        whole = io.BytesIO()  # onto a full disk PyTorch's own writer ends the process
        torch.export.save(program, whole, extra_files={METADATA_FILE: json.dumps(metadata)})
    path.write_bytes(whole.getbuffer())


def open_program(path: Path) -> PredictFn:
    """Return a file as PyTorch runs it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that its tensors are views of the file
        module = torch.export.load(path).module()

    def predict(image: NDArray[np.uint8], male: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.inference_mode():
            return module(torch.from_numpy(image), torch.from_numpy(male)).numpy()

    return predict
