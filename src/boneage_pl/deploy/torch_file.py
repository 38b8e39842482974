"""PyTorch's own exported programs: read with torch alone, compiled or not."""

import json
import warnings
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from boneage_pl.deploy.exported import Ask, Exported

SAID = "boneage_pl.json"  # among the files inside


def write_program(model: Exported, path: Path, said: Mapping[str, str]) -> None:
    """Write a model in float32, whose batch may have any size, with what it says of itself."""
    any_batch = {0: torch.export.Dim.DYNAMIC}
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        shapes = {"image": any_batch, "male": any_batch}
        program = torch.export.export(model, model.example(), dynamic_shapes=shapes)
        torch.export.save(program, path, extra_files={SAID: json.dumps(said)})


def open_program(path: Path) -> Ask:
    """Return a file as PyTorch runs it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that its tensors are views of the file
        module = torch.export.load(path).module()

    def ask(image: NDArray[np.uint8], male: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.inference_mode():
            return module(torch.from_numpy(image), torch.from_numpy(male)).numpy()

    return ask
