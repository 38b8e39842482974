"""What a network wants to see of a radiograph: its channels and its normalisation."""

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
    """The channels that a gray image is repeated to, and what each is normalised with, of values in [0, 1].

    A network says its own as an attribute `input`; one that says nothing is given the published one. It goes
    into every checkpoint: it is part of the network as its weights are.
    """

    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD

    @classmethod
    def parse(cls, record: dict[str, Any]) -> "Input":
        """Read what a checkpoint's record says of it.

        Raises:
            ValueError: nothing, or what cannot be.
        """
        if "input" not in record:  # of before: Inception re-scaled its input where it had ImageNet's weights
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
        """How many there are."""
        return len(self.mean)


HALF = Input(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))  # values from -1 to 1


def input_of(network: nn.Module) -> Input:
    """Return what a network wants to see."""
    return getattr(network, "input", Input())


def normalised(images: Tensor, wanted: Input, values: Tensor | None = None) -> Tensor:
    """Turn gray images into what a network sees.

    Args:
        images: [B, 1, H, W], uint8, or floating point in [0, 1].
        wanted: by the network, with C channels.
        values: what `gray_values` gives for it, where the caller keeps them.

    Returns:
        float32 [B, C, H, W] in channels-last memory; of uint8 equal to the bit to torchvision's
        `ToDtype(float32, scale=True)` and `Normalize` of the image repeated to three channels.
    """
    pixels = images.squeeze(1)  # [B, 1, H, W] → [B, H, W]
    if images.is_floating_point():
        mean, std = (torch.tensor(values, device=images.device) for values in (wanted.mean, wanted.std))
        return ((pixels.float().unsqueeze(3) - mean) / std).permute(0, 3, 1, 2)
    # 256 gray values have 256 answers: looking them up is one pass, and lays the channels last
    table = _table(images.device, wanted) if values is None else values
    return F.embedding(pixels.int(), table).permute(0, 3, 1, 2)  # → [B, C, H, W]


def gray_values(wanted: Input) -> Tensor:
    """Return the normalised value of each gray value: float32 [256, C]."""
    scaled = torch.arange(256).unsqueeze(1) * (1 / 255)  # torchvision multiplies too: to the bit
    return (scaled - torch.tensor(wanted.mean)) / torch.tensor(wanted.std)


@lru_cache(maxsize=8)
def _table(device: torch.device, wanted: Input) -> Tensor:
    return gray_values(wanted).to(device)


def unnormalised(images: Tensor, wanted: Input) -> Tensor:
    """Undo the normalisation, for looking: [B, C, H, W] → gray [B, H, W] in [0, 1]."""
    return (images[:, 0] * wanted.std[0] + wanted.mean[0]).clamp(0, 1)
