"""Decode JPEG, JPEG-LS and JPEG 2000 streams of up to 16 bits by imagecodecs."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

CUT_SHORT = "stream cut short"
JPEG_MAGIC = b"\xff\xd8"
JPEG_2000_MAGIC = b"\xff\x4f\xff\x51", b"\0\0\0\x0cjP  "
_END, _PADDING = b"\xff\xd9", b"\0\xff"
_JPEG_LS = 0xF7
_STARTS_OF_FRAME = {*range(0xC0, 0xD0), _JPEG_LS} - {0xC4, 0xC8, 0xCC}  # ITU-T T.81 table B.1 and T.87


def read_jpeg_header(stream: bytes) -> tuple[int, int, int, int]:
    """Return the start-of-frame marker, bits, width and height of a JPEG or JPEG-LS stream.

    Raises:
        ValueError: the stream has no start of frame.
    """
    at = len(JPEG_MAGIC)
    while stream.startswith(JPEG_MAGIC) and stream[at : at + 1] == b"\xff" and at + 9 <= len(stream):
        if stream[at + 1] in _STARTS_OF_FRAME:
            height, width = (int.from_bytes(stream[at + k : at + k + 2], "big") for k in (5, 7))
            return stream[at + 1], stream[at + 4], width, height
        at += 2 + int.from_bytes(stream[at + 2 : at + 4], "big")
    raise ValueError("no start of frame")


def decode_codestream(stream: bytes) -> NDArray[Any]:
    """Decode a stream by its first bytes: unsigned or signed integers, [H, W] or RGB [H, W, 3].

    Raises:
        ImportError: imagecodecs is not installed.
        ValueError: another format, or damaged.
    """
    import imagecodecs

    decode: Callable[[bytes], Any] = imagecodecs.jpeg2k_decode
    try:
        if not stream.startswith(JPEG_2000_MAGIC):
            is_jpeg_ls = read_jpeg_header(stream)[0] == _JPEG_LS
            decode = imagecodecs.jpegls_decode if is_jpeg_ls else imagecodecs.jpeg_decode
            if not stream.rstrip(_PADDING).endswith(_END):  # the decoders would fill in missing data
                raise ValueError(CUT_SHORT)
        values = np.asarray(decode(stream))
    except RuntimeError as error:  # raised by imagecodecs
        raise ValueError(str(error)) from error
    if not values.size:  # for some damaged headers
        raise ValueError("damaged")
    return values
