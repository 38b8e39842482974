"""Effects of the corruptions; their transforms are tested elsewhere."""

import numpy as np
import pytest

from boneage_pl.data import corruptions
from boneage_pl.data.corruptions import CORRUPTIONS


def images(side: int = 64) -> np.ndarray:
    """Return two asymmetric images: off-center hills on a slope."""
    y, x = np.mgrid[:side, :side] / side
    hills = [150 * np.exp(-((x - at) ** 2 + (y - 0.6) ** 2) * 12) for at in (0.35, 0.6)]
    return np.stack([hill + 40 + 30 * x for hill in hills]).astype(np.uint8)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_corruptions_are_pure_functions_of_each_image(name: str):
    given = images()
    given[:, 20:23, 20:40] = 255  # an edge, which blur changes
    before = given.copy()
    once = CORRUPTIONS[name](given)
    assert once.dtype == np.uint8
    assert once.shape == given.shape
    assert np.array_equal(CORRUPTIONS[name](given), once)
    assert np.array_equal(CORRUPTIONS[name](given[1]), once[1])
    assert np.array_equal(given, before)
    assert (once != given).any((1, 2)).all()


def test_geometry_is_exact_where_it_can_be():
    given = images()
    assert np.array_equal(CORRUPTIONS["rotated by 90°"](given), np.rot90(given, axes=(1, 2)))
    assert np.array_equal(CORRUPTIONS["rotated by 180°"](given), given[:, ::-1, ::-1])
    assert np.array_equal(CORRUPTIONS["mirrored"](given), given[:, :, ::-1])
    back = corruptions.rotation(-30)(corruptions.rotation(30)(given))
    middle = slice(16, 48)
    assert np.abs(back[:, middle, middle].astype(int) - given[:, middle, middle]).max() <= 3
    assert not corruptions.rotation(30)(given)[:, 0, 0].any()  # black outside the image
    framed = CORRUPTIONS["inside a black frame"](given)
    assert framed[:, :8].max() == framed[:, :, -8:].max() == 0
    assert framed[:, 8:-8, 8:-8].mean() == pytest.approx(given.mean(), abs=1)


def test_gray_values_change_as_defined():
    given = images()
    assert np.array_equal(CORRUPTIONS["darker"](given), np.rint(given * 0.6))
    assert CORRUPTIONS["brighter"](given).max() == 255  # clipped, not wrapped around
    assert np.array_equal(CORRUPTIONS["inverted"](given), 255 - given)
    for name, factor in {"low contrast": 0.5, "high contrast": 1.5}.items():
        changed = CORRUPTIONS[name](given)
        assert changed.mean() == pytest.approx(given.mean(), abs=3)
        assert changed.std() == pytest.approx(given.std() * factor, rel=0.1)
    gray = np.full((1, 64, 64), 100, np.uint8)
    assert CORRUPTIONS["noisy"](gray).std() == pytest.approx(15, rel=0.05)
    marked = CORRUPTIONS["with a marker"](given)
    assert marked[:, :16, :16].max() == 255
    assert np.array_equal(marked[:, 16:], given[:, 16:])
    assert np.array_equal(marked[:, :, 16:], given[:, :, 16:])
