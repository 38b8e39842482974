"""Image degradation: blur, noise and low resolution."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from boneage_pl.data.transforms.compose import apply_where, as_float, per_image, resize, to_normal


class GaussianBlur:
    """Blurs a share of the images by a normal distribution.

    Args:
        p: of the images.
        max_sigma: its standard deviation at most, as a share of the side.
    """

    num_random = 2

    def __init__(self, p: float, max_sigma: float = 0.01) -> None:
        self.p, self.max_sigma = p, max_sigma

    def __call__(self, images: Tensor, random: Tensor) -> Tensor:
        """Blur [B, 1, H, W] by [B, 2] → float32 [B, 1, H, W]."""
        # each image a channel with a kernel of its own
        pixels = as_float(images).transpose(0, 1)  # → [1, B, H, W]
        deviation = (random[:, 1] * self.max_sigma * max(pixels.shape[2:])).clamp(min=1e-3)
        deviation = torch.where(random[:, 0] < self.p, deviation, 1e-3)  # as narrow as to change nothing
        reach = max(math.ceil(3 * self.max_sigma * max(pixels.shape[2:])), 1)
        steps = torch.arange(-reach, reach + 1, device=pixels.device)
        kernel = (-0.5 * (steps / deviation.unsqueeze(1)) ** 2).softmax(1)  # [B, K]
        for shape, sides in (((-1, 1, 1, len(steps)), (1, 0)), ((-1, 1, len(steps), 1), (0, 1))):
            padded = F.pad(pixels, [reach * s for s in sides for _ in range(2)], "replicate")
            pixels = F.conv2d(padded, kernel.view(shape), groups=len(images))
        return pixels.transpose(0, 1)


class GaussianNoise:
    """Adds normal noise to a share of the images.

    Args:
        p: of the images.
        max_sigma: its standard deviation at most, as a share of white.
    """

    num_random = 3

    def __init__(self, p: float, max_sigma: float = 0.05) -> None:
        self.p, self.max_sigma = p, max_sigma

    def __call__(self, images: Tensor, random: Tensor) -> Tensor:
        """Add to [B, 1, H, W] by [B, 3] → float32 [B, 1, H, W] in [0, 1]."""
        pixels = as_float(images)
        noisy = pixels + per_image(random[:, 1] * self.max_sigma) * to_normal(random[:, 2], pixels)
        return apply_where(random[:, 0], self.p, noisy.clamp(0, 1), pixels)


class LowResolution:
    """Reduce a share of the images, half of them antialiased and half not, and resize all to one size.

    Args:
        p: probability that an image is reduced.
        scales: shares of the side that it is reduced to, each as often.
        size: side of the result in pixels, resized with antialiasing; `None` for as large as the images.
    """

    num_random = 3

    def __init__(self, p: float, scales: Sequence[float] = (0.5, 0.75), size: int | None = None) -> None:
        self.p, self.scales, self.size = p, tuple(scales), size

    def __call__(self, images: Tensor, random: Tensor) -> Tensor:
        """Reduce [B, 1, H, W] by [B, 3] → float32 [B, 1, size, size]."""
        pixels = as_float(images)
        apply, level, smooth = random.unbind(1)
        level = torch.where(apply < self.p, (level * len(self.scales)).long(), -1)  # -1: as it is
        size = (self.size, self.size) if self.size else pixels.shape[2:]
        result = resize(pixels, size)
        for k, share in enumerate(self.scales):
            small = [max(round(share * n), 1) for n in pixels.shape[2:]]
            fine, coarse = (F.interpolate(pixels, small, mode="bilinear", antialias=a) for a in (True, False))
            again = resize(apply_where(smooth, 0.5, fine, coarse), size)
            result = torch.where(per_image(level == k), again, result)
        return result
