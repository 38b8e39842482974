"""Metrics and their bootstrap intervals.

All statistics accept row weights: a bootstrap draw is a weighting (how often each row was drawn), and so is a
population (children per row). The libraries with these statistics accept no weights, and scipy's bootstrap no
strata with repeated images; the tests compare unweighted results with theirs.
Arrays have N rows; ages and errors are in months; error = predicted − true.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]

WITHIN_MONTHS = (6, 12, 24)  # months
WEIGHTS_PER_CHUNK = 40_000  # rows × draws computed at once: 0.3 MB, which fits the cache
NORMAL_95 = 1.96  # two-sided 95 % quantile of the normal distribution


def mean(values: Values, weights: Values) -> Values:
    """Return the weighted mean of [..., N] over its last axis."""
    with np.errstate(divide="ignore", invalid="ignore"):  # NaN if the network diverged
        return (values * weights).sum(-1) / weights.sum(-1)


def median(values: Values, weights: Values) -> Values:
    """Return the weighted median of `values` [N] by weights [..., N]; the ordinary one if they are equal."""
    order = np.argsort(values, kind="stable")
    ascending = values[order]
    below = np.cumsum(weights[..., order], axis=-1)
    half = below[..., -1:] / 2
    here = np.minimum((below < half * (1 - 1e-12)).sum(-1), len(values) - 1)
    # if exactly half of the weight lies at or below a row: the mean of it and the next row with weight
    above = np.minimum((below <= half * (1 + 1e-12)).sum(-1), len(values) - 1)
    return (ascending[here] + ascending[above]) / 2


def agreement(true: Values, predicted: Values, weights: Values | None = None) -> dict[str, Values]:
    """Return agreement statistics of predicted and true ages, in months where they have a unit.

    - `mae`: mean absolute error, the field's MAD (mean absolute distance; Halabi et al., Radiology 2019).
    - `rmse`: root of the mean squared error.
    - `median_absolute_error`.
    - `bias`: mean error; above 0 predictions are older.
    - `error_sd`: standard deviation of the error, with N − 1.
    - `loa_low`, `loa_high`: 95 % limits of agreement, bias ∓ 1.96 s.d. (Bland and Altman, Lancet 1986).
    - `r2`: 1 − squared errors / squared deviations from the mean true age (coefficient of determination).
    - `pearson_r`: product-moment correlation.
    - `concordance`: Lin's concordance correlation coefficient, with 1/N moments (Lin, Biometrics 1989).
    - `icc`: ICC(2,1), two-way random effects, absolute agreement, one measurement (Shrout and Fleiss,
      Psychological Bulletin 1979), the model and the reference being the two raters.
    - `within_6`, `within_12`, `within_24`: share of rows with an absolute error of at most that many months.

    Args:
        true, predicted: months [N].
        weights: row weights, [..., N]; `None` for 1. Each statistic is [...].
    """
    w = np.ones_like(true) if weights is None else weights
    error = predicted - true
    with np.errstate(divide="ignore", invalid="ignore"):
        n = w.sum(-1)
        bias = mean(error, w)
        sd = np.sqrt((w * (error - bias[..., None]) ** 2).sum(-1) / np.where(n > 1, n - 1, np.nan))
        mean_true, mean_predicted = mean(true, w), mean(predicted, w)
        from_true, from_predicted = true - mean_true[..., None], predicted - mean_predicted[..., None]
        var_true, var_predicted = mean(from_true**2, w), mean(from_predicted**2, w)
        covariance = mean(from_true * from_predicted, w)
        squared = mean(error**2, w)
        return {
            "mae": mean(np.abs(error), w),
            "rmse": np.sqrt(squared),
            "median_absolute_error": median(np.abs(error), w),
            "bias": bias,
            "error_sd": sd,
            "loa_low": bias - NORMAL_95 * sd,
            "loa_high": bias + NORMAL_95 * sd,
            "r2": 1 - squared / var_true,
            "pearson_r": covariance / np.sqrt(var_true * var_predicted),
            "concordance": 2 * covariance / (var_true + var_predicted + (mean_true - mean_predicted) ** 2),
            "icc": icc(np.stack([true, predicted], axis=1), w),
            **{
                f"within_{months}": mean((np.abs(error) <= months).astype(float), w)
                for months in WITHIN_MONTHS
            },
        }


def icc(ratings: Values, weights: Values | None = None) -> Values:
    """Return ICC(2,1) of `ratings` [N targets, k raters] (Shrout and Fleiss 1979, their case 2).

    With weights [..., N] the result is [...].
    """
    w = np.ones(len(ratings)) if weights is None else weights
    n, k = w.sum(-1), ratings.shape[1]
    target_mean = ratings.mean(axis=1)
    rater_mean = np.stack([mean(column, w) for column in ratings.T])  # [k, ...]
    grand = rater_mean.mean(axis=0)
    rows = k * (w * (target_mean - grand[..., None]) ** 2).sum(-1) / (n - 1)  # mean square between targets
    columns = n * ((rater_mean - grand) ** 2).sum(0) / (k - 1)  # between raters
    residuals = [c - target_mean + (grand - r)[..., None] for c, r in zip(ratings.T, rater_mean, strict=True)]
    rest = (w * sum(part**2 for part in residuals)).sum(-1) / ((n - 1) * (k - 1))
    return (rows - rest) / (rows + (k - 1) * rest + k * (columns - rest) / n)


def with_intervals(
    statistic: Callable[[Values], dict[str, Values]],
    images: NDArray[np.int64],
    *,
    base: Values | None = None,
    strata: NDArray[np.int64] | None = None,
    count: int = 2000,
    seed: int = 0,
) -> dict[str, tuple[float, float, float]]:
    """Return each statistic with its 95 % bootstrap interval (percentiles; Efron 1979).

    Images are resampled, not rows: all rows of an image are drawn together, so repeats do not narrow the
    interval (cluster bootstrap; Field and Welsh, JRSS B 2007).

    Args:
        statistic: row weights [D, N] → values [D] by name.
        images: [N], image number of each row, from 0.
        base: [N], row weights of a population; multiplied with those of a draw.
        strata: [N], stratum of each row, if a fixed number was drawn per stratum: n − 1 of n images are
            resampled within each and weighted accordingly (Rao and Wu, JASA 1988), since a plain bootstrap of
            small strata is too narrow. If a stratum has a single image, strata are ignored (conservative).
        count: number of draws.

    Returns:
        value, low, high; the bounds are NaN for a single image, or if the statistic of a draw is not finite.
    """
    start = np.ones(len(images)) if base is None else base
    value = statistic(start[None])
    num_images = int(images.max()) + 1
    stratum = np.zeros(num_images, int)
    if strata is not None:
        stratum[images] = np.unique(strata, return_inverse=True)[1]
        stratum *= np.bincount(stratum).min() > 1
    order, counts = np.argsort(stratum, kind="stable"), np.bincount(stratum)
    sizes = counts - (len(counts) > 1)  # images per draw from each stratum
    first, high = (np.repeat(per, sizes) for per in (np.cumsum(counts) - counts, counts))
    rng = np.random.default_rng(seed)
    results = []
    chunk = max(WEIGHTS_PER_CHUNK // len(images), 1)
    for at in range(0, count, chunk):
        draws = min(chunk, count - at)
        drawn = (
            order[rng.integers(0, high, (draws, len(high))) + first] + num_images * np.arange(draws)[:, None]
        )
        times = np.bincount(drawn.ravel(), minlength=draws * num_images).reshape(draws, num_images)
        results.append(list(statistic(start * (times * (counts / sizes)[stratum])[:, images]).values()))
    with np.errstate(invalid="ignore"):
        ends = np.percentile(np.concatenate(results, axis=1), [2.5, 97.5], axis=1)
    ends = ends if num_images > 1 else np.full_like(ends, np.nan)
    return {
        name: (float(at[0]), float(low), float(high))
        for (name, at), low, high in zip(value.items(), *ends, strict=True)
    }


def paired_difference(
    first: Values,
    second: Values,
    images: NDArray[np.int64],
    *,
    strata: NDArray[np.int64] | None = None,
    count: int = 10_000,
    seed: int = 0,
) -> dict[str, float]:
    """Compare two models' absolute errors [N] on the same rows.

    Returns:
        `difference` of their MAE (first − second, months) with its 95 % bootstrap interval over images
        (`low`, `high`; `strata` as in `with_intervals`), and `p` of the two-sided paired permutation test
        over images (Fisher 1935; `count` draws, or all permutations if those are fewer).
    """
    from scipy import stats

    gain = first - second
    intervals = with_intervals(
        lambda w: {"gain": mean(gain, w)}, images, strata=strata, count=count, seed=seed
    )
    observed, low, high = intervals["gain"]
    p = 1.0
    if images.max() > 0:  # a single image allows no test
        p = stats.permutation_test(
            (np.bincount(images, first), np.bincount(images, second)),
            lambda one, other, axis: (one - other).sum(axis) / len(gain),
            permutation_type="samples",
            n_resamples=count,
            batch=50,  # resamples; fits the cache
            vectorized=True,
            rng=np.random.default_rng([seed, 1]),
        ).pvalue
    return {"difference": observed, "low": low, "high": high, "p": float(p)}
