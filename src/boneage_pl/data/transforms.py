"""What happens to a batch of images on the device, before the network's own normalisation.

A transform is called with the images, uint8 [B, 1, H, W] or floating point in [0, 1] if one before it made
them so, and returns images. One that differs from sample to sample says in `numbers` how many uniform numbers
it takes for each, and is called with them too: float32 [B, numbers] in [0, 1), which depend on seed, epoch
and sample alone. Where it also says `alternates`, the first of them is below 0.5 in every second epoch of a
sample, beginning by chance. A plain function of images, such as torchvision's transforms are, has none.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

BITS = 53  # of a key that are random
_GOLDEN = -0x61C8864680B583EB  # 2⁶⁴ / the golden ratio, as a signed number
_MIX = (-0x40A7B892E31B1A47, -0x6B2FB644ECCEEE15)  # splitmix64's (Steele, Lea and Flood 2014)


class Flip:
    """Mirrors a share of the images left to right (published: torchvision's RandomHorizontalFlip).

    Args:
        share: of the images, by chance in each epoch.
        alternating: in every second epoch instead, see `boneage_pl.data.augment.geometry.Affine`.
    """

    numbers = 1

    def __init__(self, share: float = 0.5, alternating: bool = False) -> None:
        self.share = share
        self.alternates = alternating

    def __call__(self, images: Tensor, random: Tensor) -> Tensor:
        """Mirror those whose number is below the share: [B, 1, H, W] and [B, 1] → [B, 1, H, W]."""
        return torch.where((random[:, 0] < self.share).view(-1, 1, 1, 1), images.flip(3), images)


class Transforms:
    """Transforms one after the other, each with random numbers of its own."""

    def __init__(self, steps: Iterable[Callable[..., Tensor]] = ()) -> None:
        self.steps = list(steps)

    def __call__(self, images: Tensor, keys: Tensor) -> Tensor:
        """Transform a batch.

        Args:
            images: uint8 [B, 1, H, W].
            keys: int64 [B], see `Batch.key`.
        """
        random = uniform(keys, self.numbers)
        for step in self.steps:
            if count := _numbers(step):
                mine, random = random[:, :count], random[:, count:]
                if getattr(step, "alternates", False):
                    mine = torch.cat([(mine[:, :1] + (keys.unsqueeze(1) >> BITS)) / 2, mine[:, 1:]], 1)
                images = step(images, mine)
            else:
                images = step(images)
        return images

    @property
    def numbers(self) -> int:
        """How many random numbers they take for each image."""
        return sum(map(_numbers, self.steps))

    @classmethod
    def of(cls, named: Any) -> "Transforms":
        """Return those of a table of them by name, without those that are `None`."""
        return cls(step for step in (named or {}).values() if step is not None)


def _numbers(step: Callable[..., Tensor]) -> int:
    return getattr(step, "numbers", 0)


def uniform(keys: Tensor, count: int) -> Tensor:
    """Return numbers in [0, 1) with 24 bits: float32 [B, count].

    Args:
        keys: int64 [B], 53 random bits each; what stands above them is left out. Their upper bits are the
            first number; the others are mixed of them as splitmix64 does.
        count: numbers for each.
    """
    keys = keys & ((1 << BITS) - 1)
    steps = torch.arange(1, max(count, 1), device=keys.device)
    mixed = keys.unsqueeze(1) + steps * _GOLDEN  # [B, count - 1]; it wraps around, as is meant
    for shift, factor in zip((30, 27), _MIX, strict=True):
        mixed = (mixed ^ _shifted(mixed, shift)) * factor
    mixed = mixed ^ _shifted(mixed, 31)
    bits = torch.cat([keys.unsqueeze(1) >> 29, _shifted(mixed, 40)], 1)[:, :count]
    return bits.float() * 2.0**-24


def _shifted(values: Tensor, by: int) -> Tensor:
    return (values >> by) & ((1 << (64 - by)) - 1)  # PyTorch's own shift keeps the sign
