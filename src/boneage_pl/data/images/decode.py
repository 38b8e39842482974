"""Decode PNG, JPEG, TIFF, WebP, JPEG 2000 and BMP files to 8-bit gray."""

import os
import stat
import warnings
import zlib
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from boneage_pl.data.images.checks import (
    MAX_FILE_BYTES,
    UNREADABLE,
    bad_image,
    check_size,
    too_large,
)
from boneage_pl.data.images.codestream import CUT_SHORT, JPEG_MAGIC, decode_codestream, read_jpeg_header
from boneage_pl.data.images.grayscale import check_color_bits, to_grayscale

FORMATS = ("PNG", "JPEG", "TIFF", "WEBP", "JPEG2000", "BMP")  # Pillow reads more; some by other programs
DICOM_EXTRA = "pip install 'boneage_pl[dicom]'"  # ends the reason of what an extra would read
_PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
_PNG_CHUNKS = {b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND", b"eXIf"}  # all that decoding needs
_TIFF_MAGIC = b"II*\0", b"MM\0*"
_ARCHIVE_MAGIC = b"PK\3\4", b"\x1f\x8b"
_SUBFILE_TYPE, _PHOTOMETRIC = 254, 262  # TIFF 6.0, section 8
# Of odd and readable files. Set once: `warnings.catch_warnings` is not safe in threads.
warnings.filterwarnings("ignore", module=r"PIL\.")


def read_file(path: Path | str) -> bytes:
    """Return an image file's bytes.

    Raises:
        BadImageError: it cannot be opened, is no plain file, or too large for an image.
    """
    try:
        with open(path, "rb", opener=_open_without_blocking) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise bad_image(path, "no plain file")
            if status.st_size > MAX_FILE_BYTES:
                raise bad_image(path, f"more than {MAX_FILE_BYTES >> 20} MiB, too large for a radiograph")
            return file.read()
    except OSError as error:
        raise bad_image(path, f"unreadable ({error.strerror})") from error


def _open_without_blocking(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))  # a pipe would be waited for


def decode_image(content: bytes, name: Path | str, bit_depths: Sequence[int] = ()) -> tuple[Image.Image, int]:
    """Decode a file to 8-bit gray, as `to_grayscale` does, with EXIF orientation applied.

    Metadata may be damaged or of any size. Of a TIFF of several pages the one is read that is no reduced
    version of another. JPEG of more than 8 bits, lossless JPEG and JPEG-LS are read by imagecodecs.

    Args:
        content: of the file.
        name: what an error calls it.
        bit_depths: see `to_grayscale`.

    Returns:
        The image, mode `L`, and the bits of its largest value if it has more than 8 of them; else 0.

    Raises:
        BadImageError: the file cannot be read as an image.
    """
    if not content:
        raise bad_image(name, "an empty file")
    try:
        return _decode(content, name, bit_depths)
    except UNREADABLE as error:
        unread = error
    try:
        if content.startswith(_PNG_MAGIC):
            return _decode(_strip_png(content), name, bit_depths)
        if content.startswith(JPEG_MAGIC) and isinstance(unread, UnidentifiedImageError):
            check_size(*read_jpeg_header(content)[2:], name)
            return to_grayscale(decode_codestream(content), name, bit_depths)
    except ImportError:
        bits = read_jpeg_header(content)[1]
        kind = f"a JPEG of {bits} bits, or lossless; to read it, {DICOM_EXTRA}"
        raise bad_image(name, kind) from unread
    except UNREADABLE as error:
        unread = error
    raise bad_image(name, _describe(content, unread)) from unread


def _decode(content: bytes, name: Path | str, bit_depths: Sequence[int]) -> tuple[Image.Image, int]:
    try:
        with Image.open(BytesIO(content), formats=FORMATS) as file:
            check_size(*file.size, name)
            _select_page(file, name)
            # Pillow inverts a TIFF whose white is zero, but not of 16 bits
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
    """Go to the one page of a file that is no reduced version of another."""
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
        raise bad_image(name, f"a {file.format} of {pages} pages, where a radiograph is one")
    file.seek(full[0])
    check_size(*file.size, name)


def _strip_png(content: bytes) -> bytes:
    """Return a PNG without metadata, which may be damaged or unpack to more than Pillow takes."""
    kept, start = [_PNG_MAGIC], len(_PNG_MAGIC)
    while start + 8 <= len(content):
        end = start + 12 + int.from_bytes(content[start : start + 4], "big")
        chunk = content[start:end]
        intact = zlib.crc32(chunk[4:-4]) == int.from_bytes(chunk[-4:], "big")
        if chunk[4:8] in _PNG_CHUNKS and (intact or chunk[4:8] != b"eXIf"):
            kept.append(chunk)
        start = end
    return b"".join(kept)


def _describe(content: bytes, error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        if content.startswith(_TIFF_MAGIC):
            return "a TIFF in a layout that is not read; save it as 16-bit gray"
        if content.startswith(_ARCHIVE_MAGIC):
            return "an archive; unpack it"
        known = content.startswith(_PNG_MAGIC)
        return "damaged in its header" if known else f"none of {', '.join(FORMATS)}"
    return "cut short" if str(error).startswith(("image file is truncated", CUT_SHORT)) else "damaged"
