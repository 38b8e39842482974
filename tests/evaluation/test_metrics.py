"""Metrics, bootstrap intervals and permutation tests, compared with published examples."""

import numpy as np
import pytest
from scipy import stats

from boneage_pl.evaluation.metrics import agreement, icc, mean, median, paired_difference, with_intervals

TRUE = np.array([12.0, 30, 55, 90, 120, 150, 180, 216])
PREDICTED = np.array([14.5, 25, 60, 97, 110, 155, 171, 210])
# Shrout and Fleiss 1979, table 2: six targets, four judges
JUDGES = np.array(
    [[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]], float
)


def test_icc_matches_shrout_and_fleiss():
    assert icc(JUDGES) == pytest.approx(0.29, abs=0.005)  # as printed
    # from the printed mean squares: 11.24 (targets), 32.49 (judges), 1.02 (residual)
    assert icc(JUDGES) == pytest.approx(
        (11.24 - 1.02) / (11.24 + 3 * 1.02 + 4 * (32.49 - 1.02) / 6), rel=2e-3
    )


@pytest.mark.parametrize("weights", [[1, 2, 0, 3, 1, 1, 5, 2], [2, 2, 2, 2, 2, 2, 2, 2]])
def test_weight_equals_repeated_row(weights: list[int]):
    rows = np.repeat(np.arange(8), weights)
    weighted = agreement(TRUE, PREDICTED, np.array(weights, float))
    repeated = agreement(TRUE[rows], PREDICTED[rows])
    for name in repeated:
        assert weighted[name] == pytest.approx(repeated[name], rel=1e-9), name


def test_median_of_even_and_odd_counts():
    for n in (7, 8):
        values = np.random.default_rng(n).normal(size=n)
        assert median(values, np.ones(n)) == pytest.approx(np.median(values))


def test_repeated_rows_do_not_narrow_interval():
    rng = np.random.default_rng(0)
    error = np.abs(rng.normal(0, 8, 60))
    images = np.arange(60)

    def width(repeats: int, by: np.ndarray) -> float:
        values = np.tile(error, repeats)
        found = with_intervals(lambda w: {"mae": w @ values / w.sum(1)}, by, count=1000)
        return found["mae"][2] - found["mae"][1]

    once = width(1, images)
    assert width(4, np.tile(images, 4)) == pytest.approx(once, rel=1e-9)
    assert width(4, np.arange(240)) < 0.6 * once  # the width if rows were resampled


def test_paired_difference_uses_same_images():
    rng = np.random.default_rng(1)
    first, second = np.abs(rng.normal(0, 8, 200)), np.abs(rng.normal(0, 8, 200))
    images = np.arange(200)
    found = paired_difference(first, second, images)
    expected = stats.permutation_test(
        (first, second),
        lambda a, b: np.mean(a) - np.mean(b),
        permutation_type="samples",
        n_resamples=9999,
        rng=0,
    )
    assert found["difference"] == pytest.approx(expected.statistic)
    assert found["p"] == pytest.approx(expected.pvalue, abs=0.02)
    assert found["low"] < found["difference"] < found["high"]
    assert paired_difference(first + 2, first, images)["p"] < 0.001
    assert paired_difference(first, first, images)["p"] == 1


def test_single_image_has_no_interval():
    value, low, high = with_intervals(lambda w: {"mae": mean(TRUE[:2], w)}, np.zeros(2, int))["mae"]
    assert value == 21
    assert np.isnan([low, high]).all()


def test_limits_match_bland_and_altman():
    """Bland and Altman's peak flow data, 17 subjects, first measurements (Lancet 1986, table 1)."""
    wright = [494, 395, 516, 434, 476, 557, 413, 442, 650, 433, 417, 656, 267, 478, 178, 423, 427]
    mini = [512, 430, 520, 428, 500, 600, 364, 380, 658, 445, 432, 626, 260, 477, 259, 350, 451]
    found = agreement(np.array(mini, float), np.array(wright, float))
    assert found["bias"] == pytest.approx(-2.1, abs=0.05)  # as printed
    assert found["error_sd"] == pytest.approx(38.8, abs=0.05)
    # printed as -79.7 and 75.5, with 2 instead of 1.96
    assert found["bias"] - 2 * found["error_sd"] == pytest.approx(-79.7, abs=0.1)
    assert found["bias"] + 2 * found["error_sd"] == pytest.approx(75.5, abs=0.1)


def test_bootstrap_interval_covers_as_stated():
    """Of 400 samples of 150 images, a third repeated, 95 ± 3 % of the intervals cover the true MAE."""
    rng = np.random.default_rng(2)
    truth = 8 * np.sqrt(2 / np.pi)  # of a normal error with s.d. 8
    images = np.concatenate([np.arange(150), np.arange(50)])
    covered = 0
    for _ in range(400):
        error = np.abs(rng.normal(0, 8, 150))[images]
        _, low, high = with_intervals(lambda w, e=error: {"mae": mean(e, w)}, images, count=1000)["mae"]
        covered += low <= truth <= high
    assert 368 <= covered <= 392


def test_interval_of_stratified_rows_covers_as_stated():
    """20 groups of 10 images, whose errors differ; an interval that ignores the strata is too wide."""
    rng = np.random.default_rng(3)
    group = np.repeat(np.arange(20), 10)
    sd = np.linspace(2, 40, 20)
    truth = (sd * np.sqrt(2 / np.pi)).mean()
    covered = widths = 0
    for _ in range(400):
        error = np.abs(rng.normal(0, sd[group]))
        _, low, high = mae_interval(error, group)
        covered += low <= truth <= high
        widths += high - low
    assert 368 <= covered <= 392
    plain = np.ptp(mae_interval(error, None)[1:])
    assert plain > 1.05 * widths / 400


def mae_interval(error: np.ndarray, strata: np.ndarray | None) -> tuple[float, float, float]:
    images = np.arange(len(error))
    return with_intervals(lambda w: {"mae": mean(error, w)}, images, strata=strata, count=1000)["mae"]
