"""What each change does to pixels."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from boneage_pl.data import corruptions
from boneage_pl.data.corruptions import CORRUPTIONS
from boneage_pl.data.images.resize import ResizeSpec


def picture(side: int = 64) -> np.ndarray:
    """A smooth hill off the middle, on a slope: nothing of it is symmetric."""
    y, x = np.mgrid[:side, :side] / side
    hill = 150 * np.exp(-((x - 0.35) ** 2 + (y - 0.6) ** 2) * 12)
    return (hill + 40 + 30 * x).astype(np.uint8)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_corruptions_are_pure_functions(name: str):
    given = picture()
    given[20:23, 20:40] = 255  # an edge, which a blur moves
    before = given.copy()
    once, again = CORRUPTIONS[name](given), CORRUPTIONS[name](given)
    assert once.dtype == np.uint8
    assert once.shape == given.shape
    assert np.array_equal(once, again)
    assert np.array_equal(given, before)
    assert not np.array_equal(once, given)


def test_rotation_turns():
    given = picture()
    assert np.array_equal(corruptions.rotate(given, 90), np.rot90(given))
    assert np.array_equal(corruptions.rotate(given, 180), given[::-1, ::-1])
    assert np.array_equal(corruptions.flip(given), given[:, ::-1])
    back = corruptions.rotate(corruptions.rotate(given, 30), -30)
    middle = slice(16, 48)
    assert np.abs(back[middle, middle].astype(int) - given[middle, middle]).max() <= 3
    assert corruptions.rotate(given, 30)[0, 0] == 0  # what comes in from outside is black


def test_gray_values_change_as_defined():
    given = picture()
    assert np.array_equal(corruptions.zoom(given, 0.5), np.rint(given / 2))
    assert corruptions.zoom(given, 3).max() == 255  # and not 3 × 190 - 256
    assert np.array_equal(corruptions.invert(given), 255 - given)
    flat = corruptions.adjust_contrast(given, 0.5)
    assert flat.mean() == pytest.approx(given.mean(), abs=0.5)
    assert flat.std() == pytest.approx(given.std() / 2, rel=0.02)
    noise = corruptions.add_noise(given, 10) - given.astype(float)
    assert noise.std() == pytest.approx(10, rel=0.05)
    assert abs(noise.mean()) < 0.5


def test_blur_of_point_is_gaussian():
    point = np.zeros((101, 101), np.uint8)
    point[48:53, 48:53] = 255
    blurred = corruptions.blur(point, 0.04).astype(float)
    across = blurred.sum(0) / blurred.sum()
    x = np.arange(101) - 50
    assert (across * x).sum() == pytest.approx(0, abs=0.1)
    assert np.sqrt((across * x**2).sum()) == pytest.approx(np.hypot(4.04, np.sqrt(2)), rel=0.1)


def test_downsampling_without_antialiasing_loses_lines():
    lines = np.zeros((64, 64), np.uint8)
    lines[:, ::4] = 255
    assert corruptions.downsample(lines, 0.25, "plain").max() == 0
    assert corruptions.downsample(lines, 0.25)[8:-8, 8:-8].mean() == pytest.approx(255 / 4, abs=2)
    given = picture()
    theirs = F.interpolate(torch.from_numpy(given)[None, None].float(), 24, mode="bilinear")
    ours = ResizeSpec(24, resampling="plain").apply(Image.fromarray(given))
    assert np.abs(ours - theirs[0, 0].numpy()).max() < 1.01  # Pillow cuts off what PyTorch keeps


def test_resampling_methods_differ_when_reducing_only():
    image = Image.fromarray(picture(200))
    published = ResizeSpec(50).apply(image).astype(int)
    for resampling in ("lanczos", "plain"):
        other = ResizeSpec(50, resampling=resampling).apply(image).astype(int)
        assert 0 < np.abs(other - published).max() < 8  # it is a smooth picture
    enlarged = ResizeSpec(300, resampling="plain").apply(image).astype(int) - ResizeSpec(300).apply(image)
    assert np.abs(enlarged).max() <= 2  # two ways of rounding


def test_marker_lies_in_corner_and_border_around():
    given = picture()
    marked = corruptions.add_marker(given)
    assert marked[:16, :16].max() == 255
    assert np.array_equal(marked[16:], given[16:])
    assert np.array_equal(marked[:, 16:], given[:, 16:])
    framed = corruptions.add_border(given, 0.75)
    assert framed[:8].max() == framed[:, -8:].max() == 0
    assert framed[8:-8, 8:-8].mean() == pytest.approx(given.mean(), abs=1)


def test_jpeg_loses_little():
    given = picture()
    lost = np.abs(corruptions.compress_jpeg(given, 20).astype(int) - given)
    assert 0.5 < lost.mean() < 6
    assert np.abs(corruptions.compress_jpeg(given, 95).astype(int) - given).mean() < lost.mean()
