"""Ask a trained network for ages."""

from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from boneage_pl.data.images.resize import Pixels
from boneage_pl.model.answer import InferenceModule
from boneage_pl.utils.hardware import disable_tf32

AUTOCAST_DTYPES = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}


class PredictionBatch(NamedTuple):
    """Answers about B pictures.

    Args:
        months: float64 [B].
        std: months, float64 [B]: the standard deviation of the ages that each could be; `None` where the
            network gives a number and no more.
    """

    months: NDArray[np.float64]
    std: NDArray[np.float64] | None


def average_predictions(every: Sequence[PredictionBatch]) -> PredictionBatch:
    """Return what several answers about the same pictures say as one: the mean.

    Its spread is that of all their distributions mixed (as for a deep ensemble: Lakshminarayanan et al.,
    NeurIPS 2017): what each is unsure of, and what they disagree about. `None` where one of them has none.
    """
    months = np.stack([one.months for one in every])
    squares = [one.std**2 for one in every if one.std is not None]
    mixed = None if len(squares) < len(every) else np.sqrt(np.mean(squares, axis=0) + months.var(axis=0))
    return PredictionBatch(months.mean(axis=0), mixed)


class BatchPredictor:
    """A trained network, ready to be asked.

    Args:
        module: what is asked; it is moved to the device and set to evaluation.
        precision: Lightning's name of what it was trained with, which is used again.
        device: `None` for a GPU where there is one.
    """

    def __init__(self, reader: InferenceModule, precision: str, device: str | None = None) -> None:
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.module = reader.eval().to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.mixed = AUTOCAST_DTYPES.get(precision)
        disable_tf32()

    def __call__(self, pixels: Pixels, male: Iterable[bool]) -> PredictionBatch:
        """Return the answers about a batch.

        Args:
            pixels: images, uint8 [B, H, W].
            male: whether each is of a boy.
        """
        image = torch.from_numpy(pixels).to(self.device).unsqueeze(1)  # [B, H, W] → [B, 1, H, W]
        boys = torch.tensor(list(male), dtype=torch.float32, device=self.device)
        with (
            torch.inference_mode(),
            torch.autocast(self.device.type, self.mixed) if self.mixed else nullcontext(),
        ):
            months, spread = self.module.predict_with_std(image, boys)
        return PredictionBatch(
            months.cpu().double().numpy(), None if spread is None else spread.cpu().double().numpy()
        )
