"""Compose batch transforms whose random numbers depend on seed, epoch and sample alone.

A transform maps images to images: uint8 [B, 1, H, W], or float32 in [0, 1] after one that returns float32.
A random one is called with random numbers as well, float32 [B, `num_random`] in [0, 1), where the attribute
`num_random` is their number per sample. Plain functions, such as torchvision's deterministic transforms, have
no such attribute.
"""

import math
from collections.abc import Callable, Iterable
from typing import Annotated, Any

import torch
from annotated_types import Ge, Le
from torch import Tensor

# Types of the transforms' options, checked by `validate_call`.
Fraction = Annotated[float, Ge(0), Le(1)]
Strength = Annotated[float, Ge(0), Le(10)]  # see `log_uniform_factor`
Side = Annotated[int, Ge(1)]  # pixels

BITS = 53  # of a key, all random
_GOLDEN = -0x61C8864680B583EB  # 2⁶⁴ / the golden ratio, as a signed number
_MIX = (-0x40A7B892E31B1A47, -0x6B2FB644ECCEEE15)  # splitmix64's (Steele, Lea and Flood 2014)


class Compose:
    """Compose transforms, each with its own random numbers."""

    def __init__(self, steps: Iterable[Callable[..., Tensor]] = ()) -> None:
        self.steps = list(steps)

    def __call__(self, images: Tensor, keys: Tensor) -> Tensor:
        """Transform a batch.

        Args:
            images: uint8 [B, 1, H, W].
            keys: int64 [B], see `Batch.key`.
        """
        random = hashed_uniform(keys, self.num_random)
        for step in self.steps:
            if count := _num_random(step):
                images, random = step(images, random[:, :count]), random[:, count:]
            else:
                images = step(images)
        return images

    @property
    def num_random(self) -> int:
        """Number of random numbers for each image."""
        return sum(map(_num_random, self.steps))

    @classmethod
    def from_config(cls, named: Any, *, random: bool = True) -> "Compose":
        """Compose the transforms of a table by name; `None` entries are skipped.

        Args:
            named: name → transform.
            random: whether to keep random transforms.
        """
        steps = [step for step in (named or {}).values() if step is not None]
        return cls(step for step in steps if random or not _num_random(step))


def _num_random(step: Callable[..., Tensor]) -> int:
    return getattr(step, "num_random", 0)


def hashed_uniform(keys: Tensor, count: int) -> Tensor:
    """Hash keys to uniform numbers in [0, 1) of 24 bits: float32 [B, count].

    Args:
        keys: int64 [B], 53 random bits each. The upper 24 bits are the first number; splitmix64
            computes the others.
        count: numbers per key.
    """
    steps = torch.arange(1, max(count, 1), device=keys.device)
    mixed = keys.unsqueeze(1) + steps * _GOLDEN  # [B, count - 1]; wraps around, as intended
    for shift, factor in zip((30, 27), _MIX, strict=True):
        mixed = (mixed ^ _logical_shift(mixed, shift)) * factor
    mixed = mixed ^ _logical_shift(mixed, 31)
    bits = torch.cat([keys.unsqueeze(1) >> 29, _logical_shift(mixed, 40)], 1)[:, :count]
    return bits.float() * 2.0**-24


def _logical_shift(values: Tensor, by: int) -> Tensor:
    return (values >> by) & ((1 << (64 - by)) - 1)  # PyTorch's own shift keeps the sign


def as_float(images: Tensor) -> Tensor:
    """Return images in [0, 1]: uint8 or floating point [B, 1, H, W] → float32."""
    return images.float() if images.is_floating_point() else images.float() / 255


def to_signed(random: Tensor) -> Tensor:
    """Map [0, 1) to [-1, 1)."""
    return 2 * random - 1


def log_uniform_factor(random: Tensor, most: float) -> Tensor:
    """Map [0, 1) to factors between 1 / (1 + most) and 1 + most, uniform in their logarithm."""
    return (to_signed(random) * math.log1p(most)).exp()


def per_image(values: Tensor) -> Tensor:
    """Reshape a value per image for broadcasting: [B] → [B, 1, 1, 1]."""
    return values.view(-1, 1, 1, 1)


def apply_where(random: Tensor, p: float, changed: Tensor, images: Tensor) -> Tensor:
    """Return `changed` for images whose random number is below `p`, else `images`."""
    return torch.where(per_image(random < p), changed, images)


def to_normal(random: Tensor, like: Tensor) -> Tensor:
    """Return standard normal noise in the shape of `like` [B, 1, H, W], seeded by `random` [B]."""
    keys = (random * 2**24).long() << 29  # exact: `random` has 24 bits
    values = hashed_uniform(keys, like[0].numel() + 1)[:, 1:]  # the first is `random` itself
    return torch.erfinv(to_signed(values).clamp(-0.999999, 0.999999)).view_as(like) * math.sqrt(2)


def pixel_grid(images: Tensor) -> tuple[Tensor, Tensor]:
    """Return the pixels' centers as fractions of the sides: y [1, 1, H, 1], x [1, 1, 1, W]."""
    height, width = images.shape[2:]
    y, x = ((torch.arange(n, device=images.device) + 0.5) / n for n in (height, width))
    return y.view(1, 1, -1, 1), x.view(1, 1, 1, -1)
