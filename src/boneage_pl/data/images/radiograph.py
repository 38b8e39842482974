"""Load a radiograph from a file, bytes, an array or a Pillow image."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from boneage_pl.data.images.checks import bad_image, check_not_blank, check_size
from boneage_pl.data.images.decode import decode_image, read_file
from boneage_pl.data.images.dicom import DicomTags, decode_dicom, is_dicom
from boneage_pl.data.images.grayscale import to_grayscale
from boneage_pl.data.images.resize import Pixels, ResizeSpec
from boneage_pl.data.tables.spec import IMAGE_SUFFIXES

ImageInput = str | PathLike[str] | bytes | Image.Image | NDArray[Any]


def stem_of(path: Path | str) -> str:
    """Return a file's name without an image suffix; DICOM UIDs contain dots."""
    name = Path(path).name
    suffix = Path(name).suffix
    return name.removesuffix(suffix) if suffix.lower() in IMAGE_SUFFIXES else name


@dataclass
class Radiograph:
    """A decoded radiograph.

    Args:
        image: mode `L`, bones bright; a right hand is mirrored.
        tags: of a DICOM file.
        mirrored: whether the image was mirrored.
        notes: preprocessing steps and unusual tags.
        bit_depth: bits of the largest value of a gray image of more than 8 bits; else 0.
    """

    image: Image.Image
    tags: DicomTags | None = None
    mirrored: bool = False
    notes: list[str] = field(default_factory=list)
    bit_depth: int = 0


def load_radiograph(source: ImageInput, bit_depths: Sequence[int] = ()) -> Radiograph:
    """Load a radiograph from a file or from memory, for training, evaluation and prediction.

    Args:
        source: a path; a file's bytes; a Pillow image; an array of gray values [H, W], uint8, uint16, int16
            or int32; or of colors [H, W, 3], uint8 or uint16.
        bit_depths: see `boneage_pl.data.images.grayscale.to_grayscale`.

    Raises:
        BadImageError: not a readable image, or blank.
    """
    if isinstance(source, np.ndarray | Image.Image):
        return _from_memory(source, bit_depths)
    if isinstance(source, bytes):
        return decode_radiograph(source, "the bytes in memory", bit_depths)
    return decode_radiograph(read_file(Path(source)), str(source), bit_depths)


def decode_radiograph(content: bytes, name: str, bit_depths: Sequence[int] = ()) -> Radiograph:
    """Decode a file's bytes, see `load_radiograph`; `name` is for errors.

    A right hand by its DICOM tags is mirrored, since the RSNA's hands are all left.
    """
    if not is_dicom(content):
        image, depth = decode_image(content, name, bit_depths)
        radiograph = Radiograph(image, bit_depth=depth)
    else:
        image, tags = decode_dicom(content, name)
        mirrored = tags.laterality == "R"
        radiograph = Radiograph(ImageOps.mirror(image) if mirrored else image, tags, mirrored, tags.notes)
    check_not_blank(radiograph.image, name)
    return radiograph


def load_resized(
    paths: Mapping[str, str], frame: ResizeSpec, bit_depths: Sequence[int], ids: Sequence[str]
) -> Pixels:
    """Decode and resize the images of `ids` from their files: uint8 [B, H, W]."""
    return np.stack([frame.apply(load_radiograph(paths[i], bit_depths).image) for i in ids])


def _from_memory(source: Image.Image | NDArray[Any], bit_depths: Sequence[int]) -> Radiograph:
    name = "the image in memory"
    if isinstance(source, np.ndarray):
        kind = f"an array of {source.dtype} {list(source.shape)}"
        if source.ndim == 3 and source.shape[2] == 1:
            source = source[..., 0]
        types = (np.uint8, np.uint16) if source.ndim == 3 else (np.uint8, np.uint16, np.int16, np.int32)
        layout = source.ndim == 2 or (source.ndim == 3 and source.shape[2] in (3, 4))
        if source.dtype not in types or not layout or not source.size:
            raise bad_image(name, f"{kind}; it must be uint8 or uint16, [H, W] or [H, W, 3]")
        check_size(source.shape[1], source.shape[0], name)
    else:
        check_size(*source.size, name)
    image, depth = to_grayscale(source, name, bit_depths)
    check_not_blank(image, name)
    return Radiograph(image, bit_depth=depth)
