"""Resize an image to a square: crop, pad or stretch."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from boneage_pl.errors import BoneAgeError

Pixels = NDArray[np.uint8]
ReadPixels = Callable[[Sequence[str]], Pixels]  # ids → their images, uint8 [N, side, side]
ResizeMode = Literal["crop", "pad", "stretch"]
Resampling = Literal["bilinear", "lanczos", "plain"]


@dataclass(frozen=True)
class ResizeSpec:
    """A square of `size` pixels, and how an image is made to fit it.

    `crop`, as published: the shorter side becomes the square's, and the middle is cut out. `pad`: the longer
    side becomes the square's, and the whole image lies on black. `stretch`: both sides do.

    Resampled as published, `bilinear` and antialiased, as Pillow and torchvision do it; or, for stress tests,
    as other software does it: `lanczos`, or `plain` bilinear without antialiasing, each pixel of its
    four nearest (OpenCV's and PyTorch's default).

    Raises:
        BoneAgeError: another fit.
    """

    size: int
    mode: ResizeMode = "crop"
    resampling: Resampling = "bilinear"

    def __post_init__(self) -> None:
        if self.mode not in get_args(ResizeMode):
            raise BoneAgeError(
                f"data.resize_mode={self.mode}: there are three, {', '.join(get_args(ResizeMode))}."
            )

    @classmethod
    def from_config(cls, data: Any) -> "ResizeSpec":
        """Read it from the group `data` of a configuration."""
        return cls(data.get("image_size"), data.get("resize_mode", "crop"))

    def __str__(self) -> str:
        """Its part in a file's name: of those that are cropped the side alone."""
        return f"{self.size}" if self.mode == "crop" else f"{self.mode}-{self.size}"

    def apply(self, image: Image.Image) -> Pixels:
        """Return a gray image in this square: uint8 [`side`, `side`].

        `crop` is to the bit what torchvision's `Resize(side)` and `CenterCrop(side)` make of a Pillow image
        (bilinear, antialiased), without importing torch. The published pipeline flips first: flipping these
        pixels afterwards instead, as the device does, shifts an image by one column where an odd number of
        columns is cropped, and rounds a resized value differently here and there.
        """
        fit = {"crop": _crop, "pad": _pad, "stretch": _stretch}[self.mode]
        return fit(image, self.size, self.resampling)

    def visible_box(self, width: int, height: int) -> tuple[float, float, float, float]:
        """Return what of an image of this size is in the square: left, top, width and height, of 1 each."""
        if self.mode != "crop":
            return 0.0, 0.0, 1.0, 1.0
        shown, high = min(1.0, height / width), min(1.0, width / height)
        return (1 - shown) / 2, (1 - high) / 2, shown, high


def resize(image: Image.Image, size: tuple[int, int], resampling: Resampling) -> Image.Image:
    """Return an image in another size, width and height."""
    if resampling == "plain":
        to = (image.width / size[0], 0, 0, 0, image.height / size[1], 0)
        return image.transform(size, Image.Transform.AFFINE, to, Image.Resampling.BILINEAR)
    return image.resize(
        size, {"bilinear": Image.Resampling.BILINEAR, "lanczos": Image.Resampling.LANCZOS}[resampling]
    )


def _crop(image: Image.Image, side: int, resampling: Resampling) -> Pixels:
    width, height = image.size
    if min(width, height) != side:
        longer = int(side * max(width, height) / min(width, height))
        width, height = (side, longer) if width <= height else (longer, side)
        image = resize(image, (width, height), resampling)
    left, top = round((width - side) / 2), round((height - side) / 2)
    return np.asarray(image.crop((left, top, left + side, top + side)))


def _pad(image: Image.Image, side: int, resampling: Resampling) -> Pixels:
    scale = side / max(image.size)
    width, height = (max(round(length * scale), 1) for length in image.size)
    return paste_on_black(resize(image, (width, height), resampling), (side, side))


def paste_on_black(image: Image.Image, size: tuple[int, int]) -> Pixels:
    """Return an image in the middle of black, of this width and height."""
    frame = Image.new("L", size)
    frame.paste(image, ((size[0] - image.width) // 2, (size[1] - image.height) // 2))
    return np.asarray(frame)


def _stretch(image: Image.Image, side: int, resampling: Resampling) -> Pixels:
    return np.asarray(resize(image, (side, side), resampling))
