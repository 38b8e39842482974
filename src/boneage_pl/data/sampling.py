"""How many training rows each group gets.

A sampling is called with how many training images each group has, int64 [G], and how many rows are wanted in
all, and returns how many of them come from each group, int64 [G]; a group's images are repeated as needed.
"""

from collections.abc import Callable

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
