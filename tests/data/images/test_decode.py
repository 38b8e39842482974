"""Decoding of image files and images in memory, and equality with the published tensors."""

import zlib
from io import BytesIO
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torchvision.transforms import v2

from boneage_pl.data.images.checks import BadImageError
from boneage_pl.data.images.radiograph import decode_radiograph, load_radiograph
from boneage_pl.data.images.resize import ResizeSpec
from boneage_pl.model.input_spec import InputSpec, Normalize
from tests.helpers.dicom_files import ramp

RNG = np.random.default_rng(0)


def noise(height: int, width: int, channels: int = 1) -> NDArray[np.uint8]:
    return RNG.integers(0, 256, (height, width, channels), dtype=np.uint8).squeeze()


def encode(image: Image.Image, kind: str, **options: object) -> bytes:
    file = BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def gray(content: bytes) -> NDArray[np.int64]:
    return np.asarray(decode_radiograph(content, "x").image).astype(int)


def reason(content: bytes) -> str:
    with pytest.raises(BadImageError) as error:
        decode_radiograph(content, "x")
    return error.value.reason


# the published tensors


def published(size: int) -> v2.Compose:
    """Return the published transforms, for any size, without the flip."""
    return v2.Compose(
        [
            v2.Resize(size),
            v2.CenterCrop(size),
            v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True)]),
            v2.Normalize(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225]),
        ]
    )


def ours(path: Path, size: int) -> torch.Tensor:
    pixels = ResizeSpec(size).apply(load_radiograph(path).image)
    return Normalize(InputSpec())(torch.from_numpy(pixels.copy())[None, None])[0]


SHAPES = [(700, 611), (301, 499), (128, 128), (90, 131), (61, 60), (500, 501), (501, 500), (40, 900)]


@pytest.mark.parametrize("size", [107, 128, 500])
@pytest.mark.parametrize("shape", SHAPES)
def test_gray_image_gives_published_tensor(tmp_path: Path, size: int, shape: tuple[int, int]):
    path = tmp_path / "x.png"
    Image.fromarray(noise(*shape)).save(path)
    theirs = published(size)(Image.open(path).convert("RGB"))
    assert theirs.shape == (3, size, size)
    assert torch.equal(ours(path, size), theirs)


@pytest.mark.parametrize("shape", SHAPES)
def test_cached_pixels_equal_torchvision_resize_and_crop(shape: tuple[int, int]):
    image = Image.fromarray(noise(*shape))
    kept = ResizeSpec(128).apply(image)
    assert kept.dtype == np.uint8
    assert np.array_equal(kept, np.asarray(v2.CenterCrop(128)(v2.Resize(128)(image))))


GRAY, RGB = Image.fromarray(noise(140, 150)), Image.fromarray(noise(140, 150, 3))
LOWER_HALF = Image.fromarray(np.repeat(np.uint8([0, 255]), 70)[:, None].repeat(150, 1))
BLACK = Image.new("RGB", RGB.size)
MODES = {  # stored image, and expected gray values
    "RGB": (RGB, RGB.convert("L")),
    "palette": (RGB.quantize(64), RGB.quantize(64).convert("RGB").convert("L")),
    "alpha": (
        Image.merge("RGBA", [*RGB.split(), LOWER_HALF]),
        Image.composite(RGB, BLACK, LOWER_HALF).convert("L"),  # transparent pixels become black
    ),
    "gray alpha": (Image.merge("LA", [GRAY, Image.new("L", GRAY.size, 255)]), GRAY),
    "16 bit": (Image.fromarray(np.asarray(GRAY).astype(np.uint16) * 257), GRAY),
    "1 bit": (GRAY.convert("1"), GRAY.convert("1").convert("L")),
}


@pytest.mark.parametrize("kind", MODES)
def test_image_modes_become_displayed_gray(tmp_path: Path, kind: str):
    stored, seen = MODES[kind]
    stored.save(tmp_path / "x.png")
    assert torch.equal(ours(tmp_path / "x.png", 128), published(128)(seen.convert("RGB")))


# metadata and damage


