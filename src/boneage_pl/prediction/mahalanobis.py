"""Distances from a distribution of points, and a limit that new points keep."""

from dataclasses import dataclass
from math import comb, inf

import numpy as np
import torch
from numpy.typing import NDArray

# All numbers are our choices, see docs/PREDICTION.md.
_COVERAGE = 0.975  # of new images that each limit lets pass: both flag under 5 %
_CONFIDENCE = 0.95  # that it does, however few the validation images are
_MIN_VARIANCE = 1e-6  # of a variance, where points do not differ

Values = NDArray[np.float32]


@dataclass
class LowRankGaussian:
    """Probabilistic principal components of standardized points (Tipping and Bishop, J R Stat Soc B 1999).

    A Mahalanobis distance whose small variances are replaced by their mean; of features, it is large
    for images unlike those of the training (Lee et al., NeurIPS 2018).

    Args:
        mean: [D].
        scale: [D], each coordinate's deviation.
        directions: [D, K], orthonormal.
        variances: [K] along them.
        residual_variance: mean variance in the other directions; 0 where there are none.
        limit: the distance beyond which a point is none of them.
    """

    mean: Values
    scale: Values
    directions: Values
    variances: Values
    residual_variance: float
    limit: float = inf

    @classmethod
    def fit(cls, points: Values, others: Values, rank: int) -> "LowRankGaussian":
        """Fit points [N, D], with the limit that others [M, D] like them, and new ones, keep."""
        mean, scale = points.mean(0), points.std(0)
        scale = np.maximum(scale, 1e-4 * scale.max() + 1e-12)
        scaled = torch.from_numpy((points - mean) / scale)
        rank = min(rank, points.shape[1], len(points) // 4)
        with torch.random.fork_rng(devices=[]):  # it begins with random directions: always the same
            torch.manual_seed(0)
            _, spread, vectors = torch.svd_lowrank(scaled, q=min(rank + 16, *scaled.shape), niter=4)
        variances = (spread[:rank] ** 2 / (len(points) - 1)).clamp(min=_MIN_VARIANCE)
        left = points.shape[1] - rank
        rest = max(float(scaled.var(0).sum() - variances.sum()) / left, _MIN_VARIANCE) if left else 0.0
        found = cls(mean, scale, vectors[:, :rank].contiguous().numpy(), variances.numpy(), rest)
        found.limit = tolerance_limit(found.mahalanobis(others))
        return found

    def standardize(self, points: Values) -> Values:
        """Return points [N, D] in deviations from the mean."""
        return (points - self.mean) / self.scale

    def mahalanobis(self, points: Values) -> Values:
        """Return the distance of points [N, D], [N]; 1 is usual."""
        scaled = self.standardize(points)
        along = scaled @ self.directions
        square = (along**2 / self.variances).sum(1)
        if self.residual_variance:
            square = square + ((scaled**2).sum(1) - (along**2).sum(1)).clip(0) / self.residual_variance
        return np.sqrt(square / self.mean.size)


def tolerance_limit(distances: Values) -> float:
    """Return what `_COVERAGE` of new distances stay within, with `_CONFIDENCE`: [M] → a limit.

    One-sided and distribution-free (Wilks, Ann Math Stat 1941): if the share beyond were larger, so few of
    these would hardly be beyond. Of fewer than 119 it is the largest, which promises less.
    """
    count, beyond, probability = len(distances), -1, 0.0
    while probability <= 1 - _CONFIDENCE:  # of so few beyond
        beyond += 1
        probability += comb(count, beyond) * (1 - _COVERAGE) ** beyond * _COVERAGE ** (count - beyond)
    return float(np.sort(distances)[-max(beyond, 1)])
