"""The numbers of a report: agreement of predicted with true bone age, by definition and source.

Every statistic takes row weights: a bootstrap draw is a weighting (how often each row was drawn), and so is a
population (how many children each row stands for). Libraries that have these statistics take no weights; the
tests compare the unweighted ones with theirs. All lengths are N rows, all ages and errors months,
error = predicted − true.
"""

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]

WITHIN = (6, 12, 24)  # months
LIMITS = 1.96  # standard deviations of a normal distribution that hold 95 % of it


def mean(values: Values, weights: Values) -> float:
    """Return the weighted mean."""
    return float(np.dot(values, weights) / weights.sum())


def median(values: Values, weights: Values) -> float:
    """Return the weighted median; with equal weights the usual one."""
    order = np.argsort(values, kind="stable")
    below = np.cumsum(weights[order])
    half = below[-1] / 2
    at = int(np.searchsorted(below, half))
    here = float(values[order[at]])
    # half of the weight lies at or below this row exactly: the middle between it and the next one that counts
    if np.isclose(below[at], half):
        above = order[at + 1 :][weights[order[at + 1 :]] > 0]
        return (here + float(values[above[0]])) / 2 if len(above) else here
    return here


def agreement(true: Values, predicted: Values, weights: Values | None = None) -> dict[str, float]:
    """Return every statistic of predicted against true ages, in months where it has a unit.

    - `mae`: mean absolute error, the field's MAD (mean absolute distance; Halabi et al., Radiology 2019).
    - `rmse`: root of the mean squared error.
    - `median_absolute_error`.
    - `bias`: mean error; above 0 the model says older.
    - `error_sd`: standard deviation of the error, with N − 1.
    - `loa_low`, `loa_high`: 95 % limits of agreement, bias ∓ 1.96 s.d. (Bland and Altman, Lancet 1986).
    - `r2`: 1 − squared errors / squared deviations from the mean true age (coefficient of determination).
    - `pearson_r`: product-moment correlation.
    - `concordance`: Lin's concordance correlation coefficient, with 1/N moments (Lin, Biometrics 1989).
    - `icc`: ICC(2,1), two-way random effects, absolute agreement, one measurement (Shrout and Fleiss,
      Psychological Bulletin 1979), the model and the reference being the two raters.
    - `within_6`, `within_12`, `within_24`: share of rows with an absolute error of at most so many months.

    Args:
        true, predicted: months.
        weights: how often each row counts; `None` for once.
    """
    w = np.ones_like(true) if weights is None else weights
    error = predicted - true
    n = float(w.sum())
    bias = mean(error, w)
    sd = float(np.sqrt(np.dot(w, (error - bias) ** 2) / (n - 1))) if n > 1 else float("nan")
    mean_true, mean_predicted = mean(true, w), mean(predicted, w)
    var_true, var_predicted = mean((true - mean_true) ** 2, w), mean((predicted - mean_predicted) ** 2, w)
    covariance = mean((true - mean_true) * (predicted - mean_predicted), w)
    squared = mean(error**2, w)
    with np.errstate(divide="ignore", invalid="ignore"):
        return {
            "mae": mean(np.abs(error), w),
            "rmse": float(np.sqrt(squared)),
            "median_absolute_error": median(np.abs(error), w),
            "bias": bias,
            "error_sd": sd,
            "loa_low": bias - LIMITS * sd,
            "loa_high": bias + LIMITS * sd,
            "r2": float(1 - np.divide(squared, var_true)),
            "pearson_r": float(np.divide(covariance, np.sqrt(var_true * var_predicted))),
            "concordance": float(
                np.divide(2 * covariance, var_true + var_predicted + (mean_true - mean_predicted) ** 2)
            ),
            "icc": icc(np.stack([true, predicted], axis=1), w),
            **{f"within_{months}": mean((np.abs(error) <= months).astype(float), w) for months in WITHIN},
        }


def icc(ratings: Values, weights: Values | None = None) -> float:
    """Return ICC(2,1) of `ratings` [N targets, k raters] (Shrout and Fleiss 1979, their case 2)."""
    w = np.ones(len(ratings)) if weights is None else weights
    n, k = float(w.sum()), ratings.shape[1]
    of_target = ratings.mean(axis=1)
    of_rater = np.array([mean(column, w) for column in ratings.T])
    grand = float(of_rater.mean())
    rows = k * np.dot(w, (of_target - grand) ** 2) / (n - 1)  # mean square between targets
    columns = n * np.sum((of_rater - grand) ** 2) / (k - 1)  # between raters
    left = ratings - of_target[:, None] - of_rater[None, :] + grand
    rest = np.dot(w, (left**2).sum(axis=1)) / ((n - 1) * (k - 1))
    return float((rows - rest) / (rows + (k - 1) * rest + k * (columns - rest) / n))


def draws(images: NDArray[np.int64], count: int, seed: int = 0) -> Iterator[Values]:
    """Yield bootstrap weightings of rows, each from images drawn with replacement (Efron 1979).

    Images are drawn, not rows: a radiograph that several rows repeat brings all of them or none, so that
    repeating it narrows no interval (cluster bootstrap; Field and Welsh, JRSS B 2007).

    Args:
        images: each row's image, numbered from 0.
        count: weightings.
    """
    rng = np.random.default_rng(seed)
    there = int(images.max()) + 1
    for _ in range(count):
        yield np.bincount(rng.integers(0, there, there), minlength=there)[images].astype(float)


def interval(values: list[float] | Values) -> tuple[float, float]:
    """Return the 95 % percentile interval of bootstrap replicates; those that are not numbers left out."""
    finite = np.asarray(values)[np.isfinite(values)]
    if not len(finite):
        return float("nan"), float("nan")
    low, high = np.percentile(finite, [2.5, 97.5])
    return float(low), float(high)


def with_intervals(
    statistic: Callable[[Values], dict[str, float]],
    images: NDArray[np.int64],
    *,
    base: Values | None = None,
    count: int = 2000,
    seed: int = 0,
) -> dict[str, tuple[float, float, float]]:
    """Return each statistic with the ends of its 95 % interval over `count` draws of images.

    Args:
        statistic: row weights → values by name.
        images: each row's image.
        base: row weights of a population; a draw multiplies them.
    """
    start = np.ones(len(images)) if base is None else base
    value = statistic(start)
    replicates = [statistic(start * drawn) for drawn in draws(images, count, seed) if (start * drawn).any()]
    return {name: (value[name], *interval([r[name] for r in replicates])) for name in value}


def paired_difference(
    first: Values, second: Values, images: NDArray[np.int64], *, count: int = 10_000, seed: int = 0
) -> dict[str, float]:
    """Compare two models' absolute errors [N] on the same rows.

    Returns:
        `difference` of their MAE (first − second, months) with the ends of its 95 % bootstrap interval over
        images (`low`, `high`), and `p`: of `count` draws in which each image's two answers change places at
        random, the share with a difference as large (two-sided permutation test; Fisher 1935; with the
        observed one counted in, Phipson and Smyth 2010).
    """
    gain = first - second
    observed = float(gain.mean())
    replicates = [float(np.dot(gain, w) / w.sum()) for w in draws(images, count, seed)]
    of_image = np.bincount(images, gain)
    rng = np.random.default_rng([seed, 1])
    signs = rng.integers(0, 2, (count, len(of_image)), dtype=np.int8) * 2 - 1
    permuted = np.abs(signs @ of_image) / len(gain)
    larger = int((permuted >= abs(observed) - 1e-12).sum())
    low, high = interval(replicates)
    return {"difference": observed, "low": low, "high": high, "p": (larger + 1) / (count + 1)}