def chunk(name: bytes, data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + name + data + zlib.crc32(name + data).to_bytes(4, "big")


def png(image: Image.Image, *chunks: tuple[bytes, bytes]) -> bytes:
    """Return a PNG with further chunks after its header."""
    content = encode(image, "PNG")
    return content[:33] + b"".join(chunk(*c) for c in chunks) + content[33:]


def jpeg(image: Image.Image, *segments: tuple[int, bytes]) -> bytes:
    content = encode(image, "JPEG", quality=95)
    extra = b"".join(b"\xff" + bytes([m]) + (len(d) + 2).to_bytes(2, "big") + d for m, d in segments)
    return content[:2] + extra + content[2:]


SMALL = Image.fromarray(noise(40, 40))
UPRIGHT = Image.Exif()
UPRIGHT[0x0112] = 6  # stored rotated by 90°


@pytest.mark.parametrize(
    "segments", [[(0xE1, b"Exif\0\0" + bytes(3))], [(0xED, bytes(60_000))], [(0xFE, b"\xff" * 9)]]
)
def test_jpeg_metadata_is_ignored(segments: list[tuple[int, bytes]]):
    assert np.array_equal(gray(jpeg(SMALL, *segments)), gray(jpeg(SMALL)))


def test_orientation_is_applied():
    wide = SMALL.resize((60, 40))
    for content in (encode(wide, "JPEG", exif=UPRIGHT), png(wide, (b"eXIf", UPRIGHT.tobytes()[6:]))):
        assert gray(content).shape == (60, 40)


def test_damaged_orientation_is_ignored():
    assert np.array_equal(gray(png(SMALL, (b"eXIf", bytes(5)))), np.asarray(SMALL))


def flip(content: bytes, at: int) -> bytes:
    return content[:at] + bytes([content[at] ^ 255]) + content[at + 1 :]


def wide_color(most: int) -> bytes:
    """Return a PNG of 16-bit color, which Pillow does not write, with values from 0 to `most`."""
    lines = b"".join(b"\0" + line.tobytes() for line in wide_values(most).astype(">u2"))
    header = (20).to_bytes(4, "big") * 2 + bytes([16, 2, 0, 0, 0])
    parts = (b"IHDR", header), (b"IDAT", zlib.compress(lines)), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(name, data) for name, data in parts)


def wide_values(most: int) -> NDArray[np.uint16]:
    return np.random.default_rng(0).integers(0, most + 1, (20, 20, 3)).astype(np.uint16)


PALETTE = png(SMALL.quantize(16))
TWELVE_BITS = "16-bit colors with only 12 or fewer bits in use; save it as gray"
DAMAGED = {
    "an empty file": [b""],
    "cut short": [png(SMALL)[:400], jpeg(SMALL)[:700], encode(SMALL, "TIFF")[:300]],
    "damaged in its header": [
        flip(png(SMALL), 20),
        flip(PALETTE, PALETTE.index(b"PLTE") + 5),
        b"\x89PNG\r\n\x1a\n" + bytes(40),
    ],
    "damaged": [flip(png(SMALL), 60)],
    "fully transparent": [png(Image.merge("LA", [SMALL, Image.new("L", (40, 40), 0)]))],
    "all one gray value": [png(Image.new("L", (40, 40), 7))],
    "an archive; unpack it": [b"PK\3\4" + bytes(40), b"\x1f\x8b" + bytes(40)],
    TWELVE_BITS: [wide_color(4095), imagecodecs.tiff_encode(wide_values(4095), photometric="rgb")],
    "none of PNG, JPEG, TIFF, WEBP, JPEG2000, BMP": [b"not an image"],
    "a TIFF in an unsupported layout; save it as 16-bit gray": [
        imagecodecs.tiff_encode(ramp().astype(np.float64))
    ],
}


@pytest.mark.parametrize(("kind", "content"), [(k, c) for k, contents in DAMAGED.items() for c in contents])
def test_unusable_file_is_named(kind: str, content: bytes):
    assert reason(content) == kind


@pytest.mark.parametrize("shape", [(1, 9000), (2, 60_000), (1, 60_000_000), (9000, 1)])
def test_very_narrow_image_is_cheap(shape: tuple[int, int]):
    assert "more than 32 times as long as wide" in reason(encode(Image.new("1", shape), "PNG"))


def test_huge_jpeg_claim_is_refused():
    content = imagecodecs.jpeg_encode(ramp(), bitspersample=12)
    start = content.rindex(b"\xff\xc1") + 5
    assert "64 megapixels" in reason(content[:start] + b"\xff" * 4 + content[start + 4 :])


# other formats and depths


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("PNG", {}),
        ("BMP", {}),
        ("WEBP", {"lossless": True}),
        ("JPEG2000", {}),
        ("JPEG", {}),
    ],
)
def test_files_and_memory_images_agree(kind: str, options: dict):
    content = encode(GRAY, kind, **options)
    stored = np.asarray(Image.open(BytesIO(content)).convert("L"))
    for shown in (gray(content), *(load_radiograph(p).image for p in (stored, stored[..., None]))):
        assert np.array_equal(shown, stored)
    assert kind == "JPEG" or np.array_equal(stored, GRAY)


