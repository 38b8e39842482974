"""What the augmentations make of their random numbers [B], one an image."""

import math

import torch
from torch import Tensor

from boneage_pl.data.transforms import hashed_uniform


def as_float(images: Tensor) -> Tensor:
    """Return images in [0, 1]: uint8 or floating point [B, 1, H, W] → float32."""
    return images.float() if images.is_floating_point() else images.float() / 255


def to_signed(random: Tensor) -> Tensor:
    """Stretch [0, 1) to [-1, 1)."""
    return 2 * random - 1


def log_uniform_factor(random: Tensor, most: float) -> Tensor:
    """Return a factor between 1 / (1 + most) and 1 + most, as often below 1 as above."""
    return (to_signed(random) * math.log1p(most)).exp()


def per_image(values: Tensor) -> Tensor:
    """Give each image its value: [B] → [B, 1, 1, 1]."""
    return values.view(-1, 1, 1, 1)


def apply_where(random: Tensor, share: float, changed: Tensor, images: Tensor) -> Tensor:
    """Return those whose number is below the share changed, and the others as they are."""
    return torch.where(per_image(random < share), changed, images)


def to_normal(random: Tensor, like: Tensor) -> Tensor:
    """Return standard normal noise for each pixel of `like` [B, 1, H, W], a function of [B] alone."""
    keys = (random * 2**24).long() << 29  # exact: `random` has 24 bits
    values = hashed_uniform(keys, like[0].numel() + 1)[:, 1:]  # the first is `random` itself
    return torch.erfinv(to_signed(values).clamp(-0.999999, 0.999999)).view_as(like) * math.sqrt(2)


def pixel_grid(images: Tensor) -> tuple[Tensor, Tensor]:
    """Return where the middles of the pixels are, in shares of the sides: y [1, 1, H, 1], x [1, 1, 1, W]."""
    height, width = images.shape[2:]
    y, x = ((torch.arange(n, device=images.device) + 0.5) / n for n in (height, width))
    return y.view(1, 1, -1, 1), x.view(1, 1, 1, -1)
