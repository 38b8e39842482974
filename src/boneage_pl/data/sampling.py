"""How many training rows each group gets.

A sampling is called with how many training images each group has, int64 [G], and how many rows are wanted in
all, and returns how many of them come from each group, int64 [G]; a group's images are repeated as needed.
`balanced` rows of the protocols `published` and `disjoint` are drawn once, as published; any others are
redrawn each epoch, so that all images are seen.
"""

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from boneage_pl.errors import BoneAgeError

Counts = NDArray[np.int64]
Sampling = Callable[[Counts, int], Counts]


def balanced(images: Counts, rows: int) -> Counts:
    """Draw as many from every group: as published."""
    return np.full_like(images, rows // len(images))


def proportional(images: Counts, rows: int) -> Counts:
    """Draw from every group by its share of the images."""
    return _apportion(images.astype(np.float64), rows)


def sqrt(images: Counts, rows: int) -> Counts:
    """Draw from every group in proportion to the square root of its images: between natural and balanced."""
    return _apportion(np.sqrt(images), rows)


def all_images(images: Counts, _rows: int) -> Counts:
    """Draw every image once."""
    return images


def _apportion(weights: NDArray[np.float64], rows: int) -> Counts:
    """Share rows in proportion to weights, whole, by the largest remainders; each group has one at least."""
    exact = weights / weights.sum() * rows
    counts = np.maximum(np.floor(exact).astype(np.int64), 1)
    missing = rows - counts.sum()
    if missing > 0:
        counts[np.argsort(counts - exact, kind="stable")[:missing]] += 1
    return counts


def rows_per_group(sampling: Sampling, images: Counts, rows: int) -> Counts:
    """Return what a sampling draws.

    Raises:
        BoneAgeError: it is not a number of rows for each group, or no row at all.
    """
    drawn = np.asarray(sampling(images, rows))
    whole = drawn.shape == images.shape and np.issubdtype(drawn.dtype, np.integer)
    if not whole or (drawn < 0).any() or not drawn.sum():
        raise BoneAgeError(
            f"sampling: of groups with {images.tolist()} images it draws {drawn.tolist()} rows; it must be a "
            "whole number of 0 or more for each group, and not 0 for all."
        )
    return drawn.astype(np.int64)


def draw_rows(groups: Counts, draws: Mapping[int, int], seed: int, epoch: int) -> Counts:
    """Draw the rows of an epoch: the next of each group in an endless series of its permutations.

    So each of its images comes up as often as the others, over all epochs.

    Args:
        groups: of the rows to draw from, [N].
        draws: how many rows of each group.
        seed: of the permutations.
        epoch: from 0.

    Example:
        >>> draw_rows(np.array([0, 0, 0, 1]), {0: 2, 1: 1}, seed=0, epoch=0).shape
        (3,)
    """
    parts = []
    for group, count in draws.items():
        rows = np.flatnonzero(groups == group)
        begun, skipped = divmod(epoch * count, max(len(rows), 1))
        rounds = range(begun, begun - (-(skipped + count) // max(len(rows), 1)))
        order = [np.random.default_rng([seed, group, turn]).permutation(rows) for turn in rounds]
        parts.append(np.concatenate(order)[skipped : skipped + count] if order else rows[:0])
    return np.concatenate(parts)
