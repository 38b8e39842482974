"""Size limits and errors of images that cannot be used as radiographs."""

import struct
import zlib
from pathlib import Path

from PIL import Image

from boneage_pl.errors import BoneAgeError

MAX_PIXELS = 64 * 2**20  # pixels; our choice: film of 35 × 43 cm scanned at 600 dpi has 80 % of this
MAX_ASPECT = 32  # length by width; our choice
MAX_FILE_BYTES = 2**29  # our choice: `MAX_PIXELS` with four 16-bit channels, uncompressed
BLANK_IMAGE = "all one gray value"

# raised by Pillow for files that are no images, truncated, or damaged
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
    """A file that cannot be used as a radiograph; `reason` is the kind of problem."""

    reason = "damaged"


def bad_image(name: Path | str, kind: str) -> BadImageError:
    """Return the error of a file with a kind of problem."""
    # a single argument, so that it can be pickled
    error = BadImageError(f"{name}: {kind}.\nGet the file again, or remove its row from the table.")
    error.reason = kind
    return error


def check_size(width: int, height: int, name: Path | str) -> None:
    """Raise `BadImageError` for an image that is too large or too narrow."""
    if width * height > MAX_PIXELS:
        raise too_large(name)
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise bad_image(name, f"more than {MAX_ASPECT} times as long as wide")


def too_large(name: Path | str) -> BadImageError:
    """Return the error of an image of more than `MAX_PIXELS`."""
    return bad_image(name, f"more than {MAX_PIXELS >> 20} megapixels, too large for a radiograph")


def check_not_blank(image: Image.Image, name: Path | str) -> None:
    """Raise `BadImageError` for a gray image with a single value."""
    darkest, brightest = image.getextrema()
    if darkest == brightest:
        raise bad_image(name, BLANK_IMAGE)
