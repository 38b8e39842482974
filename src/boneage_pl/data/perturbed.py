"""Radiographs as they may arrive: turned, darker, framed, reduced by other software. Imports no torch.

Pure functions of the square that a network is shown: uint8 [H, W] → uint8 [H, W]. They are for stress tests
(after Santomartino et al., Radiology: Artificial Intelligence 2024); how strong each is, is our choice.
"""

from collections.abc import Callable
from functools import partial
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from boneage_pl.data.frame import Pixels, Resampling, on_black, resized

Change = Callable[[Pixels], Pixels]


def rotated(pixels: Pixels, degrees: float) -> Pixels:
    """Turn it about its middle, counter-clockwise; what comes in from outside is black."""
    return np.asarray(Image.fromarray(pixels).rotate(degrees, Image.Resampling.BILINEAR))


def mirrored(pixels: Pixels) -> Pixels:
    """Exchange left and right."""
    return np.ascontiguousarray(pixels[:, ::-1])


def scaled(pixels: Pixels, factor: float) -> Pixels:
    """Multiply each value."""
    return _gray(pixels * np.float32(factor))


def contrasted(pixels: Pixels, factor: float) -> Pixels:
    """Multiply each value's distance from the mean, which stays unless values are cut off."""
    mean = np.float32(pixels.mean())
    return _gray(mean + (pixels - mean) * np.float32(factor))


def inverted(pixels: Pixels) -> Pixels:
    """Exchange black and white."""
    return np.uint8(255) - pixels


def blurred(pixels: Pixels, share: float) -> Pixels:
    """Blur it by a normal distribution with a standard deviation of this share of the side."""
    return np.asarray(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(share * max(pixels.shape))))


def resampled(pixels: Pixels, share: float, how: Resampling = "bilinear") -> Pixels:
    """Reduce both sides to this share, see `Frame`, and enlarge them again."""
    height, width = pixels.shape
    small = max(round(width * share), 1), max(round(height * share), 1)
    return np.asarray(resized(resized(Image.fromarray(pixels), small, how), (width, height), "bilinear"))


def noisy(pixels: Pixels, deviation: float) -> Pixels:
    """Add normal noise with this standard deviation in gray values, the same for every picture of a size."""
    noise = np.random.default_rng(0).normal(0, deviation, pixels.shape).astype(np.float32)
    return _gray(pixels + noise)


def marked(pixels: Pixels) -> Pixels:
    """Lay a side marker, a white R an eighth of the side high, into the upper left corner."""
    image = Image.fromarray(pixels)
    side = max(pixels.shape)
    font = ImageFont.load_default(side / 6)  # points: a capital is three quarters as high
    ImageDraw.Draw(image).text((side / 16, side / 16), "R", fill=255, font=font, anchor="lt")
    return np.asarray(image)


def framed(pixels: Pixels, share: float) -> Pixels:
    """Reduce it to this share of both sides, in the middle of black."""
    height, width = pixels.shape
    small = max(round(width * share), 1), max(round(height * share), 1)
    return on_black(resized(Image.fromarray(pixels), small, "bilinear"), (width, height))


def compressed(pixels: Pixels, quality: int) -> Pixels:
    """Write it as a JPEG file of this quality and read it again."""
    file = BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


def _gray(values: NDArray[np.floating]) -> Pixels:
    return np.rint(values).clip(0, 255).astype(np.uint8)


CHANGES: dict[str, Change] = {
    "rotated by −10°": partial(rotated, degrees=-10),
    "rotated by +10°": partial(rotated, degrees=10),
    "rotated by −30°": partial(rotated, degrees=-30),
    "rotated by +30°": partial(rotated, degrees=30),
    "rotated by 90°": partial(rotated, degrees=90),
    "rotated by 180°": partial(rotated, degrees=180),
    "mirrored": mirrored,
    "darker": partial(scaled, factor=0.6),
    "brighter": partial(scaled, factor=1.4),
    "low contrast": partial(contrasted, factor=0.5),
    "high contrast": partial(contrasted, factor=1.5),
    "inverted": inverted,
    "blurred": partial(blurred, share=0.01),
    "half resolution": partial(resampled, share=0.5),
    "reduced to ¾, antialiased": partial(resampled, share=0.75),
    "reduced to ¾, not antialiased": partial(resampled, share=0.75, how="plain"),
    "noisy": partial(noisy, deviation=15),
    "with a marker": marked,
    "inside a black frame": partial(framed, share=0.75),
    "JPEG quality 20": partial(compressed, quality=20),
}

# Originals brought into the square by other software, see `Frame`.
RESAMPLED: dict[str, Resampling] = {
    "original resampled by Lanczos": "lanczos",
    "original resampled, not antialiased": "plain",
}
