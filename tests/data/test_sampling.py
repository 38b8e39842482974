import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from boneage_pl.data.sampling import all_images, balanced, draw_rows, proportional, sqrt

groups = st.lists(st.integers(1, 900), min_size=1, max_size=20).map(np.array)


@given(images=groups, each=st.integers(1, 400))
def test_proportional_and_sqrt_apportion_all_rows(images: np.ndarray, each: int):
    rows = each * len(images)
    assert balanced(images, rows).sum() == rows
    for sampling, weights in ((proportional, images), (sqrt, np.sqrt(images))):
        drawn = sampling(images, rows)
        exact = weights / weights.sum() * rows
        assert drawn.min() >= 1
        assert rows <= drawn.sum() <= rows + (exact < 1).sum()
        assert np.abs(drawn - exact).max() < 1 or (exact < 1).any()


def test_sqrt_lies_between_proportional_and_balanced():
    images = np.array([4, 400])
    assert balanced(images, 110).tolist() == [55, 55]
    assert sqrt(images, 110).tolist() == [10, 100]
    assert proportional(images, 101).tolist() == [1, 100]


def test_all_images_takes_each_once():
    assert all_images(np.array([4, 400]), 10).tolist() == [4, 400]


@pytest.mark.parametrize("sampling", [proportional, sqrt])
def test_small_group_is_kept(sampling):
    assert sampling(np.array([1, 100_000]), 20).min() == 1


@given(
    sizes=st.lists(st.integers(1, 30), min_size=1, max_size=5),
    each=st.integers(1, 40),
    seed=st.integers(0, 9),
)
def test_drawn_rows_come_up_equally_often(sizes: list[int], each: int, seed: int):
    groups = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(sizes)), sizes))
    draws = dict.fromkeys(range(len(sizes)), each)
    epochs = [draw_rows(groups, draws, seed, epoch) for epoch in range(7)]
    assert all(np.bincount(groups[rows]).tolist() == [each] * len(sizes) for rows in epochs)
    times = np.bincount(np.concatenate(epochs), minlength=len(groups))
    for group in range(len(sizes)):
        assert np.ptp(times[groups == group]) <= 1
    assert np.array_equal(draw_rows(groups, draws, seed, 3), epochs[3])
