from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from boneage_pl.data.images import IMAGENET_MEAN, IMAGENET_STD, published_transform, read_image, unnormalise
from boneage_pl.errors import BoneageError


def published(train: bool, size: int) -> v2.Compose:
    """The pipeline as the description prints it, for any size."""
    return v2.Compose(
        [
            *([v2.RandomHorizontalFlip(0.5)] if train else []),
            v2.Resize(size),
            v2.CenterCrop(size),
            v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True)]),
            v2.Normalize(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225]),
        ]
    )


RNG = np.random.default_rng(0)


def noise(height: int, width: int, channels: int = 1) -> np.ndarray:
    return RNG.integers(0, 256, (height, width, channels), dtype=np.uint8).squeeze()


@pytest.mark.parametrize("size", [128, 500])
@pytest.mark.parametrize("shape", [(700, 611), (301, 499), (128, 128), (90, 131), (61, 60)])
@pytest.mark.parametrize("train", [True, False])
def test_gray_images_give_the_published_tensor_exactly(
    tmp_path: Path, size: int, shape: tuple[int, int], train: bool
):
    path = tmp_path / "x.png"
    Image.fromarray(noise(*shape)).save(path)
    for seed in range(4 if train else 1):
        torch.manual_seed(seed)
        ours = published_transform(size, train=train)(read_image(path))
        torch.manual_seed(seed)
        theirs = published(train, size)(Image.open(path).convert("RGB"))
        assert ours.dtype == torch.float32
        assert ours.shape == (3, size, size)
        assert torch.equal(ours, theirs)


def test_training_flips_half_and_validation_never(tmp_path: Path):
    Image.fromarray(noise(120, 120)).save(tmp_path / "x.png")
    image = read_image(tmp_path / "x.png")
    plain = published_transform(120, train=False)(image)
    torch.manual_seed(0)
    train = published_transform(120, train=True)
    flipped = sum(torch.equal(train(image), plain.flip(2)) for _ in range(200))
    assert 70 < flipped < 130


def _saved(kind: str, path: Path) -> Image.Image:
    """Save an image of one kind and return what a person sees, as RGB."""
    rgb = noise(140, 150, 3)
    gray = noise(140, 150)
    as_gray = Image.fromarray(gray).convert("RGB")
    if kind == "RGB":
        Image.fromarray(rgb).save(path)
        return Image.fromarray(rgb)
    if kind == "palette":
        paletted = Image.fromarray(rgb).quantize(64)
        paletted.save(path)
        return paletted.convert("RGB")
    if kind == "alpha":
        alpha = np.full((140, 150), 255, np.uint8)
        alpha[:70] = 0  # what lies under full transparency is not seen
        Image.fromarray(np.dstack([rgb, alpha])).save(path)
        return Image.fromarray(np.where(alpha[..., None] > 0, rgb, 0).astype(np.uint8))
    if kind == "gray alpha":
        Image.merge("LA", [Image.fromarray(gray), Image.new("L", (150, 140), 255)]).save(path)
        return as_gray
    if kind == "16 bit":
        Image.fromarray(gray.astype(np.uint16) * 257).save(path)
        return as_gray
    if kind == "1 bit":
        Image.fromarray(gray).convert("1").save(path)
        return Image.fromarray(gray).convert("1").convert("RGB")
    raise AssertionError(kind)


@pytest.mark.parametrize("kind", ["RGB", "palette", "alpha", "gray alpha", "16 bit", "1 bit"])
def test_every_mode_becomes_what_a_person_sees(tmp_path: Path, kind: str):
    seen = _saved(kind, tmp_path / "x.png")
    ours = published_transform(128, train=False)(read_image(tmp_path / "x.png"))
    assert torch.equal(ours, published(False, 128)(seen))


def test_jpeg_and_its_orientation(tmp_path: Path):
    picture = Image.fromarray(noise(100, 160)).resize((160, 100))
    exif = picture.getexif()
    exif[0x0112] = 6  # stored lying on its side
    picture.save(tmp_path / "x.jpg", exif=exif)
    assert read_image(tmp_path / "x.jpg").size == (100, 160)


def test_unnormalise_undoes_the_normalisation():
    image = torch.rand(2, 3, 5, 5)
    normalised = v2.functional.normalize(image, list(IMAGENET_MEAN), list(IMAGENET_STD))
    torch.testing.assert_close(unnormalise(normalised), image)


@pytest.mark.parametrize("content", [b"", b"not an image", b"\x89PNG\r\n\x1a\n" + b"\0" * 40])
def test_a_file_that_is_no_image_is_named(tmp_path: Path, content: bytes):
    (tmp_path / "x.png").write_bytes(content)
    with pytest.raises(BoneageError, match=r"x\.png cannot be read as an image"):
        read_image(tmp_path / "x.png")
