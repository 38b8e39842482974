from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from boneage_pl.data.images.decode import BadImageError, read_image
from boneage_pl.data.images.resize import ResizeSpec
from boneage_pl.model.input_spec import InputSpec, Normalize


def published(size: int) -> v2.Compose:
    """The pipeline as the description prints it, for any size, without the flip."""
    return v2.Compose(
        [
            v2.Resize(size),
            v2.CenterCrop(size),
            v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True)]),
            v2.Normalize(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225]),
        ]
    )


def ours(path: Path, size: int) -> torch.Tensor:
    pixels = ResizeSpec(size).apply(read_image(path))
    return Normalize(InputSpec())(torch.from_numpy(pixels.copy())[None, None])[0]


RNG = np.random.default_rng(0)


def noise(height: int, width: int, channels: int = 1) -> np.ndarray:
    return RNG.integers(0, 256, (height, width, channels), dtype=np.uint8).squeeze()


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


def _saved(kind: str, path: Path) -> Image.Image:
    """Save an image of one kind and return the gray values that a person sees."""
    rgb = noise(140, 150, 3)
    gray = noise(140, 150)
    as_gray = Image.fromarray(gray)
    if kind == "RGB":
        Image.fromarray(rgb).save(path)
        return Image.fromarray(rgb).convert("L")
    if kind == "palette":
        paletted = Image.fromarray(rgb).quantize(64)
        paletted.save(path)
        return paletted.convert("RGB").convert("L")
    if kind == "alpha":
        alpha = np.full((140, 150), 255, np.uint8)
        alpha[:70] = 0  # what lies under full transparency is not seen
        Image.fromarray(np.dstack([rgb, alpha])).save(path)
        return Image.fromarray(np.where(alpha[..., None] > 0, rgb, 0).astype(np.uint8)).convert("L")
    if kind == "gray alpha":
        Image.merge("LA", [Image.fromarray(gray), Image.new("L", (150, 140), 255)]).save(path)
        return as_gray
    if kind == "16 bit":
        Image.fromarray(gray.astype(np.uint16) * 257).save(path)
        return as_gray
    if kind == "1 bit":
        Image.fromarray(gray).convert("1").save(path)
        return Image.fromarray(gray).convert("1").convert("L")
    raise AssertionError(kind)


@pytest.mark.parametrize("kind", ["RGB", "palette", "alpha", "gray alpha", "16 bit", "1 bit"])
def test_image_modes_become_displayed_gray(tmp_path: Path, kind: str):
    seen = _saved(kind, tmp_path / "x.png")
    assert torch.equal(ours(tmp_path / "x.png", 128), published(128)(seen.convert("RGB")))


def test_jpeg_orientation_is_applied(tmp_path: Path):
    picture = Image.fromarray(noise(100, 160)).resize((160, 100))
    exif = picture.getexif()
    exif[0x0112] = 6  # stored lying on its side
    picture.save(tmp_path / "x.jpg", exif=exif)
    assert read_image(tmp_path / "x.jpg").size == (100, 160)


@pytest.mark.parametrize("content", [b"", b"not an image", b"\x89PNG\r\n\x1a\n" + b"\0" * 40])
def test_non_image_file_is_named(tmp_path: Path, content: bytes):
    (tmp_path / "x.png").write_bytes(content)
    with pytest.raises(BadImageError, match=r"x\.png: (an empty file|no PNG or JPEG|damaged in its header)"):
        read_image(tmp_path / "x.png")
