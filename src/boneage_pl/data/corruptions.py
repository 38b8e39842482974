"""Fixed image corruptions for the robustness test and test-time augmentation.

Transforms with fixed parameters of preprocessed images, uint8 [..., H, W], after Santomartino et al.
(Radiology: Artificial Intelligence, 2024); their strengths are our choice.
"""

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor

from boneage_pl.data.images.resize import Pixels, Resampling
from boneage_pl.data.transforms.compose import as_float
from boneage_pl.data.transforms.degradation import (
    GaussianBlur,
    GaussianNoise,
    JPEGCompression,
    RandomResampling,
)
from boneage_pl.data.transforms.geometric import RandomAffine, RandomHorizontalFlip
from boneage_pl.data.transforms.intensity import IntensityJitter, RandomInversion
from boneage_pl.data.transforms.occlusion import RandomMarker

Corruption = Callable[[Pixels], Pixels]


def corrupt(pixels: Pixels, transform: Callable[..., Tensor], numbers: tuple[float, ...] = ()) -> Pixels:
    """Transform images, a random transform with fixed numbers: uint8 [..., H, W] → the same."""
    images = torch.from_numpy(np.array(pixels)).view(-1, 1, *pixels.shape[-2:])
    random = torch.tensor(numbers).expand(len(images), -1)
    changed = as_float(transform(images, random) if numbers else transform(images))
    return (changed * 255).round().to(torch.uint8).view(pixels.shape).numpy()


def fixed(transform: Callable[..., Tensor], *numbers: float) -> Corruption:
    """Return a corruption from a random transform with fixed numbers from 0 to 1."""
    return partial(corrupt, transform=transform, numbers=numbers)


def rotation(degrees: float) -> Corruption:
    """Rotate images about their center, counter-clockwise, with black corners."""
    return fixed(RandomAffine(rotation=abs(degrees)), 0.5, float(degrees > 0), 0.5, 0.5, 0.5, 0.5)


flip = fixed(RandomHorizontalFlip(1.0), 0.0)
invert = fixed(RandomInversion(1.0), 0.0)


def _multiply(images: Tensor, factor: float) -> Tensor:
    return (as_float(images) * factor).clamp(max=1)


CORRUPTIONS: dict[str, Corruption] = {
    "rotated by −10°": rotation(-10),
    "rotated by +10°": rotation(10),
    "rotated by −30°": rotation(-30),
    "rotated by +30°": rotation(30),
    "rotated by 90°": rotation(90),
    "rotated by 180°": rotation(180),
    "mirrored": flip,
    "darker": partial(corrupt, transform=partial(_multiply, factor=0.6)),
    "brighter": partial(corrupt, transform=partial(_multiply, factor=1.4)),
    "low contrast": fixed(IntensityJitter(contrast=1.0), 0.5, 0.0, 0.5),  # half the distance from the mean
    "high contrast": fixed(IntensityJitter(contrast=0.5), 0.5, 1.0, 0.5),
    "inverted": invert,
    "blurred": fixed(GaussianBlur(1.0, max_sigma=0.01), 0.0, 1.0),
    "half resolution": fixed(RandomResampling(1.0, [0.5]), 0.0, 0.0, 0.0),
    "reduced to ¾, antialiased": fixed(RandomResampling(1.0, [0.75]), 0.0, 0.0, 0.0),
    "reduced to ¾, not antialiased": fixed(RandomResampling(1.0, [0.75]), 0.0, 0.0, 0.5),
    "noisy": fixed(GaussianNoise(1.0, max_sigma=15 / 255), 0.0, 1.0, 0.5),
    "with a marker": fixed(RandomMarker(1.0, 0.125, 0.125), 0.0, 1.0, 0.0, 0.0625, 0.1),
    "inside a black frame": fixed(RandomAffine(scale=1 / 3), 0.5, 0.5, 0.0, 0.5, 0.5, 0.5),  # ¾ of the side
    "JPEG quality 20": fixed(JPEGCompression(1.0, (20, 20)), 0.0, 0.0),
}

# Originals resized with other filters, see `ResizeSpec`.
RESAMPLING_CORRUPTIONS: dict[str, Resampling] = {
    "original resampled by Lanczos": "lanczos",
    "original resampled, not antialiased": "plain",
}
