"""Fixed image corruptions for the robustness test and test-time augmentation.

Pure functions of the square that a network is shown: uint8 [H, W] → uint8 [H, W]. They are for stress tests
(after Santomartino et al., Radiology: Artificial Intelligence 2024); how strong each is, is our choice.
"""

from collections.abc import Callable
from functools import partial
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from boneage_pl.data.images.resize import Pixels, Resampling, paste_on_black, resize

Corruption = Callable[[Pixels], Pixels]


def rotate(pixels: Pixels, degrees: float) -> Pixels:
    """Turn it about its middle, counter-clockwise; what comes in from outside is black."""
    return np.asarray(Image.fromarray(pixels).rotate(degrees, Image.Resampling.BILINEAR))


def flip(pixels: Pixels) -> Pixels:
    """Exchange left and right."""
    return np.ascontiguousarray(pixels[:, ::-1])


def zoom(pixels: Pixels, factor: float) -> Pixels:
    """Multiply each value."""
    return _to_uint8(pixels * np.float32(factor))


def adjust_contrast(pixels: Pixels, factor: float) -> Pixels:
    """Multiply each value's distance from the mean, which stays unless values are cut off."""
    mean = np.float32(pixels.mean())
    return _to_uint8(mean + (pixels - mean) * np.float32(factor))


def invert(pixels: Pixels) -> Pixels:
    """Exchange black and white."""
    return np.uint8(255) - pixels


def blur(pixels: Pixels, share: float) -> Pixels:
    """Blur it by a normal distribution with a standard deviation of this share of the side."""
    return np.asarray(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(share * max(pixels.shape))))


def downsample(pixels: Pixels, share: float, how: Resampling = "bilinear") -> Pixels:
    """Reduce both sides to this share, see `Frame`, and enlarge them again."""
    height, width = pixels.shape
    small = max(round(width * share), 1), max(round(height * share), 1)
    return np.asarray(resize(resize(Image.fromarray(pixels), small, how), (width, height), "bilinear"))


def add_noise(pixels: Pixels, deviation: float) -> Pixels:
    """Add normal noise with this standard deviation in gray values, the same for every picture of a size."""
    noise = np.random.default_rng(0).normal(0, deviation, pixels.shape).astype(np.float32)
    return _to_uint8(pixels + noise)


def add_marker(pixels: Pixels) -> Pixels:
    """Lay a side marker, a white R an eighth of the side high, into the upper left corner."""
    image = Image.fromarray(pixels)
    side = max(pixels.shape)
    font = ImageFont.load_default(side / 6)  # points: a capital is three quarters as high
    ImageDraw.Draw(image).text((side / 16, side / 16), "R", fill=255, font=font, anchor="lt")
    return np.asarray(image)


def add_border(pixels: Pixels, share: float) -> Pixels:
    """Reduce it to this share of both sides, in the middle of black."""
    height, width = pixels.shape
    small = max(round(width * share), 1), max(round(height * share), 1)
    return paste_on_black(resize(Image.fromarray(pixels), small, "bilinear"), (width, height))


def compress_jpeg(pixels: Pixels, quality: int) -> Pixels:
    """Write it as a JPEG file of this quality and read it again."""
    file = BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


def _to_uint8(values: NDArray[np.floating]) -> Pixels:
    return np.rint(values).clip(0, 255).astype(np.uint8)


CORRUPTIONS: dict[str, Corruption] = {
    "rotated by −10°": partial(rotate, degrees=-10),
    "rotated by +10°": partial(rotate, degrees=10),
    "rotated by −30°": partial(rotate, degrees=-30),
    "rotated by +30°": partial(rotate, degrees=30),
    "rotated by 90°": partial(rotate, degrees=90),
    "rotated by 180°": partial(rotate, degrees=180),
    "mirrored": flip,
    "darker": partial(zoom, factor=0.6),
    "brighter": partial(zoom, factor=1.4),
    "low contrast": partial(adjust_contrast, factor=0.5),
    "high contrast": partial(adjust_contrast, factor=1.5),
    "inverted": invert,
    "blurred": partial(blur, share=0.01),
    "half resolution": partial(downsample, share=0.5),
    "reduced to ¾, antialiased": partial(downsample, share=0.75),
    "reduced to ¾, not antialiased": partial(downsample, share=0.75, how="plain"),
    "noisy": partial(add_noise, deviation=15),
    "with a marker": add_marker,
    "inside a black frame": partial(add_border, share=0.75),
    "JPEG quality 20": partial(compress_jpeg, quality=20),
}

# Originals brought into the square by other software, see `Frame`.
RESAMPLING_CORRUPTIONS: dict[str, Resampling] = {
    "original resampled by Lanczos": "lanczos",
    "original resampled, not antialiased": "plain",
}
