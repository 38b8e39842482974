"""Decode PNG, JPEG, TIFF, WebP, JPEG 2000 and BMP files to 8-bit gray."""

import os
import stat
import struct
import warnings
import zlib
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from boneage_pl.data.images.bit_depth import effective_bits
from boneage_pl.data.images.codestream import CUT_SHORT, JPEG_MAGIC, decode_codestream, read_jpeg_header
from boneage_pl.errors import BoneAgeError

FORMATS = ("PNG", "JPEG", "TIFF", "WEBP", "JPEG2000", "BMP")  # Pillow reads more; some by other programs
MAX_PIXELS = 64 * 2**20  # pixels; our choice: film of 35 × 43 cm scanned at 600 dpi has 80 % of it
MAX_ASPECT = 32  # times as long as wide; our choice: cut to its middle square, more shows nothing of a hand
MIN_COLOR_BITS = 14  # of 16; our choice: Pillow keeps the upper 8, of which 2 may be unused
MAX_FILE_BYTES = 2**29  # bytes; our choice: that many pixels of four 16-bit channels, not compressed

BLANK_IMAGE = "all one gray value"
DICOM_EXTRA = "pip install 'boneage_pl[dicom]'"  # ends the reason of what an extra would read

_PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
_PNG_CHUNKS = {b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND", b"eXIf"}  # all that decoding needs
_TIFF_MAGIC = b"II*\0", b"MM\0*"
_ARCHIVE_MAGIC = b"PK\3\4", b"\x1f\x8b"
_SUBFILE_TYPE, _PHOTOMETRIC = 254, 262  # TIFF 6.0, section 8
_SIGNED_OFFSET = 2**15

# what Pillow raises for files that are no images, are cut short, or whose header is damaged
_UNREADABLE = (
    OSError,
    ValueError,
    SyntaxError,
    TypeError,
    LookupError,
    ArithmeticError,
    EOFError,
    struct.error,
    zlib.error,
)

# Of odd and readable files. Set once: `warnings.catch_warnings` is not safe in threads.
warnings.filterwarnings("ignore", module=r"PIL\.")


class BadImageError(BoneAgeError):
    """A file that cannot be used as a radiograph; `reason` says what it is, alike for all such files."""

    reason = "damaged"


def bad_image(name: Path | str, kind: str) -> BadImageError:
    """Return the error of a file that is of this kind instead of a radiograph."""
    # one argument alone: a loader process hands errors over so
    error = BadImageError(f"{name}: {kind}.\nFetch the file again, or take its row out of the table.")
    error.reason = kind
    return error


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
    except _UNREADABLE as error:
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
    except _UNREADABLE as error:
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
                _check_color_bits(np.asarray(file.convert("RGB")).astype(np.uint16) << 8, name)
            gray, depth = to_grayscale(file, name, bit_depths)
            return (ImageOps.invert(gray) if inverted else gray), depth
    except Image.DecompressionBombError as error:
        raise _too_large(name) from error


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


def check_size(width: int, height: int, name: Path | str) -> None:
    """Raise `BadImageError` for an image that is too large, or too narrow, for a radiograph."""
    if width * height > MAX_PIXELS:
        raise _too_large(name)
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise bad_image(name, f"more than {MAX_ASPECT} times as long as wide, no shape of a radiograph")


def _too_large(name: Path | str) -> BadImageError:
    return bad_image(name, f"more than {MAX_PIXELS >> 20} megapixels, too large for a radiograph")


def check_not_blank(image: Image.Image, name: Path | str) -> None:
    """Raise `BadImageError` for a gray image that is one value everywhere: nothing can be learned from it."""
    darkest, brightest = image.getextrema()
    if darkest == brightest:
        raise bad_image(name, BLANK_IMAGE)


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
            _check_color_bits(image, name)
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
    # palettes and the rest through RGB, which knows what their numbers mean
    return (image if image.mode == "L" else image.convert("RGB").convert("L")), 0


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except _UNREADABLE:  # EXIF that is damaged
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


def _check_color_bits(colors: NDArray[Any], name: Path | str) -> None:
    """Refuse 16-bit colors that use few of their bits: the upper eight alone are read."""
    bits = int(colors.max() | 0xFF).bit_length()
    if bits < MIN_COLOR_BITS:
        raise bad_image(name, f"16 bits a color that uses only {bits} or fewer of them; store it as gray")
