"""From a file on disk to the square of gray values that is kept of it. Imports no torch."""

import hashlib
import struct
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from boneage_pl.errors import BoneageError

Pixels = NDArray[np.uint8]

# what Pillow raises for files that are no images, are cut short, or whose header or EXIF data is damaged
_UNREADABLE = (OSError, ValueError, SyntaxError, struct.error, Image.DecompressionBombError)


def read_image(path: Path | str) -> Image.Image:
    """Read a PNG or JPEG as gray values: mode `L`, 8 bits.

    A radiograph has one channel. Where a file stores three equal ones nothing is lost; a coloured picture of
    a radiograph is read as its luminance (ITU-R BT.601, Pillow's `L`). 16-bit values keep their high byte
    (the format's full range, not the data's), transparency lies on black as a radiograph's background does,
    and EXIF orientation is applied.

    Raises:
        BoneageError: the file cannot be read as an image.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise BoneageError(f"{path} cannot be read: {error}") from error
    return decode_image(content, path)


def decode_image(content: bytes, name: Path | str) -> Image.Image:
    """Return a file's bytes as `read_image` does; `name` is what an error calls them."""
    try:
        with Image.open(BytesIO(content)) as file:
            file.load()
            return _gray(ImageOps.exif_transpose(file))
    except _UNREADABLE as error:
        reason = "it is no PNG or JPEG" if isinstance(error, UnidentifiedImageError) else error
        raise BoneageError(f"{name} cannot be read as an image: {reason}") from error


def _gray(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16-bit gray; Pillow's own conversion would clip at 255
        return Image.fromarray((np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8))
    if image.has_transparency_data:
        seen = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", seen.size, (0, 0, 0, 255)), seen)
    # palettes and the rest through RGB, which knows what their numbers mean
    return image if image.mode == "L" else image.convert("RGB").convert("L")


def fit(image: Image.Image, size: int) -> Pixels:
    """Return the published resize and centre crop of a gray image: uint8 [`size`, `size`].

    To the bit what torchvision's `Resize(size)` and `CenterCrop(size)` make of a Pillow image (bilinear,
    antialiased, the shorter side becomes `size`), without importing torch. The published pipeline flips
    first: flipping these pixels afterwards instead, as the device does, shifts a picture by one column where
    an odd number of columns is cropped, and rounds a resized value differently here and there.
    """
    width, height = image.size
    if min(width, height) != size:
        longer = int(size * max(width, height) / min(width, height))
        width, height = (size, longer) if width <= height else (longer, size)
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    left, top = round((width - size) / 2), round((height - size) / 2)
    return np.asarray(image.crop((left, top, left + size, top + size)))


def read_originals(paths: dict[str, str], size: int, ids: Sequence[str]) -> Pixels:
    """Read and fit the images of `ids` from their files: uint8 [B, `size`, `size`]."""
    return np.stack([fit(read_image(paths[i]), size) for i in ids])


def hash_images(images: pd.DataFrame) -> dict[str, str]:
    """Return the SHA-256 of each image file's bytes by id; `images` has the columns `id` and `path`."""

    def digest(path: str) -> str:
        try:
            with Path(path).open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise BoneageError(f"{path} cannot be read: {error}") from error

    with ThreadPoolExecutor() as pool:
        return dict(zip(images["id"], pool.map(digest, images["path"]), strict=True))
