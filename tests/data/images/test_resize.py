import numpy as np
import pytest
from PIL import Image

from boneage_pl.data.images.resize import ResizeSpec
from boneage_pl.errors import BoneAgeError

TALL = np.full((300, 200), 50, np.uint8)
TALL[:100] = 250  # the upper third


@pytest.mark.parametrize("turned", [False, True])
def test_pad_keeps_whole_image_on_black(turned: bool):
    pixels = TALL.T if turned else TALL
    square = ResizeSpec(90, "pad").apply(Image.fromarray(pixels))
    square = square.T if turned else square
    assert square.shape == (90, 90)
    assert (square[:, :15] == 0).all()
    assert (square[:, 75:] == 0).all()
    assert (square[:28, 15:75] == 250).all()
    assert (square[32:, 15:75] == 50).all()


def test_stretch_fills_square():
    square = ResizeSpec(90, "stretch").apply(Image.fromarray(TALL))
    assert (square[:28] == 250).all()
    assert (square[32:] == 50).all()


def test_crop_keeps_middle():
    square = ResizeSpec(90).apply(Image.fromarray(TALL))  # 135 rows become 90: 22 are cut off at each end
    assert (square[:20] == 250).all()
    assert (square[25:] == 50).all()


@pytest.mark.parametrize("shape", [(1, 40), (40, 1), (90, 90), (90, 30), (31, 97)])
@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
def test_resize_accepts_any_shape(shape: tuple[int, int], fit: str):
    square = ResizeSpec(90, fit).apply(Image.fromarray(np.full(shape, 7, np.uint8)))
    assert square.shape == (90, 90)
    assert square.max() == 7


@pytest.mark.parametrize("size", [(300, 200), (200, 300), (200, 200)])
@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
def test_visible_box_matches_pixels(size: tuple[int, int], fit: str):
    """Pixel values encode the position along the longer side."""
    width, height = size
    along = np.linspace(0, 255, max(size))
    pixels = np.tile(along, (min(size), 1)) if width >= height else np.tile(along[:, None], (1, width))
    shown = ResizeSpec(100, fit).apply(Image.fromarray(pixels.astype(np.uint8)))
    shown = shown if width >= height else shown.T
    left, top, wide, high = ResizeSpec(100, fit).visible_box(width, height)
    start, length = (left, wide) if width >= height else (top, high)
    assert shown[50, 99] == pytest.approx(255 * (start + length), abs=3)
    assert shown[50, 0] == pytest.approx(255 * start, abs=3)
    assert {left, top} >= {0.0}  # the other side is not cropped
    assert max(wide, high) == 1


def test_resize_spec_names_are_unique():
    assert [str(ResizeSpec(107, fit)) for fit in ("crop", "pad", "stretch")] == [
        "107",
        "pad-107",
        "stretch-107",
    ]
    with pytest.raises(BoneAgeError, match=r"data\.resize_mode=squeeze"):
        ResizeSpec(107, "squeeze")


def test_resampling_methods_differ_when_reducing_only():
    y, x = np.mgrid[:200, :200] / 200
    image = Image.fromarray((150 * np.exp(-((x - 0.35) ** 2 + (y - 0.6) ** 2) * 12) + 40).astype(np.uint8))
    published = ResizeSpec(50).apply(image).astype(int)
    for resampling in ("lanczos", "plain"):
        other = ResizeSpec(50, resampling=resampling).apply(image).astype(int)
        assert 0 < np.abs(other - published).max() < 8  # for a smooth image
    enlarged = ResizeSpec(300, resampling="plain").apply(image).astype(int) - ResizeSpec(300).apply(image)
    assert np.abs(enlarged).max() <= 2  # differences in rounding
