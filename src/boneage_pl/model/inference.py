"""From pixels to months: decode outputs, compute losses, predict batches."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, autocast, float32, int64, nn, promote_types, zeros

from boneage_pl.data.images.resize import Pixels
from boneage_pl.data.transforms.compose import Compose
from boneage_pl.errors import BoneAgeError
from boneage_pl.model.input_spec import Normalize, get_input_spec
from boneage_pl.utils.hardware import disable_tf32

# (output, bone age in months [B]) → one number, in float32. A loss that has a method `decode_months` is given
# the network's own output, and that method turns it into months [B]; all others are given months [B], of [B,
# 1]. A method `std`, of one that has it, turns the output into how unsure each answer is, in months [B].
Loss = Callable[[Tensor, Tensor], Tensor]


def decode_months(output: Tensor, loss: Loss) -> Tensor:
    """Return the months [B] that a network's output means.

    Raises:
        BoneAgeError: it is several numbers an image, and the loss does not say what they mean.
    """
    with autocast(output.device.type, enabled=False):
        return _decode(_to_float32(output), loss)


def compute_loss(output: Tensor, bone_age: Tensor, loss: Loss) -> Tensor:
    """Return the loss of a network's output for bone ages in months [B]."""
    with autocast(output.device.type, enabled=False):
        output = _to_float32(output)
        return loss(output if hasattr(loss, "decode_months") else _decode(output, loss), bone_age)


def predictive_std(output: Tensor, loss: Loss) -> Tensor | None:
    """Return how unsure a network's output is of each answer, in months [B]; `None` if the loss cannot."""
    if not hasattr(loss, "std"):
        return None
    with autocast(output.device.type, enabled=False):
        return loss.std(_to_float32(output))  # type: ignore[no-any-return]


def _to_float32(output: Tensor) -> Tensor:
    return output.to(promote_types(output.dtype, float32))  # a loss in bfloat16 would count in half months


def _decode(output: Tensor, loss: Loss) -> Tensor:
    if hasattr(loss, "decode_months"):
        return loss.decode_months(output)
    if output.dim() != 2 or output.shape[1] != 1:
        name = getattr(loss, "__name__", type(loss).__name__)
        raise BoneAgeError(
            f"model: its output is {list(output.shape)}, and loss={name} takes one number an image, [B, 1].\n"
            "A loss with a method decode_months(output) → [B] says what several numbers mean."
        )
    return output.squeeze(1)


class InferenceModule(nn.Module):
    """The one way from the pixels of a radiograph to its bone age: validation, prediction and export use it.

    Args:
        network: image [B, C, H, W] as its `InputSpec` says, and male [B] → output.
        transforms: of images that are not trained on.
        loss: see `Loss`.
    """

    def __init__(self, network: nn.Module, transforms: Compose, loss: Loss) -> None:
        super().__init__()
        self.network = network
        self.transforms = transforms
        self.loss = loss
        self.normalize = Normalize(get_input_spec(network))

    def forward(self, image: Tensor, male: Tensor) -> Tensor:
        """Estimate bone ages: uint8 [B, 1, H, W] and [B] → months, float [B]."""
        return decode_months(self.network(self.preprocess(image), male), self.loss).float()

    def predict_with_std(
        self, image: Tensor, male: Tensor, key: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Estimate bone ages as `forward` does, and how unsure each is, see `predictive_std`.

        Args:
            image: uint8 [B, 1, H, W].
            male: [B].
            key: int64 [B], see `preprocess`.
        """
        output = self.network(self.preprocess(image, key), male)
        return decode_months(output, self.loss).float(), predictive_std(output, self.loss)

    def preprocess(self, image: Tensor, key: Tensor | None = None) -> Tensor:
        """Transform and normalize images as a validation does.

        Args:
            image: uint8 [B, 1, H, W].
            key: int64 [B], which transforms that are random draw from; `None` for those that are not.

        Returns:
            [B, C, H, W], of the network's type.
        """
        if key is None:  # by the image's shape: a length would fix the batch of an exported model
            key = zeros(image.shape[0], dtype=int64, device=image.device)
        with autocast(image.device.type, enabled=False):
            normalized: Tensor = self.normalize(self.transforms(image, key))
            return normalized.to(next(self.network.parameters(), normalized).dtype)


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
    """Predict batches with a trained network.

    Args:
        module: is moved to the device and set to evaluation mode.
        precision: Lightning's name of what it was trained with, which is used again.
        device: `None` for a GPU where there is one.
    """

    def __init__(self, reader: InferenceModule, precision: str, device: str | None = None) -> None:
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        kind = torch.float64 if precision == "64-true" else torch.float32
        self.module = reader.eval().to(self.device, kind, memory_format=torch.channels_last)  # type: ignore[call-overload]
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
