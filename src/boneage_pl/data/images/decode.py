"""Decode PNG, JPEG and TIFF files to 8-bit gray."""

import os
import stat
import struct
import warnings
import zlib
from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from boneage_pl.data.images.resize import Pixels, ResizeSpec
from boneage_pl.errors import BoneAgeError

PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
JPEG_MAGIC = b"\xff\xd8"

# What a PNG's picture needs (PNG 3rd ed., 11.2 and 11.3.1)
_PIXEL_CHUNKS = {
    b"IHDR": "header",
    b"PLTE": "palette",
    b"tRNS": "transparency",
    b"IDAT": "pixels",
    b"IEND": "end",
}
_ORIENTATION_TAG = b"eXIf"
_MAX_EXIF_BYTES = 2**16  # bytes, as in a JPEG
_START_OF_SCAN = 0xDA
_JPEG_EXIF = b"Exif\0\0"


def strip_metadata_chunks(content: bytes, *, orientation: bool = True) -> bytes:
    """Return an image file without what holds no pixels: texts, profiles, previews, other programs' data.

    Args:
        content: of a PNG or JPEG; anything else comes back as it is.
        orientation: whether what says which side is up is kept.
    """
    if content.startswith(PNG_MAGIC):
        return PNG_MAGIC + b"".join(_strip_png(content, orientation))
    if content.startswith(JPEG_MAGIC):
        return JPEG_MAGIC + b"".join(_strip_jpeg(content, orientation))
    return content


def describe_corruption(content: bytes) -> str:
    """Say what of a PNG or JPEG that cannot be decoded is damaged: `cut short in its pixels (IDAT)`.

    Nothing of any other file.
    """
    if content.startswith(PNG_MAGIC):
        return _describe_png_corruption(content)
    if content.startswith(JPEG_MAGIC):
        if any(end > len(content) for _, _, end in _jpeg_segments(content)):
            return "cut short in its header"
        return "damaged in its pixels" if content.rstrip(b"\0").endswith(b"\xff\xd9") else "cut short"
    return ""


def png_gray_bit_depth(head: bytes) -> int:
    """Return the bits of a gray PNG's values, from its first 26 bytes; 0 for any other file."""
    gray = head.startswith(PNG_MAGIC) and head[12:16] == b"IHDR" and head[25:26] == b"\0"
    return head[24] if gray else 0


def _strip_png(content: bytes, orientation: bool) -> Iterator[bytes]:
    for name, start, end in _png_chunks(content):
        small_exif = name == _ORIENTATION_TAG and orientation and end - start <= _MAX_EXIF_BYTES
        if name in _PIXEL_CHUNKS or (small_exif and _chunk_is_intact(content, start, end)):
            yield content[start:end]


