"""The module that is exported, and its metadata."""

import json
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from boneage_pl import __version__
from boneage_pl.data.images.resize import ResizeSpec
from boneage_pl.errors import BoneAgeError, first_line
from boneage_pl.prediction.predictor import BoneAgePredictor

# images uint8 [B, 1, side, side] and male float32 [B] → months float32 [B]
PredictFn = Callable[[NDArray[np.uint8], NDArray[np.float32]], NDArray[np.float32]]

FORWARD_RULES = {
    "crop": "8-bit gray; shorter side to {side} pixels (bilinear, antialiased); the middle {side} × {side}",
    "pad": "8-bit gray; longer side to {side} pixels (bilinear, antialiased); on black, {side} × {side}",
    "stretch": "8-bit gray; both sides to {side} pixels (bilinear, antialiased)",
}


class ExportModule(nn.Module):
    """The mean prediction of checkpoints as one module, in float32 whatever the training precision.

    Raises:
        BoneAgeError: the checkpoints have inputs of different size or `resize_mode`.
    """

    def __init__(self, model: BoneAgePredictor) -> None:
        super().__init__()
        if len(model.resize_specs) > 1:
            raise BoneAgeError(
                f"ckpt: different inputs ({', '.join(map(str, model.resize_specs))}).\n"
                "Export each separately."
            )
        self.frame: ResizeSpec = model.resize_specs[0]
        self.predictors = nn.ModuleList(member.predictor.module.float() for member in model.members)
        self.eval()

    def forward(self, image: Tensor, male: Tensor) -> Tensor:
        """Estimate bone ages: uint8 [B, 1, side, side] and float [B], 1 for a boy → months, float32 [B]."""
        months = [predictor(image, male) for predictor in self.predictors]
        return months[0] if len(months) == 1 else torch.stack(months).mean(0)

    def predict(self, image: NDArray[np.uint8], male: NDArray[np.float32]) -> NDArray[np.float32]:
        """Predict with PyTorch."""
        with torch.inference_mode():
            return self(torch.from_numpy(image), torch.from_numpy(male)).numpy()

    def example(self) -> tuple[Tensor, Tensor]:
        """Return example inputs: two images, because a batch of one would be traced as a constant size."""
        return torch.zeros(2, 1, self.frame.size, self.frame.size, dtype=torch.uint8), torch.tensor(
            [0.0, 1.0]
        )

    @property
    def bytes(self) -> int:
        """Size of parameters and buffers in float32."""
        return sum(value.numel() * value.element_size() for value in self.state_dict().values())


@contextmanager
def translate_export_errors(option: str) -> Iterator[None]:
    """Turn errors of PyTorch's tracing into a `BoneAgeError`."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except OSError:
        raise
    except Exception as error:  # tracing raises exceptions of many types
        reason = first_line(error)[:200]
        raise BoneAgeError(f"{option}: PyTorch cannot export this network: {reason}") from error


def model_metadata(model: BoneAgePredictor, level: float, precision: str) -> dict[str, str]:
    """Return the metadata that a program needs to use an exported file."""
    first = model.members[0].metadata
    frame = first.resize_spec
    return {
        "boneage_pl": __version__,
        "experiment": ", ".join(dict.fromkeys(member.metadata.experiment for member in model.members)),
        "members": str(len(model.members)),
        "inputs": "image: uint8 [batch, 1, image_size, image_size]; male: float32 [batch], 1 boy, 0 girl",
        "output": "months: float32 [batch]",
        "units": "months",
        "image_size": str(frame.size),
        "resize_mode": frame.mode,
        "resize": FORWARD_RULES[frame.mode].format(side=frame.size),
        "precision": precision,
        "trained_on": "synthetic radiographs" if first.synthetic else "radiographs",
        "interval_level": str(level),
        "intervals": json.dumps(model.intervals.table()),
        "use": "research only; not a medical device",
    }
