"""Resize images to a square by cropping, padding or stretching."""

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
    """Preprocessing of images to a square of `size` pixels.

    `crop` (published) resizes the shorter side and crops the center. `pad` resizes the longer side and pads
    with black. `stretch` resizes both sides.

    The published resampling is `bilinear` with antialiasing, as in Pillow and torchvision. For robustness
    tests, there are `lanczos`, and `plain` bilinear without antialiasing (the default of OpenCV and PyTorch).

    Raises:
        BoneAgeError: unknown mode.
    """

    size: int
    mode: ResizeMode = "crop"
    resampling: Resampling = "bilinear"

    def __post_init__(self) -> None:
        if self.mode not in get_args(ResizeMode):
            raise BoneAgeError(
                f"data.resize_mode={self.mode}: choose from {', '.join(get_args(ResizeMode))}."
            )

    @classmethod
    def from_config(cls, data: Any) -> "ResizeSpec":
        """Create a spec from the group `data` of a configuration."""
        return cls(data.get("image_size"), data.get("resize_mode", "crop"))

    def __str__(self) -> str:
        """Return the label for file names; for `crop` just the size."""
        return f"{self.size}" if self.mode == "crop" else f"{self.mode}-{self.size}"

    def apply(self, image: Image.Image) -> Pixels:
        """Preprocess a gray image: uint8 [size, size].

        `crop` is bit-identical to torchvision's `Resize(size)` and `CenterCrop(size)` of a Pillow image
        (bilinear, antialiased), without importing torch. The published pipeline flips before; flipping
        afterwards, on the device, shifts an image by one column if an odd number of columns is cropped, and
        rounds some values differently.
        """
        fit = {"crop": _crop, "pad": _pad, "stretch": _stretch}[self.mode]
        return fit(image, self.size, self.resampling)

    def visible_box(self, width: int, height: int) -> tuple[float, float, float, float]:
        """Return the part of an image that is used, as fractions: left, top, width, height."""
        if self.mode != "crop":
            return 0.0, 0.0, 1.0, 1.0
        visible_width, visible_height = min(1.0, height / width), min(1.0, width / height)
        return (1 - visible_width) / 2, (1 - visible_height) / 2, visible_width, visible_height


def resize(image: Image.Image, size: tuple[int, int], resampling: Resampling) -> Image.Image:
    """Resize an image to (width, height)."""
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
    """Center an image on a black background of (width, height)."""
    frame = Image.new("L", size)
    frame.paste(image, ((size[0] - image.width) // 2, (size[1] - image.height) // 2))
    return np.asarray(frame)


def _stretch(image: Image.Image, side: int, resampling: Resampling) -> Pixels:
    return np.asarray(resize(image, (side, side), resampling))
