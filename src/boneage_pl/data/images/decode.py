"""Decode PNG, JPEG, TIFF, WebP, JPEG 2000 and BMP files to 8-bit gray."""

import os
import stat
import warnings
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from boneage_pl.data.images.checks import MAX_FILE_BYTES, UNREADABLE, bad_image, check_size, too_large
from boneage_pl.data.images.codestream import CUT_SHORT, JPEG_MAGIC, decode_codestream, read_jpeg_header
from boneage_pl.data.images.grayscale import check_color_bits, to_grayscale

# Pillow supports more; some by external programs
FORMATS = ("PNG", "JPEG", "TIFF", "WEBP", "JPEG2000", "BMP")
DICOM_EXTRA = "pip install 'boneage_pl[dicom]'"  # suffix of errors that the extra would fix
_PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
_TIFF_MAGIC = b"II*\0", b"MM\0*"
_ARCHIVE_MAGIC = b"PK\3\4", b"\x1f\x8b"
_SUBFILE_TYPE, _PHOTOMETRIC = 254, 262  # TIFF 6.0, section 8
# For unusual but readable files. Set globally, since `warnings.catch_warnings` is not thread-safe.
warnings.filterwarnings("ignore", module=r"PIL\.")


def read_file(path: Path | str) -> bytes:
    """Return an image file's bytes.

    Raises:
        BadImageError: unreadable, not a regular file, or too large.
    """
    try:
        with open(path, "rb", opener=_open_without_blocking) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise bad_image(path, "not a regular file")
            if status.st_size > MAX_FILE_BYTES:
                raise bad_image(path, f"more than {MAX_FILE_BYTES >> 20} MiB, too large for a radiograph")
            return file.read()
    except OSError as error:
        raise bad_image(path, f"unreadable ({error.strerror})") from error


def _open_without_blocking(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))  # a pipe would block


def decode_image(content: bytes, name: Path | str, bit_depths: Sequence[int] = ()) -> tuple[Image.Image, int]:
    """Decode a file to 8-bit gray, see `to_grayscale`, with EXIF orientation applied.

    Of a multi-page TIFF, the page that is not a reduced version is used. JPEG
    of more than 8 bits, lossless JPEG and JPEG-LS are decoded by imagecodecs.

    Args:
        content: bytes of the file.
        name: for errors.
        bit_depths: see `to_grayscale`.

    Returns:
        The image, mode `L`, and the bits of its largest value if they are more than 8; else 0.

    Raises:
        BadImageError: not a readable image.
    """
    if not content:
        raise bad_image(name, "an empty file")
    try:
        return _decode(content, name, bit_depths)
    except UNREADABLE as error:
        first_error = error
    try:
        if content.startswith(JPEG_MAGIC) and isinstance(first_error, UnidentifiedImageError):
            check_size(*read_jpeg_header(content)[2:], name)
            return to_grayscale(decode_codestream(content), name, bit_depths)
    except ImportError:
        bits = read_jpeg_header(content)[1]
        kind = f"a JPEG of {bits} bits, or lossless; to decode it, {DICOM_EXTRA}"
        raise bad_image(name, kind) from first_error
    except UNREADABLE as error:
        first_error = error
    raise bad_image(name, _describe(content, first_error)) from first_error


def _decode(content: bytes, name: Path | str, bit_depths: Sequence[int]) -> tuple[Image.Image, int]:
    try:
        with Image.open(BytesIO(content), formats=FORMATS) as file:
            check_size(*file.size, name)
            _select_page(file, name)
            # Pillow inverts WhiteIsZero TIFFs, except those of 16 bits
            tags = getattr(file, "tag_v2", {})
            inverted = file.mode.startswith("I") and tags.get(_PHOTOMETRIC) == 0
            wide = ";16" in str(file.tile) and not file.mode.startswith("I")
            file.load()
            if wide:
                check_color_bits(np.asarray(file.convert("RGB")).astype(np.uint16) << 8, name)
            gray, depth = to_grayscale(file, name, bit_depths)
            return (ImageOps.invert(gray) if inverted else gray), depth
    except Image.DecompressionBombError as error:
        raise too_large(name) from error


def _select_page(file: Image.Image, name: Path | str) -> None:
    """Select the page of a file that is not a reduced version of another."""
    pages = getattr(file, "n_frames", 1)
    if pages == 1 or file.format not in ("TIFF", "WEBP"):
        return
    sizes = {}
    for page in range(pages):
        file.seek(page)
        if not getattr(file, "tag_v2", {}).get(_SUBFILE_TYPE, 0) & 1:
            sizes[page] = file.size
    width, height = max(sizes.values(), default=(0, 0))
    full = [
        page
        for page, (w, h) in sizes.items()
        if 2 * w > width or abs(w * height - h * width) > max(width, height)  # another shape
    ]
    if len(full) != 1:
        raise bad_image(name, f"a {file.format} of {pages} pages; one is expected")
    file.seek(full[0])
    check_size(*file.size, name)


def _describe(content: bytes, error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        if content.startswith(_TIFF_MAGIC):
            return "a TIFF in an unsupported layout; save it as 16-bit gray"
        if content.startswith(_ARCHIVE_MAGIC):
            return "an archive; unpack it"
        is_png = content.startswith(_PNG_MAGIC)
        return "damaged in its header" if is_png else f"none of {', '.join(FORMATS)}"
    return "cut short" if str(error).startswith(("image file is truncated", CUT_SHORT)) else "damaged"
