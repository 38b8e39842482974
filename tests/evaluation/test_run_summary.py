import math

import pandas as pd
import pytest

from boneage_pl.evaluation.run_summary import constant_predictor, verdict


@pytest.mark.parametrize(
    ("mae", "expected"),
    [
        (28.4, "learned"),
        (28.5, "barely learned"),
        (45.5, "barely learned"),
        (45.7, "did not learn"),
        (math.nan, "did not learn"),
        (math.inf, "did not learn"),
    ],
)
def test_verdict_against_constant_predictor(mae: float, expected: str):
    assert verdict(mae, 57.0) == expected


@pytest.mark.parametrize(("mae", "beats"), [(19.9, True), (20.0, False), (21.0, False), (math.nan, False)])
def test_verdict_notes_run_that_never_beats_start(mae: float, beats: bool):
    assert ("never beat its start" in verdict(mae, 57.0, 20.0)) is not beats


def test_constant_predictor_uses_training_rows_alone():
    split = pd.DataFrame({"bone_age": [10, 20, 60, 100, 30], "subset": ["train"] * 3 + ["validation"] * 2})
    assert constant_predictor(split) == (20.0, 45.0)
