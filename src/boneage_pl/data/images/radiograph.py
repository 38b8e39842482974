"""Load a radiograph from a file, bytes, an array or a Pillow image."""

from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from boneage_pl.data.images.bit_depth import effective_bits
from boneage_pl.data.images.decode import (
    FORMATS,
    bad_image,
    check_not_blank,
    check_size,
    decode_image,
    is_16bit_gray,
    read_bit_depth,
    read_file,
    to_grayscale,
)
from boneage_pl.data.images.dicom import DicomTags, decode_dicom, is_dicom

IMAGE_AND_DICOM = (*FORMATS, "TIFF")
SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".dcm", ".dicom", ".ima")

ImageInput = str | PathLike[str] | Image.Image | NDArray[Any]


def stem_of(path: Path | str) -> str:
    """Return a file's name without the suffix that says its kind: a DICOM UID is full of dots."""
    name = Path(path).name
    suffix = Path(name).suffix
    return name.removesuffix(suffix) if suffix.lower() in SUFFIXES else name


@dataclass
class Radiograph:
    """A hand as a network is to see it.

    Args:
        image: mode `L`, bones bright; of a right hand mirrored.
        tags: of a DICOM file.
        mirrored: whether it was.
        notes: what was done to it, or found in its tags, in words.
    """

    image: Image.Image
    tags: DicomTags | None
    mirrored: bool
    notes: list[str]


def load_radiograph(picture: ImageInput, levels: Sequence[int] = ()) -> Radiograph:
    """Return a radiograph that is a PNG, a JPEG, a TIFF or a DICOM file, or a picture in memory.

    What a PNG or JPEG becomes is what `read_radiograph` makes of it for a training. A right hand, where a tag
    says that it is one, is mirrored: the RSNA's are all left.

    Args:
        picture: a path; a Pillow image; or gray values [H, W], or colors [H, W, 3], uint8 or uint16.
        levels: bits that the 16-bit images of the training were read as, see
            `boneage_pl.data.images.bit_depth`.

    Raises:
        BadImageError: it cannot be read as an image, or all of it is one value.
    """
    if isinstance(picture, np.ndarray | Image.Image):
        return Radiograph(_from_array(picture), None, False, [])
    path = Path(picture)
    content = read_file(path)
    if not is_dicom(content):
        used = effective_bits(read_bit_depth(path), list(levels)) if levels and is_16bit_gray(path) else 0
        image = decode_image(content, path, used, IMAGE_AND_DICOM)
        check_not_blank(image, path)
        return Radiograph(image, None, False, [])
    image, tags = decode_dicom(content, str(path))
    check_not_blank(image, path)
    mirrored = tags.laterality == "R"
    return Radiograph(ImageOps.mirror(image) if mirrored else image, tags, mirrored, _tag_notes(tags))


def _from_array(picture: Image.Image | NDArray[Any]) -> Image.Image:
    name = "the picture in memory"
    if isinstance(picture, np.ndarray):
        if picture.dtype not in (np.uint8, np.uint16) or picture.ndim not in (2, 3) or not picture.size:
            kind = f"an array of {picture.dtype} {list(picture.shape)}"
            raise bad_image(name, f"{kind}, where it must be uint8 or uint16, [H, W] or [H, W, 3]")
        picture = Image.fromarray(picture)
    check_size(*picture.size, name)
    image = to_grayscale(ImageOps.exif_transpose(picture), 0, name)
    check_not_blank(image, name)
    return image


def _tag_notes(tags: DicomTags) -> list[str]:
    values = {
        "inverted, as its tags ask (MONOCHROME1)": tags.inverted,
        "a right hand, mirrored": tags.laterality == "R",
        f"view {tags.view}": bool(tags.view),
        tags.window_error: bool(tags.window_error),
    }
    return [words for words, so in values.items() if so]
