"""Geometric transforms: flip, affine, resize, crop."""

import math
from typing import Annotated

import torch
from annotated_types import Ge, Le, Lt
from pydantic import validate_call
from torch import Tensor
from torch.nn import functional as F

from boneage_pl.data.transforms.compose import (
    Fraction,
    Side,
    Strength,
    as_float,
    log_uniform_factor,
    to_signed,
)


class RandomHorizontalFlip:
    """Mirror images left to right at random (published: torchvision's RandomHorizontalFlip).

    Args:
        p: probability that an image is mirrored.
    """

    num_random = 1

    @validate_call
    def __init__(self, p: Fraction = 0.5) -> None:
        self.p = p

    def __call__(self, images: Tensor, random: Tensor) -> Tensor:
        """Mirror images whose number is below `p`: [B, 1, H, W] and [B, 1] → [B, 1, H, W]."""
        return torch.where((random[:, 0] < self.p).view(-1, 1, 1, 1), images.flip(3), images)


class RandomAffine:
    """Rotate, scale, shear, shift and mirror images in one bilinear resampling.

    Args:
        rotation: largest angle in degrees, in either direction.
        scale: images are enlarged or reduced by a factor of at most 1 + scale.
        shear: largest angle in degrees, in either direction.
        shift: largest translation along each axis, as a fraction of the side.
        flip: probability that an image is mirrored left to right.
    """

    num_random = 6

    @validate_call
    def __init__(
        self,
        rotation: Annotated[float, Ge(0), Le(180)] = 0.0,
        scale: Strength = 0.0,
        shear: Annotated[float, Ge(0), Lt(90)] = 0.0,
        shift: Fraction = 0.0,
        flip: Fraction = 0.0,
    ) -> None:
        self.rotation, self.shear = math.radians(rotation), math.radians(shear)
        self.scale, self.shift, self.flip = scale, shift, flip

    def __call__(self, images: Tensor, random: Tensor) -> Tensor:
        """Resample [B, 1, H, W] by [B, 6] → float32 [B, 1, H, W]; black outside the image."""
        side, turn, size, shear, down, right = random.unbind(1)
        turn, shear = self.rotation * to_signed(turn), torch.tan(self.shear * to_signed(shear))
        size = 1 / log_uniform_factor(size, self.scale)
        cos, sin = torch.cos(turn) * size, torch.sin(turn) * size
        mirror = torch.where(side < self.flip, -1.0, 1.0)
        # inverse map from output to input coordinates: mirror, shear, rotate, shift
        rows = (
            torch.stack([cos * mirror, cos * shear - sin, 2 * self.shift * to_signed(right)], 1),
            torch.stack([sin * mirror, sin * shear + cos, 2 * self.shift * to_signed(down)], 1),
        )
        grid = F.affine_grid(torch.stack(rows, 1), list(images.shape), align_corners=False)  # [B, H, W, 2]
        return F.grid_sample(as_float(images), grid, "bilinear", "zeros", align_corners=False)


class Resize:
    """Resize images bilinearly and antialiased.

    Args:
        size: side of the result in pixels; `None` for no change.
    """

    @validate_call
    def __init__(self, size: Side | None = None) -> None:
        self.size = size

    def __call__(self, images: Tensor) -> Tensor:
        """Resize [B, 1, H, W] → float32 [B, 1, size, size]; unchanged if they have this size."""
        if self.size in (None, images.shape[-1]):
            return images
        return F.interpolate(as_float(images), (self.size, self.size), mode="bilinear", antialias=True)


class CropToContent:
    """Crop frames and margins, outer rows and columns of nearly constant gray, and enlarge the content.

    The crop is a square around the content, which keeps the aspect ratio; outside the image or inside a
    frame, the outermost lines are replicated. First a frame is removed, whose lines have a standard deviation
    below `flat` / 2 of the whole image's; then margins, with `flat` of the remaining image's.

    Args:
        flat: largest standard deviation of a margin's line, as a fraction of the image's.
    """

    @validate_call
    def __init__(self, flat: Fraction = 0.1) -> None:
        self.flat = flat

    def __call__(self, images: Tensor) -> Tensor:
        """Crop [B, 1, N, N] bilinearly → float32 [B, 1, N, N]; constant images are unchanged."""
        pixels = as_float(images)[:, 0]
        centered = pixels - pixels.mean((1, 2), keepdim=True)
        moments = torch.stack([centered, centered.square()], 1)
        every_line = torch.ones_like(pixels[:, 0])
        unframed = _content(moments, every_line, every_line, self.flat / 2)
        content = _content(moments, *unframed, self.flat)
        extents = [
            (_extent(lines), _extent(outermost)) for lines, outermost in zip(content, unframed, strict=True)
        ]
        side = torch.maximum(*(length for (_, length), _ in extents))
        rows, columns = (
            _enlargement(first + (length - side) / 2, side, outermost, pixels.shape[1])
            for (first, length), outermost in extents
        )
        return (rows @ pixels @ columns.mT).unsqueeze(1)


def _content(moments: Tensor, rows: Tensor, columns: Tensor, flat: float) -> tuple[Tensor, Tensor]:
    """Return the rows and columns between the outermost varying ones, or all that were given.

    Args:
        moments: pixels and their squares, [B, 2, N, N].
        rows: 1 for each row of the image, 0 for others, [B, N].
        columns: likewise.
        flat: largest standard deviation of a line without content, as a fraction of the image's.
    """
    height, width = (lines.sum(1)[:, None, None] for lines in (rows, columns))
    of_rows = (moments @ columns[:, None, :, None]).squeeze(3) / width  # [B, 2, N]
    of_columns = (rows[:, None, None] @ moments).squeeze(2) / height
    limit = flat * _std((of_rows * rows[:, None]).sum(2, keepdim=True) / height)
    found_rows = _between(rows * (_std(of_rows) > limit))
    found_columns = _between(columns * (_std(of_columns) > limit))
    any_found = (found_rows.sum(1, keepdim=True) * found_columns.sum(1, keepdim=True)) > 0
    return torch.where(any_found, found_rows, rows), torch.where(any_found, found_columns, columns)


def _std(moments: Tensor) -> Tensor:
    """Return standard deviations [B, N] of means and mean squares [B, 2, N]."""
    return (moments[:, 1] - moments[:, 0].square()).clamp(min=0).sqrt()


def _between(lines: Tensor) -> Tensor:
    """Set all lines between the first and the last nonzero one to 1: [B, N] → [B, N]."""
    return ((lines.cumsum(1) > 0) & (lines.flip(1).cumsum(1).flip(1) > 0)).to(lines.dtype)


def _extent(lines: Tensor) -> tuple[Tensor, Tensor]:
    """Return start and length of a run of ones: [B, N] → [B, 1] each."""
    return (lines.cumsum(1) == 0).sum(1, keepdim=True).to(lines.dtype), lines.sum(1, keepdim=True)


def _enlargement(start: Tensor, side: Tensor, outermost: tuple[Tensor, Tensor], count: int) -> Tensor:
    """Return matrices [B, N, N] that resample `side` lines from `start`, replicated outside `outermost`."""
    low, length = outermost
    place = torch.arange(count, device=start.device)
    source = (start + (place + 0.5) * side / count - 0.5).clamp(low, low + length - 1)  # [B, N]
    return (1 - (source.unsqueeze(2) - place).abs()).clamp(min=0)
