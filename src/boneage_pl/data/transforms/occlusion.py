"""Occlusion: random erasing, borders and side markers."""

from typing import Annotated

import torch
from annotated_types import Ge, Gt, Le
from pydantic import validate_call
from torch import Tensor

from boneage_pl.data.transforms.compose import Fraction, apply_where, as_float, per_image, pixel_grid

# Letters of a side marker, 5 × 7 cells, as bits of an integer, which needs no copy to the device.
_LETTERS = ("#.... #.... #.... #.... #.... #.... #####", "####. #...# #...# ####. #.#.. #..#. #...#")
_L, _R = (sum(1 << i for i, c in enumerate(rows.replace(" ", "")) if c == "#") for rows in _LETTERS)


class RandomErasing:
    """Cover images with a gray rectangle at random (Zhong et al., AAAI 2020).

    Args:
        p: probability per image.
        max_size: largest side, as a fraction of the image's.
    """

    num_random = 6

    @validate_call
    def __init__(self, p: Fraction, max_size: Fraction = 0.25) -> None:
        self.p, self.max_size = p, max_size

    def __call__(self, images: Tensor, random: Tensor) -> Tensor:
        """Cover [B, 1, H, W] by [B, 6] → float32 [B, 1, H, W]."""
        pixels = as_float(images)
        y, x = pixel_grid(pixels)
        apply, high, wide, top, left, gray = random.unbind(1)
        high, wide = self.max_size * high, self.max_size * wide
        inside = _between(y, top * (1 - high), high) & _between(x, left * (1 - wide), wide)
        return apply_where(apply, self.p, torch.where(inside, per_image(gray), pixels), pixels)


class RandomBorder:
    """Add a frame at random, like a collimator or scanner: two thirds black, a third white.

    Args:
        p: probability per image.
        max_width: largest width on each side, as a fraction of the image's.
    """

    num_random = 6

    @validate_call
    def __init__(self, p: Fraction, max_width: Annotated[float, Ge(0), Le(0.5)] = 0.12) -> None:
        self.p, self.max_width = p, max_width

    def __call__(self, images: Tensor, random: Tensor) -> Tensor:
        """Frame [B, 1, H, W] by [B, 6] → float32 [B, 1, H, W]."""
        pixels = as_float(images)
        y, x = pixel_grid(pixels)
        apply, white = random[:, 0], random[:, 1]
        top, bottom, left, right = (self.max_width * random[:, 2:]).unbind(1)
        inside = _between(y, top, 1 - top - bottom) & _between(x, left, 1 - left - right)
        framed = torch.where(inside, pixels, per_image((white > 2 / 3).float()))
        return apply_where(apply, self.p, framed, pixels)


_Height = Annotated[float, Gt(0), Le(1)]


class RandomMarker:
    """Add a white side marker, L or R, in the outer quarters at random.

    Args:
        p: probability per image.
        min_size, max_size: height, as a fraction of the image's side.
    """

    num_random = 5

    @validate_call
    def __init__(self, p: Fraction, min_size: _Height = 0.05, max_size: _Height = 0.15) -> None:
        self.p, self.min_size, self.max_size = p, min_size, max_size

    def __call__(self, images: Tensor, random: Tensor) -> Tensor:
        """Mark [B, 1, H, W] by [B, 5] → float32 [B, 1, H, W]."""
        pixels = as_float(images)
        y, x = pixel_grid(pixels)
        apply, letter, size, top, side = random.unbind(1)
        high = self.min_size + (self.max_size - self.min_size) * size
        wide = high * 5 / 7
        room = 2 * (0.25 - wide).clamp(min=0)  # of an outer quarter
        left = torch.where(side < 0.5, side * room, 1 - wide - (side - 0.5) * room)
        down = ((y - per_image(top * (1 - high))) / per_image(high) * 7).floor().long()  # [B, 1, H, 1]
        right = ((x - per_image(left)) / per_image(wide) * 5).floor().long()  # [B, 1, 1, W]
        inside = (down >= 0) & (down < 7) & (right >= 0) & (right < 5)
        cells = per_image(torch.where(letter < 0.5, _L, _R))
        ink = (cells >> (5 * down.clamp(0, 6) + right.clamp(0, 4))) & inside
        return apply_where(apply, self.p, torch.where(ink > 0, 1.0, pixels), pixels)


def _between(place: Tensor, start: Tensor, length: Tensor) -> Tensor:
    return (place >= per_image(start)) & (place < per_image(start + length))
