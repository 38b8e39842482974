"""The numbers of a report for made-up predictions."""

import io

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from torchmetrics.functional import mean_absolute_error, mean_squared_error, r2_score

from boneage_pl.evaluation.breakdown import Population, compute_metrics, predictions_frame
from boneage_pl.evaluation.metrics import icc

PREDICTIONS = """id,male,bone_age,predicted
1,True,12,14.5
2,False,59,50.25
3,True,60,71
4,False,119.5,125
5,True,120,96
6,False,167,171.5
7,True,168,160
8,False,216,214
2,False,59,50.25
"""
EDGES = [1.0, 114.0, 228.0]
POPULATION = Population(EDGES, [10, 20, 30, 40], {"all": 100.0, "girls": 90.0, "boys": 110.0})


@pytest.fixture
def predictions() -> pd.DataFrame:
    table = pd.read_csv(io.StringIO(PREDICTIONS), dtype={"id": str})
    return predictions_frame(table, table["predicted"], EDGES, {}, {"8"})


def test_metrics_match_to_six_digits(predictions: pd.DataFrame):
    found = compute_metrics(predictions, POPULATION)
    true, predicted = (torch.tensor(predictions[name].to_numpy()) for name in ("bone_age", "predicted"))
    error = (predicted - true).numpy()
    sd = stats.tstd(error)
    moments = np.cov(true, predicted, ddof=0)
    expected = {
        "mae": mean_absolute_error(predicted, true),
        "rmse": mean_squared_error(predicted, true, squared=False),
        "median_absolute_error": np.median(np.abs(error)),
        "bias": stats.tmean(error),
        "error_sd": sd,
        "loa_low": stats.tmean(error) - 1.96 * sd,
        "loa_high": stats.tmean(error) + 1.96 * sd,
        "r2": r2_score(predicted, true),
        "pearson_r": stats.pearsonr(true, predicted).statistic,
        "concordance": 2 * moments[0, 1] / (moments[0, 0] + moments[1, 1] + error.mean() ** 2),
        "within_6": 4 / 9,
        "within_12": 8 / 9,
        "within_24": 1,
    }
    expected["icc"] = icc(np.stack([true, predicted], axis=1))  # tested elsewhere
    assert found["overall"].keys() == expected.keys()
    for name, value in expected.items():
        assert found["overall"][name]["value"] == pytest.approx(float(value), rel=1e-6), name
        assert found["overall"][name]["low"] <= found["overall"][name]["high"], name
    assert (found["rows"], found["images"], found["rows_seen_in_training"]) == (9, 8, 1)


def test_parts_are_sex_age_and_group(predictions: pd.DataFrame):
    found = compute_metrics(predictions, POPULATION)
    by_age = {part["name"]: part for part in found["by_age"]}
    errors = {"under 5 years": [2.5, 8.75, 8.75], "5 to 10 years": [11, 5.5]}
    errors |= {"10 to 14 years": [24, 4.5], "over 14 years": [8, 2]}
    assert list(by_age) == list(errors)
    for name, of_part in errors.items():
        assert by_age[name]["mae"]["value"] == pytest.approx(np.mean(of_part))
        assert by_age[name]["rows"] == len(of_part)
    assert by_age["under 5 years"]["images"] == 2
    assert [part["rows"] for part in found["by_sex"]] == [5, 4]
    assert [part["rows"] for part in found["by_group"]] == [2, 3, 2, 2]
    girls = predictions[~predictions["male"]]
    assert found["by_sex"][0]["pearson_r"]["value"] == pytest.approx(
        stats.pearsonr(girls["bone_age"], girls["predicted"]).statistic
    )


def test_population_weights_match_source_groups(predictions: pd.DataFrame):
    assert compute_metrics(predictions, POPULATION)["population_weighted"] is None
    found = compute_metrics(predictions.assign(stratum=predictions["group"]), POPULATION)
    by_group = predictions["error"].abs().groupby(predictions["group"]).mean()
    expected = np.average(by_group.sort_index(), weights=[10, 20, 30, 40])
    assert found["population_weighted"]["mae"]["value"] == pytest.approx(expected)
    constant, of_sex = found["baselines"]
    assert constant["mae"]["value"] == pytest.approx((predictions["bone_age"] - 100).abs().mean())
    median = predictions["male"].map({True: 110, False: 90})
    assert of_sex["mae"]["value"] == pytest.approx((predictions["bone_age"] - median).abs().mean())


def test_empty_and_single_image_parts(predictions: pd.DataFrame):
    found = compute_metrics(predictions.iloc[:1], POPULATION)
    assert found["by_sex"][0] == {"name": "girls", "rows": 0, "images": 0}
    assert found["by_sex"][1]["mae"] == {"value": 2.5, "low": None, "high": None}
    assert found["overall"]["pearson_r"]["value"] is None


def test_strata_are_what_the_protocol_fixes(predictions: pd.DataFrame):
    rows = predictions[["id", "male", "bone_age"]]
    strata = {
        protocol: predictions_frame(rows, predictions["predicted"], EDGES, {}, set(), protocol=protocol)[
            "stratum"
        ]
        for protocol in ("disjoint", "published", "natural")
    }
    assert (strata["disjoint"] == predictions["group"]).all()
    assert (strata["published"] == (predictions["bone_age"] >= 114)).all()
    assert not strata["natural"].any()
