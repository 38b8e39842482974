"""Mahalanobis distance of a low-rank Gaussian, with a tolerance limit."""

from dataclasses import dataclass
from math import comb, inf

import numpy as np
import torch
from numpy.typing import NDArray

# All numbers are our choices, see docs/PREDICTION.md.
_COVERAGE = 0.975  # share of new images within each limit, so that both flag under 5 %
_CONFIDENCE = 0.95  # of this coverage, given the number of validation images
_MIN_VARIANCE = 1e-6  # for constant coordinates

Values = NDArray[np.float32]


@dataclass
class LowRankGaussian:
    """Probabilistic PCA of standardized points (Tipping and Bishop, J R Stat Soc B 1999).

    Its Mahalanobis distance of features detects out-of-distribution images (Lee et al., NeurIPS 2018).

    Args:
        mean: [D].
        scale: [D], standard deviation of each coordinate.
        directions: [D, K], orthonormal.
        variances: [K], along the directions.
        residual_variance: mean variance in the other directions; 0 if there are none.
        limit: largest in-distribution distance.
    """

    mean: Values
    scale: Values
    directions: Values
    variances: Values
    residual_variance: float
    limit: float = inf

    @classmethod
    def fit(cls, points: Values, held_out: Values, rank: int) -> "LowRankGaussian":
        """Fit to points [N, D], with the tolerance limit of held-out points [M, D]."""
        mean, scale = points.mean(0), points.std(0)
        scale = np.maximum(scale, 1e-4 * scale.max() + 1e-12)
        scaled = torch.from_numpy((points - mean) / scale)
        rank = min(rank, points.shape[1], len(points) // 4)
        with torch.random.fork_rng(devices=[]):  # svd_lowrank starts from random directions
            torch.manual_seed(0)
            _, spread, vectors = torch.svd_lowrank(scaled, q=min(rank + 16, *scaled.shape), niter=4)
        variances = (spread[:rank] ** 2 / (len(points) - 1)).clamp(min=_MIN_VARIANCE)
        left = points.shape[1] - rank
        rest = max(float(scaled.var(0).sum() - variances.sum()) / left, _MIN_VARIANCE) if left else 0.0
        fitted = cls(mean, scale, vectors[:, :rank].contiguous().numpy(), variances.numpy(), rest)
        fitted.limit = tolerance_limit(fitted.mahalanobis(held_out))
        return fitted

    def standardize(self, points: Values) -> Values:
        """Standardize points [N, D] by mean and scale."""
        return (points - self.mean) / self.scale

    def mahalanobis(self, points: Values) -> Values:
        """Return the distances of points, normalized so that 1 is typical: [N, D] → [N]."""
        scaled = self.standardize(points)
        along = scaled @ self.directions
        square = (along**2 / self.variances).sum(1)
        if self.residual_variance:
            square = square + ((scaled**2).sum(1) - (along**2).sum(1)).clip(0) / self.residual_variance
        return np.sqrt(square / self.mean.size)


def tolerance_limit(distances: Values) -> float:
    """Return the upper tolerance limit for `_COVERAGE` of new distances with `_CONFIDENCE`: [M] → limit.

    One-sided and distribution-free (Wilks, Ann Math Stat 1941). With fewer than 119 distances it is the
    largest, at a lower confidence.
    """
    count, beyond, probability = len(distances), -1, 0.0
    while probability <= 1 - _CONFIDENCE:
        beyond += 1
        probability += comb(count, beyond) * (1 - _COVERAGE) ** beyond * _COVERAGE ** (count - beyond)
    return float(np.sort(distances)[-max(beyond, 1)])
