"""Intensity transforms: percentile contrast, gamma and brightness jitter, polarity."""

from typing import Annotated

import torch
from annotated_types import Gt, Le
from pydantic import validate_call
from torch import Tensor

from boneage_pl.data.transforms.compose import (
    Fraction,
    Strength,
    apply_where,
    as_float,
    log_uniform_factor,
    per_image,
    to_signed,
)


class PercentileContrast:
    """Stretch the contrast of each image between two percentiles.

    Args:
        low: quantile that becomes black.
        high: quantile that becomes white.
    """

    @validate_call
    def __init__(self, low: Fraction = 0.01, high: Fraction = 0.99) -> None:
        if low >= high:
            raise ValueError(f"low={low} must be below high={high}")
        self.low, self.high = low, high

    def __call__(self, images: Tensor) -> Tensor:
        """Stretch [B, 1, H, W] → float32 [B, 1, H, W]; a constant image becomes black."""
        values = as_float(images).flatten(1)  # → [B, H · W]
        black, white = (
            values.topk(max(round(share * values.shape[1]), 1), largest=largest).values[:, -1:]
            for share, largest in ((self.low, False), (1 - self.high, True))
        )
        stretched = (values - black) / (white - black).clamp(min=1 / 255)
        return stretched.clamp(0, 1).view(images.shape)


class IntensityJitter:
    """Vary gamma, contrast and brightness of each image.

    Args:
        gamma: the exponent is at most 1 + gamma or at least its inverse.
        contrast: likewise for the factor of differences from the mean.
        brightness: largest added or subtracted value, as a fraction of white.
    """

    num_random = 3

    @validate_call
    def __init__(self, gamma: Strength = 0.0, contrast: Strength = 0.0, brightness: Fraction = 0.0) -> None:
        self.gamma, self.contrast, self.brightness = gamma, contrast, brightness

    def __call__(self, images: Tensor, random: Tensor) -> Tensor:
        """Vary [B, 1, H, W] by [B, 3] → float32 [B, 1, H, W] in [0, 1]."""
        gamma, contrast, brightness = random.unbind(1)
        pixels = as_float(images).pow(per_image(log_uniform_factor(gamma, self.gamma)))
        mean = pixels.mean((1, 2, 3), keepdim=True)
        pixels = mean + (pixels - mean) * per_image(log_uniform_factor(contrast, self.contrast))
        return (pixels + per_image(self.brightness * to_signed(brightness))).clamp(0, 1)


class RandomInversion:
    """Invert images at random.

    Args:
        p: probability that an image is inverted.
    """

    num_random = 1

    @validate_call
    def __init__(self, p: Fraction) -> None:
        self.p = p

    def __call__(self, images: Tensor, random: Tensor) -> Tensor:
        """Invert [B, 1, H, W] by [B, 1] → float32 [B, 1, H, W]."""
        pixels = as_float(images)
        return apply_where(random[:, 0], self.p, 1 - pixels, pixels)


_Edge = Annotated[float, Gt(0), Le(0.5)]
_Middle = Annotated[float, Gt(0), Le(1)]


class FixPolarity:
    """Invert negatives: images whose border is brighter than their center.

    Outer lines of nearly constant gray, as in a frame or the padding of `data.resize_mode=pad`, are ignored
    and become dark, so that an image and its negative give the same result. On 3,000 RSNA images, it corrects
    99.8 % of the negatives and inverts 0.2 % of the originals (benchmarks/RESULTS.md).

    Args:
        edge: width of the border, as a fraction of the image's side.
        middle: side of the center, likewise.
        flat: standard deviation below which a line is constant, as a fraction of the image's.
    """

    @validate_call
    def __init__(self, edge: _Edge = 0.15, middle: _Middle = 0.3, flat: Fraction = 0.1) -> None:
        self.edge, self.middle, self.flat = edge, middle, flat

    def __call__(self, images: Tensor) -> Tensor:
        """Invert negatives among [B, 1, H, W] → float32 [B, 1, H, W]."""
        pixels = as_float(images)
        negative = 1 - pixels
        limit = self.flat * pixels.std((2, 3), correction=0, keepdim=True)
        y, x = (
            _relative_position(pixels.std(other, correction=0, keepdim=True) > limit, axis)
            for axis, other in ((2, 3), (3, 2))
        )
        content, inner, middle = (
            _is_central(y, margin) & _is_central(x, margin)
            for margin in (0, self.edge, (1 - self.middle) / 2)
        )
        is_negative = _masked_mean(pixels, content & ~inner) > _masked_mean(pixels, middle)
        corrected = torch.where(is_negative, negative, pixels)
        return torch.where(content, corrected, torch.minimum(pixels, negative))


def _relative_position(lines: Tensor, axis: int) -> Tensor:
    """Return the position of each line between the first and last true one, from 0 to 1."""
    count = lines.shape[axis]
    place = torch.arange(count, device=lines.device).view([-1 if n == axis else 1 for n in range(4)])
    first = torch.where(lines, place, count).amin(axis, keepdim=True)
    last = torch.where(lines, place, -1).amax(axis, keepdim=True)
    return (place + 0.5 - first) / (last + 1 - first)


def _is_central(place: Tensor, margin: float) -> Tensor:
    return (place > margin) & (place < 1 - margin)


def _masked_mean(pixels: Tensor, where: Tensor) -> Tensor:
    return (pixels * where).sum((2, 3), keepdim=True) / where.sum((2, 3), keepdim=True).clamp(min=1)
