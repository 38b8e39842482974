"""Convert images of any mode and bit depth to 8-bit gray."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from boneage_pl.data.images.bit_depth import effective_bits
from boneage_pl.data.images.checks import UNREADABLE, bad_image

MIN_COLOR_BITS = 14  # of 16; our choice: Pillow uses the upper 8, of which 2 may be empty
_SIGNED_OFFSET = 2**15


def to_grayscale(
    image: Image.Image | NDArray[Any], name: Path | str, bit_depths: Sequence[int] = ()
) -> tuple[Image.Image, int]:
    """Convert an image to 8-bit gray.

    Color becomes luminance (ITU-R BT.601, Pillow's `L`), which is lossless for equal channels. Transparency
    becomes black, like the background. Of wider gray values the highest 8 bits in use are kept; negative
    values are shifted to start at 0.

    Args:
        image: of any mode; or integers [H, W], or colors [H, W, 3 or 4] of 8 or 16 bits.
        name: for errors.
        bit_depths: of the training's 16-bit images, see `boneage_pl.data.images.bit_depth`; empty to use the
            largest value of each image.

    Returns:
        The image, mode `L`, and the bits of its largest value if they are more than 8; else 0.

    Raises:
        BadImageError: unsupported values, or fully transparent.
    """
    if isinstance(image, np.ndarray):
        if image.ndim == 3 and image.dtype == np.uint16:
            check_color_bits(image, name)
            image = (image >> 8).astype(np.uint8)
        if image.ndim == 2 and image.dtype != np.uint8:
            return _scale(image, bit_depths)
        image = Image.fromarray(image)
    image = _upright(image)
    if image.mode == "F":
        raise bad_image(name, "floating-point values; save it as 16-bit gray")
    if image.mode.startswith("I"):
        return _scale(np.asarray(image), bit_depths)
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        if rgba.getchannel("A").getextrema() == (0, 0):
            raise bad_image(name, "fully transparent")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, (0, 0, 0, 255)), rgba)
    # palettes and other modes via RGB
    return (image if image.mode == "L" else image.convert("RGB").convert("L")), 0


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except UNREADABLE:  # damaged EXIF
        return image


def _scale(values: NDArray[Any], bit_depths: Sequence[int]) -> tuple[Image.Image, int]:
    """Return the highest 8 bits in use of integers [H, W], and the bits of their largest value."""
    values = values.astype(np.int64)
    lowest = int(values.min())
    if lowest < 0:
        values -= lowest
    elif lowest >= _SIGNED_OFFSET:  # signed values with an offset of 2¹⁵, since a radiograph contains black
        values -= _SIGNED_OFFSET
    depth = int(values.max()).bit_length()
    unused = max(effective_bits(depth, list(bit_depths)) - 8, 0)
    return Image.fromarray((values >> unused).clip(0, 255).astype(np.uint8)), depth


def check_color_bits(colors: NDArray[Any], name: Path | str) -> None:
    """Raise `BadImageError` for 16-bit colors with few bits in use, since only the upper eight are used."""
    bits = int(colors.max() | 0xFF).bit_length()
    if bits < MIN_COLOR_BITS:
        raise bad_image(name, f"16-bit colors with only {bits} or fewer bits in use; save it as gray")
