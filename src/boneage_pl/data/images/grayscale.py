"""Convert images of any mode and bit depth to 8-bit gray."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from boneage_pl.data.images.bit_depth import effective_bits
from boneage_pl.data.images.checks import UNREADABLE, bad_image

MIN_COLOR_BITS = 14  # of 16; our choice: Pillow keeps the upper 8, of which 2 may be unused
_SIGNED_OFFSET = 2**15


def to_grayscale(
    image: Image.Image | NDArray[Any], name: Path | str, bit_depths: Sequence[int] = ()
) -> tuple[Image.Image, int]:
    """Convert an image to 8-bit gray.

    Color becomes luminance (ITU-R BT.601, Pillow's `L`), so that three equal channels lose nothing.
    Transparency lies on black, as a radiograph's background does. Of wider gray values the highest 8 of the
    bits in use are kept; negative ones are shifted to begin at 0.

    Args:
        image: of any mode; or integers [H, W], or colors [H, W, 3 or 4] of 8 or 16 bits.
        name: what an error calls it.
        bit_depths: that the training's 16-bit images were read as, see `boneage_pl.data.images.bit_depth`;
            without them each is read by its own largest value.

    Returns:
        The image, mode `L`, and the bits of its largest value if it has more than 8 of them; else 0.

    Raises:
        BadImageError: its values cannot be brought to 8 bits, or it is fully transparent.
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
        raise bad_image(name, "of floating-point values; store it as 16-bit gray")
    if image.mode.startswith("I"):
        return _scale(np.asarray(image), bit_depths)
    if image.has_transparency_data:
        seen = image.convert("RGBA")
        if seen.getchannel("A").getextrema() == (0, 0):
            raise bad_image(name, "fully transparent")
        image = Image.alpha_composite(Image.new("RGBA", seen.size, (0, 0, 0, 255)), seen)
    # palettes and the rest through RGB: their numbers are no gray values
    return (image if image.mode == "L" else image.convert("RGB").convert("L")), 0


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except UNREADABLE:  # EXIF that is damaged
        return image


def _scale(values: NDArray[Any], bit_depths: Sequence[int]) -> tuple[Image.Image, int]:
    """Return the highest 8 of the bits in use of integers [H, W], and the bits of their largest value."""
    values = values.astype(np.int64)
    lowest = int(values.min())
    if lowest < 0:
        values -= lowest
    elif lowest >= _SIGNED_OFFSET:  # signed values with 2¹⁵ added: a radiograph has black in it
        values -= _SIGNED_OFFSET
    depth = int(values.max()).bit_length()
    unused = max(effective_bits(depth, list(bit_depths)) - 8, 0)
    return Image.fromarray((values >> unused).clip(0, 255).astype(np.uint8)), depth


def check_color_bits(colors: NDArray[Any], name: Path | str) -> None:
    """Refuse 16-bit colors that use few of their bits: the upper eight alone are read."""
    bits = int(colors.max() | 0xFF).bit_length()
    if bits < MIN_COLOR_BITS:
        raise bad_image(name, f"16 bits a color that uses only {bits} or fewer of them; store it as gray")
