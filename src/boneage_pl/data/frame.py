"""The square that a radiograph is brought into. Imports no torch."""

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from boneage_pl.errors import BoneageError

Pixels = NDArray[np.uint8]
Fit = Literal["crop", "pad", "stretch"]


@dataclass(frozen=True)
class Frame:
    """A square of `side` pixels, and how an image is made to fit it.

    `crop`, as published: the shorter side becomes the square's, and the middle is cut out. `pad`: the longer
    side becomes the square's, and the whole picture lies on black. `stretch`: both sides do.

    Raises:
        BoneageError: another fit.
    """

    side: int
    fit: Fit = "crop"

    def __post_init__(self) -> None:
        if self.fit not in get_args(Fit):
            raise BoneageError(f"data.fit={self.fit}: there are three, {', '.join(get_args(Fit))}.")

    @classmethod
    def configured(cls, data: Any) -> "Frame":
        """Return the square that the group `data` of a configuration names, which may be an older one."""
        return cls(data.get("image_size"), data.get("fit", "crop"))

    def __str__(self) -> str:
        """Its part in a file's name: of those that are cropped the side alone."""
        return f"{self.side}" if self.fit == "crop" else f"{self.fit}-{self.side}"

    def of(self, image: Image.Image) -> Pixels:
        """Return a gray image in this square: uint8 [`side`, `side`].

        `crop` is to the bit what torchvision's `Resize(side)` and `CenterCrop(side)` make of a Pillow image
        (bilinear, antialiased), without importing torch. The published pipeline flips first: flipping these
        pixels afterwards instead, as the device does, shifts a picture by one column where an odd number of
        columns is cropped, and rounds a resized value differently here and there.
        """
        return {"crop": _crop, "pad": _pad, "stretch": _resized}[self.fit](image, self.side)


def _crop(image: Image.Image, side: int) -> Pixels:
    width, height = image.size
    if min(width, height) != side:
        longer = int(side * max(width, height) / min(width, height))
        width, height = (side, longer) if width <= height else (longer, side)
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    left, top = round((width - side) / 2), round((height - side) / 2)
    return np.asarray(image.crop((left, top, left + side, top + side)))


def _pad(image: Image.Image, side: int) -> Pixels:
    scale = side / max(image.size)
    width, height = (max(round(length * scale), 1) for length in image.size)
    left, top = (side - width) // 2, (side - height) // 2
    square = np.zeros((side, side), np.uint8)
    whole = image.resize((width, height), Image.Resampling.BILINEAR)
    square[top : top + height, left : left + width] = np.asarray(whole)
    return square


def _resized(image: Image.Image, side: int) -> Pixels:
    return np.asarray(image.resize((side, side), Image.Resampling.BILINEAR))
