"""What of a PNG or JPEG file holds pixels: to read it without the rest, and to say what of it is damaged."""

import zlib
from collections.abc import Iterator

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
        # APP0 and APP14 say what the colours mean; the other APPs and comments hold no pixels
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
