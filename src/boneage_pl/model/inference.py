"""Inference module: transforms, normalization, network and output decoding."""

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

# (months [B], bone age in months [B]) → scalar, in float32. A loss with a method `decode_months` is called
# with the network's output instead, which that method maps to months [B]. Its optional method `std` maps the
# output to the standard deviation of each prediction, in months [B].
Loss = Callable[[Tensor, Tensor], Tensor]


class MonthsLoss(nn.Module):
    """A loss on months, such as `nn.L1Loss`, for a network with one output."""

    def __init__(self, loss: Loss) -> None:
        super().__init__()
        self.loss = loss

    def decode_months(self, output: Tensor) -> Tensor:
        """Return the months: [B, 1] → [B].

        Raises:
            BoneAgeError: the network has several outputs.
        """
        if output.dim() != 2 or output.shape[1] != 1:
            name = getattr(self.loss, "__name__", type(self.loss).__name__)
            raise BoneAgeError(
                f"model: the output has shape {list(output.shape)}, but loss={name} needs [B, 1].\n"
                "A loss with a method decode_months(output) → [B] can decode several numbers."
            )
        return output.squeeze(1)

    def forward(self, output: Tensor, bone_age: Tensor) -> Tensor:
        """Return the loss: [B, 1] and months [B] → scalar."""
        return self.loss(self.decode_months(output), bone_age)


class InferenceModule(nn.Module):
    """Predict bone ages from pixels: validation, prediction and export use it.

    Args:
        network: image [B, C, H, W], normalized by its `InputSpec`, and male [B] → output.
        transforms: validation transforms.
        loss: see `Loss`.
    """

    def __init__(self, network: nn.Module, transforms: Compose, loss: Loss) -> None:
        super().__init__()
        self.network = network
        self.transforms = transforms
        self.loss: nn.Module = loss if hasattr(loss, "decode_months") else MonthsLoss(loss)  # type: ignore[assignment]
        self.normalize = Normalize(get_input_spec(network))

    def forward(self, image: Tensor, male: Tensor) -> Tensor:
        """Predict bone ages: uint8 [B, 1, H, W] and [B] → months, float [B]."""
        return self.decode_months(self.network(self.preprocess(image), male)).float()

    def predict_with_std(
        self, image: Tensor, male: Tensor, key: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Predict bone ages like `forward`, with standard deviations if the loss has them.

        Args:
            image: uint8 [B, 1, H, W].
            male: [B].
            key: int64 [B], see `preprocess`.
        """
        output = self.network(self.preprocess(image, key), male)
        std = self._in_float32(self.loss.std, output) if hasattr(self.loss, "std") else None  # type: ignore[arg-type]
        return self.decode_months(output).float(), std

    def preprocess(self, image: Tensor, key: Tensor | None = None) -> Tensor:
        """Transform and normalize images as in validation.

        Args:
            image: uint8 [B, 1, H, W].
            key: int64 [B], for random transforms; `None` without such.

        Returns:
            [B, C, H, W] in the network's dtype.
        """
        if key is None:  # by shape, since a constant would fix the batch size of an exported model
            key = zeros(image.shape[0], dtype=int64, device=image.device)
        with autocast(image.device.type, enabled=False):
            normalized: Tensor = self.normalize(self.transforms(image, key))
            return normalized.to(next(self.network.parameters(), normalized).dtype)

    def decode_months(self, output: Tensor) -> Tensor:
        """Return the predictions [B] in months of a network's output."""
        return self._in_float32(self.loss.decode_months, output)  # type: ignore[arg-type]

    def compute_loss(self, output: Tensor, bone_age: Tensor) -> Tensor:
        """Return the loss of a network's output for bone ages in months [B]."""
        return self._in_float32(self.loss, output, bone_age)

    def _in_float32(self, function: Callable[..., Tensor], output: Tensor, *rest: Tensor) -> Tensor:
        with autocast(output.device.type, enabled=False):  # bfloat16 would count in half months
            return function(output.to(promote_types(output.dtype, float32)), *rest)


AUTOCAST_DTYPES = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}


class PredictionBatch(NamedTuple):
    """Predictions of B images.

    Args:
        months: float64 [B].
        std: standard deviation of each, months, float64 [B]; `None` where the loss has none.
    """

    months: NDArray[np.float64]
    std: NDArray[np.float64] | None


def average_predictions(every: Sequence[PredictionBatch]) -> PredictionBatch:
    """Return the mean of several predictions of the same images.

    Its standard deviation is that of the mixture of their distributions (Lakshminarayanan et al., NeurIPS
    2017); `None` where one of them has none.
    """
    months = np.stack([one.months for one in every])
    squares = [one.std**2 for one in every if one.std is not None]
    mixed = None if len(squares) < len(every) else np.sqrt(np.mean(squares, axis=0) + months.var(axis=0))
    return PredictionBatch(months.mean(axis=0), mixed)


class BatchPredictor:
    """Predict batches with a trained network.

    Args:
        module: is moved to the device and set to evaluation mode.
        precision: Lightning's name of the training's, which is used again.
        device: `None` for a GPU where there is one.
    """

    def __init__(self, module: InferenceModule, precision: str, device: str | None = None) -> None:
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        kind = torch.float64 if precision == "64-true" else torch.float32
        self.module = module.eval().to(self.device, kind, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.mixed = AUTOCAST_DTYPES.get(precision)
        disable_tf32()

    def __call__(self, pixels: Pixels, male: Iterable[bool]) -> PredictionBatch:
        """Predict a batch: uint8 [B, H, W], and whether each child is male."""
        image = torch.from_numpy(pixels).to(self.device).unsqueeze(1)  # [B, H, W] → [B, 1, H, W]
        boys = torch.tensor(list(male), dtype=torch.float32, device=self.device)
        mixed = torch.autocast(self.device.type, self.mixed) if self.mixed else nullcontext()
        with torch.inference_mode(), mixed:
            months, std = self.module.predict_with_std(image, boys)
        return PredictionBatch(
            months.cpu().double().numpy(), None if std is None else std.cpu().double().numpy()
        )
