"""Image degradation: blur, noise and low resolution."""

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Annotated

import torch
from annotated_types import Ge, Gt, Le, MinLen
from pydantic import validate_call
from torch import Tensor
from torch.nn import functional as F

from boneage_pl.data.transforms.compose import Fraction, Side, apply_where, as_float, per_image, to_normal


class GaussianBlur:
    """Blur images by a Gaussian at random.

    Args:
        p: probability per image.
        max_sigma: largest standard deviation, as a fraction of the side.
    """

    num_random = 2

    @validate_call
    def __init__(self, p: Fraction, max_sigma: Fraction = 0.01) -> None:
        self.p, self.max_sigma = p, max_sigma

    def __call__(self, images: Tensor, random: Tensor) -> Tensor:
        """Blur [B, 1, H, W] by [B, 2] → float32 [B, 1, H, W]."""
        # each image is a channel with its own kernel
        pixels = as_float(images).transpose(0, 1)  # → [1, B, H, W]
        deviation = (random[:, 1] * self.max_sigma * max(pixels.shape[2:])).clamp(min=1e-3)
        deviation = torch.where(random[:, 0] < self.p, deviation, 1e-3)  # too narrow for any effect
        reach = max(math.ceil(3 * self.max_sigma * max(pixels.shape[2:])), 1)
        steps = torch.arange(-reach, reach + 1, device=pixels.device)
        kernel = (-0.5 * (steps / deviation.unsqueeze(1)) ** 2).softmax(1)  # [B, K]
        for shape, sides in (((-1, 1, 1, len(steps)), (1, 0)), ((-1, 1, len(steps), 1), (0, 1))):
            padded = F.pad(pixels, [reach * s for s in sides for _ in range(2)], "replicate")
            pixels = F.conv2d(padded, kernel.view(shape), groups=len(images))
        return pixels.transpose(0, 1)


class GaussianNoise:
    """Add normal noise to images at random.

    Args:
        p: probability per image.
        max_sigma: largest standard deviation, as a fraction of white.
    """

    num_random = 3

    @validate_call
    def __init__(self, p: Fraction, max_sigma: Fraction = 0.05) -> None:
        self.p, self.max_sigma = p, max_sigma

    def __call__(self, images: Tensor, random: Tensor) -> Tensor:
        """Add noise to [B, 1, H, W] by [B, 3] → float32 [B, 1, H, W] in [0, 1]."""
        pixels = as_float(images)
        noisy = pixels + per_image(random[:, 1] * self.max_sigma) * to_normal(random[:, 2], pixels)
        return apply_where(random[:, 0], self.p, noisy.clamp(0, 1), pixels)


_Quality = Annotated[float, Ge(1), Le(100)]


class JPEGCompression:
    """Compress gray images as JPEG at random, with the quantization table of ITU-T T.81, K.1.

    Args:
        p: probability per image.
        quality: lowest and highest quality, as in libjpeg.
    """

    num_random = 2

    @validate_call
    def __init__(self, p: Fraction, quality: tuple[_Quality, _Quality] = (20, 95)) -> None:
        self.p, (self.low, self.high) = p, quality

    def __call__(self, images: Tensor, random: Tensor) -> Tensor:
        """Compress [B, 1, H, W] by [B, 2] → float32 [B, 1, H, W]."""
        pixels = as_float(images)
        height, width = pixels.shape[2:]
        quality = (self.low + (self.high - self.low) * random[:, 1]).round()
        scale = torch.where(quality < 50, 5000 / quality, 200 - 2 * quality)
        luminance, dct = _jpeg_tables(pixels.device)
        table = ((luminance * scale.view(-1, 1, 1, 1, 1) + 50) / 100).floor().clamp(1, 255)  # [B, 1, 1, 8, 8]
        padded = F.pad(pixels, (0, -width % 8, 0, -height % 8), "replicate")
        blocks = (255 * padded[:, 0]).round().unfold(1, 8, 8).unfold(2, 8, 8) - 128  # [B, H / 8, W / 8, 8, 8]
        kept = (dct @ blocks @ dct.T / table).round() * table
        restored = (dct.T @ kept @ dct + 128).round().clamp(0, 255) / 255
        whole = restored.transpose(2, 3).reshape(padded.shape)[:, :, :height, :width]
        return apply_where(random[:, 0], self.p, whole, pixels)


