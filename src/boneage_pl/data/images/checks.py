"""What is no radiograph: the error, and limits of size."""

import struct
import zlib
from pathlib import Path

from PIL import Image

from boneage_pl.errors import BoneAgeError

MAX_PIXELS = 64 * 2**20  # pixels; our choice: film of 35 × 43 cm scanned at 600 dpi has 80 % of it
MAX_ASPECT = 32  # times as long as wide; our choice: cut to its middle square, more shows nothing of a hand
MAX_FILE_BYTES = 2**29  # bytes; our choice: that many pixels of four 16-bit channels, not compressed
BLANK_IMAGE = "all one gray value"

# what Pillow raises for files that are no images, are cut short, or whose header is damaged
UNREADABLE = (
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


def check_size(width: int, height: int, name: Path | str) -> None:
    """Raise `BadImageError` for an image that is too large, or too narrow, for a radiograph."""
    if width * height > MAX_PIXELS:
        raise too_large(name)
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise bad_image(name, f"more than {MAX_ASPECT} times as long as wide, no shape of a radiograph")


def too_large(name: Path | str) -> BadImageError:
    """Return the error of an image of more than `MAX_PIXELS`."""
    return bad_image(name, f"more than {MAX_PIXELS >> 20} megapixels, too large for a radiograph")


def check_not_blank(image: Image.Image, name: Path | str) -> None:
    """Raise `BadImageError` for a gray image that is one value everywhere: nothing can be learned from it."""
    darkest, brightest = image.getextrema()
    if darkest == brightest:
        raise bad_image(name, BLANK_IMAGE)