def _png_chunks(content: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield name, start and end of each chunk; the last may end beyond the file."""
    start = len(PNG_MAGIC)
    while start + 8 <= len(content):
        end = start + 12 + int.from_bytes(content[start : start + 4], "big")
        yield content[start + 4 : start + 8], start, end
        start = end


def _chunk_is_intact(content: bytes, start: int, end: int) -> bool:
    return zlib.crc32(content[start + 4 : end - 4]) == int.from_bytes(content[end - 4 : end], "big")


def _describe_png_corruption(content: bytes) -> str:
    chunks = list(_png_chunks(content))
    if not chunks or chunks[0][0] != b"IHDR":
        return "damaged in its header (IHDR)"
    for name, start, end in chunks:
        where = f"in its {_PIXEL_CHUNKS[name]} ({name.decode()})" if name in _PIXEL_CHUNKS else ""
        if end > len(content):
            return f"cut short {where}".rstrip()
        if where and not _chunk_is_intact(content, start, end):
            return f"damaged {where}"
    if chunks[-1][0] != b"IEND":
        return "cut short"
    return "damaged in its pixels (IDAT)"


def _strip_jpeg(content: bytes, orientation: bool) -> Iterator[bytes]:
    end = len(JPEG_MAGIC)
    for marker, start, end in _jpeg_segments(content):
        exif = content.startswith(_JPEG_EXIF, start + 4)
        # APP0 and APP14 say what the colors mean; the other APPs and comments hold no pixels
        extra = marker == 0xFE or 0xE1 <= marker <= 0xED or marker == 0xEF
        if not extra or (marker == 0xE1 and exif and orientation):
            yield content[start:end]
    yield content[end:]


def _jpeg_segments(content: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield marker, start and end of each segment before the pixels."""
    start = len(JPEG_MAGIC)
    while start + 4 <= len(content) and content[start] == 0xFF and content[start + 1] != _START_OF_SCAN:
        end = start + 2 + int.from_bytes(content[start + 2 : start + 4], "big")
        yield content[start + 1], start, end
        start = end


FORMATS = ("PNG", "JPEG")  # of a data set; Pillow reads many more, and hands some to other programs
MAX_PIXELS = 64 * 2**20  # pixels; our choice: film of 35 × 43 cm scanned at 600 dpi has 80 % of it
MAX_SIDE = 32  # times as long as wide; our choice: cut to its middle square, more shows nothing of a hand
MIN_BITS = 14  # of a color's 16; our choice: Pillow keeps the upper 8, of which 2 may be unused
MAX_FILE_BYTES = 2**29  # bytes; our choice: that many pixels of four 16-bit channels, not compressed

BLANK_IMAGE = "all one gray value"

_SIGNED_MODES = 2**15

# what Pillow raises for files that are no images, are cut short, or whose header or EXIF data is damaged
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


class BadImageError(BoneAgeError):
    """A file that cannot be used as a radiograph; `reason` says what it is, alike for all such files."""

    reason = "damaged"


def bad_image(name: Path | str, kind: str) -> BadImageError:
    """Return the error of a file that is of this kind instead of a radiograph."""
    # one argument alone: a loader process hands errors over so
    error = BadImageError(f"{name}: {kind}.\nFetch the file again, or take its row out of the table.")
    error.reason = kind
    return error


def read_image(path: Path | str, bits: int = 0) -> Image.Image:
    """Read a PNG or JPEG as gray values: mode `L`, 8 bits.

    A radiograph has one channel. Where a file stores three equal ones nothing is lost; a colored picture of
    a radiograph is read as its luminance (ITU-R BT.601, Pillow's `L`). Of 16-bit values the highest 8 of the
    `bits` in use are kept, transparency lies on black as a radiograph's background does, and EXIF orientation
    is applied. What holds no pixels may be damaged or of any size.

    Args:
        path: of the file.
        bits: in use by 16-bit values (see `boneage_pl.data.images.bit_depth`); 0 for those of this file's
            largest.

    Raises:
        BadImageError: the file cannot be read as an image.
    """
    return decode_image(read_file(path), path, bits)


def read_radiograph(path: Path | str, bits: int = 0) -> Image.Image:
    """Read an image as `read_image` does, and refuse one that shows nothing.

    Raises:
        BadImageError: the file cannot be read as an image, or all of it is one value.
    """
    image = read_image(path, bits)
    check_not_blank(image, path)
    return image


def is_16bit_gray(path: Path | str) -> bool:
    """Whether a file is a 16-bit gray PNG, by its first bytes."""
    try:
        with open(path, "rb", opener=_opener) as file:
            return stat.S_ISREG(os.fstat(file.fileno()).st_mode) and png_gray_bit_depth(file.read(26)) == 16
    except OSError:
        return False


def read_bit_depth(path: Path | str) -> int:
    """Return how many bits the largest value of a 16-bit gray PNG has; 0 if it cannot be read."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(BytesIO(strip_metadata_chunks(read_file(path))), formats=FORMATS) as image:
                check_size(*image.size, path)
                return _bit_depth(image)
    except (BadImageError, Image.DecompressionBombError, *_UNREADABLE):
        return 0


def _bit_depth(image: Image.Image) -> int:
    return int(_read_16bit(image).max()).bit_length()


def _read_16bit(image: Image.Image) -> NDArray[np.int32]:
    """Return the values of a 16-bit gray image; of signed ones, stored with 2^15 added, without that."""
    values = np.asarray(image).astype(np.int32)
    return values - _SIGNED_MODES if values.min() >= _SIGNED_MODES else values  # a radiograph has black in it


def check_not_blank(image: Image.Image, name: Path | str) -> None:
    """Raise `BadImageError` for a gray image that is one value everywhere: nothing can be learned from it."""
    darkest, brightest = image.getextrema()
    if darkest == brightest:
        raise bad_image(name, BLANK_IMAGE)


def read_file(path: Path | str) -> bytes:
    """Return an image file's bytes.

    Raises:
        BadImageError: it cannot be opened, is no plain file, or too large for an image.
    """
    try:
        with open(path, "rb", opener=_opener) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise bad_image(path, "no plain file")
            if status.st_size > MAX_FILE_BYTES:
                raise bad_image(path, f"more than {MAX_FILE_BYTES >> 20} MiB, too large for a radiograph")
            return file.read()
    except OSError as error:
        raise bad_image(path, f"unreadable ({error.strerror})") from error


def _opener(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))  # a pipe would be waited for


def decode_image(
    content: bytes, name: Path | str, bits: int = 0, formats: tuple[str, ...] = FORMATS
) -> Image.Image:
    """Return a file's bytes as `read_image` does.

    Args:
        content: of the file.
        name: what an error calls it.
        bits: see `read_image`.
        formats: Pillow's names of those that are read.
    """
    if not content:
        raise bad_image(name, "an empty file")
    for attempt in _attempts(content):
        try:
            return _decode(attempt, name, bits, formats)
        except Image.DecompressionBombError as error:
            raise bad_image(
                name, f"more than {MAX_PIXELS >> 20} megapixels, too large for a radiograph"
            ) from error
        except _UNREADABLE:
            continue
    raise bad_image(name, describe_corruption(content) or f"no {' or '.join(formats)}")


def _attempts(content: bytes) -> Iterator[bytes]:
    """Yield a file's bytes; then, where they cannot be read, without what may be in the way."""
    yield content
    yield strip_metadata_chunks(content)  # what says which side is up is kept
    yield strip_metadata_chunks(content, orientation=False)


def _decode(content: bytes, name: Path | str, bits: int, formats: tuple[str, ...]) -> Image.Image:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what is odd and readable; sizes are checked below
        with Image.open(BytesIO(content), formats=formats) as file:
            check_size(*file.size, name)
            if (pages := getattr(file, "n_frames", 1)) > 1 and file.format == "TIFF":
                raise bad_image(name, f"a TIFF of {pages} pages, where a radiograph is one")
            white_is_zero = _white_is_zero(file)
            file.load()
            upright = ImageOps.exif_transpose(file)
            wide = content.startswith(PNG_MAGIC) and content[24:25] == b"\x10"
            gray = to_grayscale(upright, bits, name, wide=wide)
            return ImageOps.invert(gray) if white_is_zero else gray


def _white_is_zero(file: Image.Image) -> bool:
    """Whether a TIFF's 16-bit values mean white where they are low: of fewer bits Pillow inverts them."""
    return file.format == "TIFF" and file.mode.startswith("I") and file.tag_v2.get(262) == 0  # type: ignore[attr-defined]


def check_size(width: int, height: int, name: Path | str) -> None:
    """Raise `BadImageError` for a picture that is too large, or too narrow, for a radiograph."""
    if width * height > MAX_PIXELS:
        raise bad_image(name, f"more than {MAX_PIXELS >> 20} megapixels, too large for a radiograph")
    if max(width, height) > MAX_SIDE * min(width, height):
        raise bad_image(name, f"more than {MAX_SIDE} times as long as wide, no shape of a radiograph")


def to_grayscale(image: Image.Image, bits: int, name: Path | str, *, wide: bool = False) -> Image.Image:
    """Return an image as `read_image` does: mode `L`.

    Args:
        image: of any mode.
        bits: see `read_image`.
        name: what an error calls it.
        wide: whether its colors had 16 bits in its file.

    Raises:
        BadImageError: its values cannot be brought to 8 bits, or it is fully transparent.
    """
    if image.mode == "F":
        raise bad_image(name, "of floating-point values; store it as 16-bit gray")
    if image.mode.startswith("I"):  # 16-bit gray; Pillow's own conversion would clip at 255
        unused = max((bits or _bit_depth(image)) - 8, 0)
        return Image.fromarray((_read_16bit(image) >> unused).clip(0, 255).astype(np.uint8))
    if wide:
        _check_16bit(image, name)
    if image.has_transparency_data:
        seen = image.convert("RGBA")
        if seen.getchannel("A").getextrema() == (0, 0):
            raise bad_image(name, "fully transparent")
        image = Image.alpha_composite(Image.new("RGBA", seen.size, (0, 0, 0, 255)), seen)
    # palettes and the rest through RGB, which knows what their numbers mean
    return image if image.mode == "L" else image.convert("RGB").convert("L")


def _check_16bit(image: Image.Image, name: Path | str) -> None:
    """Refuse 16-bit colors that use few of their bits: of such Pillow reads the upper eight alone."""
    used = 8 + int(np.asarray(image.convert("RGB")).max()).bit_length()
    if used < MIN_BITS:
        raise bad_image(name, f"16 bits a color that uses only {used} or fewer of them; store it as gray")


def decode_and_resize(content: bytes, name: Path | str, frame: ResizeSpec, bits: int) -> bytes:
    """Return what a store keeps of an image file's bytes: the gray values in a square.

    Raises:
        BadImageError: they cannot be read as an image, or all of it is one value.
    """
    image = decode_image(content, name, bits)
    check_not_blank(image, name)
    return frame.apply(image).tobytes()


def decode_originals(
    paths: dict[str, str], frame: ResizeSpec, bits: dict[str, int], ids: Sequence[str]
) -> Pixels:
    """Read and fit the images of `ids` from their files, of `bits` each: uint8 [B, side, side]."""
    return np.stack([frame.apply(read_radiograph(paths[i], bits[i])) for i in ids])