_LUMINANCE = torch.tensor(
    [
        [16, 11, 10, 16, 24, 40, 51, 61],
        [12, 12, 14, 19, 26, 58, 60, 55],
        [14, 13, 16, 24, 40, 57, 69, 56],
        [14, 17, 22, 29, 51, 87, 80, 62],
        [18, 22, 37, 56, 68, 109, 103, 77],
        [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101],
        [72, 92, 95, 98, 112, 100, 103, 99],
    ]
)


@lru_cache(maxsize=8)
def _jpeg_tables(device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the luminance table and the orthonormal cosine transform on the device, [8, 8] each."""
    k = torch.arange(8).view(-1, 1)
    dct = (math.pi / 8 * k * (torch.arange(8) + 0.5)).cos() / torch.where(k == 0, math.sqrt(8), 2)
    return _LUMINANCE.to(device), dct.to(device)


class RandomResampling:
    """Reduce images by a random filter at random, then resize all as `Resize`.

    The filters are those of common software: Pillow's BOX, BILINEAR, BICUBIC, LANCZOS, and the same kernels
    without antialiasing (nearest pixel; the default of OpenCV and PyTorch).

    Args:
        p: probability that an image is reduced.
        scales: fractions of the side to reduce to, equally likely.
        size: side of the result in pixels; `None` for the images' own.
    """

    num_random = 3

    @validate_call
    def __init__(
        self,
        p: Fraction,
        scales: Annotated[Sequence[Annotated[float, Gt(0), Le(1)]], MinLen(1)] = (0.5, 0.75),
        size: Side | None = None,
    ) -> None:
        self.p, self.scales, self.size = p, tuple(scales), size

    def __call__(self, images: Tensor, random: Tensor) -> Tensor:
        """Resample square images [B, 1, S, S] by [B, 3] → float32 [B, 1, size, size]."""
        pixels = as_float(images)
        side = pixels.shape[-1]
        apply, level, kind = random.unbind(1)
        scales = ((level * len(self.scales)).long() * len(FILTERS) + (kind * len(FILTERS)).long()) + 1
        matrices = _resampling_matrices(side, self.scales, self.size or side, pixels.device)
        matrix = matrices[torch.where(apply < self.p, scales, 0)]  # [B, size, S]
        return (matrix @ pixels[:, 0] @ matrix.mT).clamp(0, 1).unsqueeze(1)


@lru_cache(maxsize=8)
def _resampling_matrices(side: int, scales: tuple[float, ...], size: int, device: torch.device) -> Tensor:
    """Return the matrix of `Resize`, and of each scale and filter followed by `Resize`."""
    matrices = [resampling_matrix(side, size)]
    for scale in scales:
        small = max(round(scale * side), 1)
        enlarge = resampling_matrix(small, size)
        matrices += [enlarge @ resampling_matrix(side, small, *kind) for kind in FILTERS]
    return torch.stack(matrices).float().to(device)


def resampling_matrix(
    source: int, target: int, kernel: Callable[[Tensor], Tensor] | None = None, antialias: bool = True
) -> Tensor:
    """Return the matrix that resamples a line of pixels: float64 [target, source].

    Args:
        source: number of pixels.
        target: number of pixels of the result.
        kernel: weights by distance in pixels; `None` for bilinear.
        antialias: whether to widen the kernel when reducing.
    """
    scale = source / target
    centers = (torch.arange(target).double() + 0.5) * scale - 0.5
    distance = torch.arange(source).double() - centers.unsqueeze(1)
    weights = (kernel or _bilinear)(distance / (max(scale, 1) if antialias else 1))
    return weights / weights.sum(1, keepdim=True)


def _box(x: Tensor) -> Tensor:
    return ((x > -0.5) & (x <= 0.5)).double()


def _bilinear(x: Tensor) -> Tensor:
    return (1 - x.abs()).clamp(min=0)


def _bicubic(x: Tensor) -> Tensor:
    x = x.abs()
    near, far = (1.5 * x - 2.5) * x**2 + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2
    return torch.where(x < 1, near, far) * (x < 2)


def _lanczos(x: Tensor) -> Tensor:
    return torch.sinc(x) * torch.sinc(x / 3) * (x.abs() < 3)


FILTERS = [
    (kernel, antialias) for antialias in (True, False) for kernel in (_bilinear, _box, _bicubic, _lanczos)
]
