"""The model that is exported: a caller's pixels in, months out."""

import json
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from boneage_pl import __version__
from boneage_pl.data.frame import Frame
from boneage_pl.errors import BoneageError, first_line
from boneage_pl.reading.model import BoneAge

# images uint8 [B, 1, side, side] and male float32 [B] → months float32 [B]
Ask = Callable[[NDArray[np.uint8], NDArray[np.float32]], NDArray[np.float32]]

RULES = {
    "crop": "8-bit gray; shorter side to {side} pixels (bilinear, antialiased); the middle {side} × {side}",
    "pad": "8-bit gray; longer side to {side} pixels (bilinear, antialiased); on black, {side} × {side}",
    "stretch": "8-bit gray; both sides to {side} pixels (bilinear, antialiased)",
}


class Exported(nn.Module):
    """What checkpoints make of a radiograph, on average; computed in float32, whatever they were trained in.

    Raises:
        BoneageError: they are shown different squares.
    """

    def __init__(self, model: BoneAge) -> None:
        super().__init__()
        if len(model.frames) > 1:
            raise BoneageError(
                f"ckpt: these are shown different squares ({', '.join(map(str, model.frames))}), "
                "and one model is given one.\nExport each by itself."
            )
        self.frame: Frame = model.frames[0]
        self.readers = nn.ModuleList(member.ask.reader.float() for member in model.members)
        self.eval()

    def forward(self, image: Tensor, male: Tensor) -> Tensor:
        """Estimate bone ages: uint8 [B, 1, side, side] and float [B], 1 for a boy → months, float32 [B]."""
        months = [reader(image, male) for reader in self.readers]
        return months[0] if len(months) == 1 else torch.stack(months).mean(0)

    def ask(self, image: NDArray[np.uint8], male: NDArray[np.float32]) -> NDArray[np.float32]:
        """Answer as PyTorch does."""
        with torch.inference_mode():
            return self(torch.from_numpy(image), torch.from_numpy(male)).numpy()

    def example(self) -> tuple[Tensor, Tensor]:
        """Return inputs of the right form, of two images: of one, a size that varies would look fixed."""
        return torch.zeros(2, 1, self.frame.side, self.frame.side, dtype=torch.uint8), torch.tensor(
            [0.0, 1.0]
        )

    @property
    def bytes(self) -> int:
        """What its numbers take in float32."""
        return sum(value.numel() * value.element_size() for value in self.state_dict().values())


@contextmanager
def traced(option: str) -> Iterator[None]:
    """Turn what PyTorch's tracing of a network refuses into a `BoneageError`."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except OSError:
        raise
    except Exception as error:  # of as many kinds as a network has ways of being written
        reason = first_line(error)[:200]
        raise BoneageError(f"{option}: PyTorch cannot export this network: {reason}") from error


def described(model: BoneAge, level: float, precision: str) -> dict[str, str]:
    """Return what a file says of the model that it holds, for programs that know no more of it."""
    first = model.members[0].record
    frame = first.frame
    return {
        "boneage_pl": __version__,
        "experiment": ", ".join(dict.fromkeys(member.record.experiment for member in model.members)),
        "members": str(len(model.members)),
        "inputs": "image: uint8 [batch, 1, image_size, image_size]; male: float32 [batch], 1 boy, 0 girl",
        "output": "months: float32 [batch]",
        "units": "months",
        "image_size": str(frame.side),
        "fit": frame.fit,
        "resize": RULES[frame.fit].format(side=frame.side),
        "precision": precision,
        "trained_on": "synthetic radiographs" if first.synthetic else "radiographs",
        "interval_level": str(level),
        "intervals": json.dumps(model.intervals.table()),
        "use": "research only; not a medical device",
    }
