"""The input that a network takes: number of channels and normalization."""

from dataclasses import dataclass
from functools import lru_cache
from math import isfinite
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

IMAGENET_MEAN = (0.485, 0.456, 0.406)  # published; torchvision's values for ImageNet
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Input:
    """Normalization of gray values in [0, 1], with a mean and a standard deviation for each channel.

    A network's is its attribute `input`; one without is given the published one. It is saved in every
    checkpoint, as the weights are.
    """

    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD

    @classmethod
    def parse(cls, record: dict[str, Any]) -> "Input":
        """Read it from a checkpoint's record.

        Raises:
            ValueError: it is missing, or is no normalization.
        """
        if "input" not in record:  # older ones: Inception scaled its own input if it had ImageNet's weights
            if not isinstance(record.get("transform_input"), bool):
                raise ValueError("input is missing")
            return HALF if record["transform_input"] else cls()
        said = record["input"]
        values: list[Any] = [said.get(n) if isinstance(said, dict) else None for n in ("mean", "std")]
        for numbers in values:
            if not isinstance(numbers, list | tuple) or not all(isinstance(n, int | float) for n in numbers):
                raise ValueError("input is not what it must be")
        mean, std = (tuple(map(float, numbers)) for numbers in values)
        if not 0 < len(mean) == len(std) or not all(map(isfinite, mean)) or not all(n > 0 for n in std):
            raise ValueError("input has not a mean and a deviation for each channel")
        return cls(mean, std)

    @property
    def channels(self) -> int:
        """Number of channels C."""
        return len(self.mean)


HALF = Input(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))  # values from -1 to 1
NORMALIZATIONS = {"imagenet": Input(), "inception": HALF}  # timm's names of the two


def input_of(network: nn.Module) -> Input:
    """Return a network's normalization."""
    return getattr(network, "input", Input())


def normalised(images: Tensor, wanted: Input, values: Tensor | None = None) -> Tensor:
    """Normalize gray images.

    Args:
        images: [B, 1, H, W], uint8, or floating point in [0, 1].
        wanted: the network's normalization, of C channels.
        values: `gray_values(wanted)`, if the caller has it.

    Returns:
        float32 [B, C, H, W] in channels-last memory; for uint8 bit-identical to torchvision's
        `ToDtype(float32, scale=True)` and `Normalize` of the image repeated to three channels.
    """
    pixels = images.squeeze(1)  # [B, 1, H, W] → [B, H, W]
    if images.is_floating_point():
        mean, std = (torch.tensor(values, device=images.device) for values in (wanted.mean, wanted.std))
        return ((pixels.float().unsqueeze(3) - mean) / std).permute(0, 3, 1, 2)
    # A lookup of the 256 possible values is one pass, and its result is channels-last.
    table = _table(images.device, wanted) if values is None else values
    return F.embedding(pixels.int(), table).permute(0, 3, 1, 2)  # → [B, C, H, W]


def gray_values(wanted: Input) -> Tensor:
    """Return the normalized value of each gray value: float32 [256, C]."""
    scaled = torch.arange(256).unsqueeze(1) * (1 / 255)  # torchvision multiplies too: to the bit
    return (scaled - torch.tensor(wanted.mean)) / torch.tensor(wanted.std)


@lru_cache(maxsize=8)
def _table(device: torch.device, wanted: Input) -> Tensor:
    return gray_values(wanted).to(device)


def unnormalised(images: Tensor, wanted: Input) -> Tensor:
    """Undo the normalization, for display: [B, C, H, W] → gray [B, H, W] in [0, 1]."""
    return (images[:, 0] * wanted.std[0] + wanted.mean[0]).clamp(0, 1)