@pytest.mark.parametrize("most", [1023, 4095, 65535])
def test_16_bit_gray_is_read_alike_from_everywhere(most: int):
    values = (ramp(16).astype(np.int64) * most // 65535).astype(np.uint16)
    bits = most.bit_length()
    for bit_depths in ([], [bits], [bits + 2]):
        used = bit_depths[0] if bit_depths else bits
        image = Image.fromarray(values)
        files = [encode(image, kind) for kind in ("PNG", "TIFF", "JPEG2000")]
        shown = [decode_radiograph(content, "x", bit_depths) for content in files]
        shown += [load_radiograph(source, bit_depths) for source in (values, image, values.astype(np.int32))]
        assert all((np.asarray(s.image) == values >> max(used - 8, 0)).all() for s in shown)
        assert {s.bit_depth for s in shown} == {bits}


def test_signed_values_begin_at_their_least():
    values = ramp().astype(np.int16) - 1000
    expected = np.asarray(load_radiograph(ramp()).image)
    offset = (ramp().astype(np.uint16) + np.uint16(2**15)).astype(np.uint16)  # with an offset of 2¹⁵
    for content in (imagecodecs.tiff_encode(values), encode(Image.fromarray(offset), "PNG")):
        assert (gray(content) == expected).all()
    assert (np.asarray(load_radiograph(values).image) == expected).all()


def test_16_bit_tiff_may_be_white_is_zero():
    image = Image.fromarray(ramp())
    assert (gray(encode(image, "TIFF", tiffinfo={262: 0})) == 255 - gray(encode(image, "TIFF"))).all()


def test_16_bit_color_is_read_from_its_upper_bits():
    values = wide_values(65535)
    expected = np.asarray(Image.fromarray((values >> 8).astype(np.uint8)).convert("L"))
    assert (gray(wide_color(65535)) == expected).all()
    assert (np.asarray(load_radiograph(values).image) == expected).all()
    with pytest.raises(BadImageError, match=TWELVE_BITS):
        load_radiograph(wide_values(4095))


@pytest.mark.parametrize(
    "stream",
    [
        imagecodecs.jpeg_encode(ramp(), bitspersample=12, level=100),
        imagecodecs.jpeg_encode(ramp(), bitspersample=12, lossless=True, predictor=1),
        imagecodecs.jpegls_encode(ramp()),
    ],
    ids=["12 bits", "lossless", "JPEG-LS"],
)
def test_jpeg_that_pillow_does_not_read(stream: bytes, monkeypatch: pytest.MonkeyPatch):
    for padding in (b"", b"\0", b"\xff"):
        assert np.abs(gray(stream + padding) - (ramp() >> 4)).max() <= 1
    assert reason(stream[:-20]) == "cut short"
    monkeypatch.setitem(__import__("sys").modules, "imagecodecs", None)
    assert "pip install 'boneage_pl[dicom]'" in reason(stream)


def test_jpeg_header_that_yields_no_pixels_is_damaged():
    stream = imagecodecs.jpeg_encode(ramp(), bitspersample=12)
    table = b"\x18\x00\x01\x00\x03\x01"
    assert reason(stream.replace(table, table[:-1] + b"\x0b")) == "damaged"


def test_tiff_page_that_is_no_thumbnail_is_read():
    page, small = Image.fromarray(ramp(8).astype(np.uint8)), Image.fromarray(noise(48, 32))
    both = encode(page, "TIFF", save_all=True, append_images=[small])
    assert (gray(both) == np.asarray(page)).all()
    both = encode(small, "TIFF", save_all=True, append_images=[page])
    assert (gray(both) == np.asarray(page)).all()
    for other in (page, small.resize((32, 32))):
        both = encode(page, "TIFF", save_all=True, append_images=[other])
        assert reason(both) == "a TIFF of 2 pages; one is expected"


def test_values_that_are_no_gray_levels_are_refused():
    assert "floating-point" in reason(encode(Image.fromarray(np.ones((40, 40), np.float32)), "TIFF"))
    for array in (np.ones((40, 40)), np.ones((40, 40, 5), np.uint8), np.ones((40, 40, 3), np.int16)):
        with pytest.raises(BadImageError, match="must be uint8 or uint16"):
            load_radiograph(array)
