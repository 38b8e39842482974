"""Whether a model knows how sure it is."""

import numpy as np
import pandas as pd
import pytest

from boneage_pl.evaluation.calibration import measure_std


def answers(spread: np.ndarray, error: np.ndarray) -> pd.DataFrame:
    return pd.DataFrame({"predicted_std": spread, "error": error, "image": np.arange(len(error))})


def test_informative_std_separates_quarters():
    rng = np.random.default_rng(0)
    spread = rng.uniform(2, 20, 400)
    told = measure_std(answers(spread, rng.normal(0, spread)))
    assert told is not None
    assert told["mean"] == pytest.approx(spread.mean())
    for part, rows in (("surest", spread <= np.quantile(spread, 0.25)), ("least_sure", spread >= 15.5)):
        # of a normal distribution the mean absolute deviation is √(2/π) standard deviations
        assert told[part]["value"] == pytest.approx((2 / np.pi) ** 0.5 * spread[rows].mean(), rel=0.15)
    assert told["least_less_surest"]["low"] > 0


def test_uninformative_std_does_not():
    rng = np.random.default_rng(1)
    told = measure_std(answers(rng.uniform(2, 20, 400), rng.normal(0, 10, 400)))
    assert told is not None
    assert told["least_less_surest"]["low"] < 0 < told["least_less_surest"]["high"]
    diverged = answers(np.full(40, np.nan), np.full(40, np.nan))
    assert measure_std(diverged) is None  # metrics.json can hold no NaN
    assert measure_std(answers(np.ones(40), np.ones(40)).drop(columns="predicted_std")) is None
