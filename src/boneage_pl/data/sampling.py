"""Number of training rows per group.

A sampler maps the number of training images per group, int64 [G], and the total number of rows to the number
of rows per group, int64 [G]; images are repeated as needed. With `balanced` and the protocols `published` and
`disjoint`, rows are drawn once, as published; otherwise they are redrawn each epoch, so that all images are
used.
"""

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from boneage_pl.errors import BoneAgeError

Counts = NDArray[np.int64]
Sampling = Callable[[Counts, int], Counts]


def balanced(images: Counts, rows: int) -> Counts:
    """Draw equally from every group (published)."""
    return np.full_like(images, rows // len(images))


def proportional(images: Counts, rows: int) -> Counts:
    """Draw from every group in proportion to its images."""
    return _apportion(images.astype(np.float64), rows)


def sqrt(images: Counts, rows: int) -> Counts:
    """Draw from every group in proportion to the square root of its images."""
    return _apportion(np.sqrt(images), rows)


def all_images(images: Counts, _rows: int) -> Counts:
    """Draw every image once."""
    return images


def _apportion(weights: NDArray[np.float64], rows: int) -> Counts:
    """Divide rows in proportion to weights by largest remainders, with at least one per group."""
    exact = weights / weights.sum() * rows
    counts = np.maximum(np.floor(exact).astype(np.int64), 1)
    missing = rows - counts.sum()
    if missing > 0:
        counts[np.argsort(counts - exact, kind="stable")[:missing]] += 1
    return counts


def rows_per_group(sampling: Sampling, images: Counts, rows: int) -> Counts:
    """Return the rows per group of a sampler.

    Raises:
        BoneAgeError: invalid numbers, or no rows.
    """
    drawn = np.asarray(sampling(images, rows))
    whole = drawn.shape == images.shape and np.issubdtype(drawn.dtype, np.integer)
    if not whole or (drawn < 0).any() or not drawn.sum():
        raise BoneAgeError(
            f"sampler: for groups with {images.tolist()} images it returned {drawn.tolist()} rows; these "
            "must be non-negative integers, one per group, and not all 0."
        )
    return drawn.astype(np.int64)


def draw_rows(groups: Counts, draws: Mapping[int, int], seed: int, epoch: int) -> Counts:
    """Draw the rows of an epoch from an endless sequence of permutations of each group.

    Over all epochs, the images of a group are drawn equally often.

    Args:
        groups: group of each row, [N].
        draws: number of rows per group.
        seed: of the permutations.
        epoch: from 0.

    Example:
        >>> draw_rows(np.array([0, 0, 0, 1]), {0: 2, 1: 1}, seed=0, epoch=0).shape
        (3,)
    """
    parts = []
    for group, count in draws.items():
        rows = np.flatnonzero(groups == group)
        first, skipped = divmod(epoch * count, max(len(rows), 1))
        rounds = range(first, first - (-(skipped + count) // max(len(rows), 1)))
        order = [np.random.default_rng([seed, group, turn]).permutation(rows) for turn in rounds]
        parts.append(np.concatenate(order)[skipped : skipped + count] if order else rows[:0])
    return np.concatenate(parts)
