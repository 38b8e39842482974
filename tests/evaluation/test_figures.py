from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from boneage_pl.evaluation.breakdown import metrics_by_part
from boneage_pl.evaluation.figures import (
    error_by_age,
    error_by_part,
    learning_curves,
    predicted_against_true,
    worst_cases,
)

PREDICTIONS = pd.DataFrame(
    {
        "male": [True, True, False, False],
        "bone_age": [12.0, 20.0, 12.0, 150.0],
        "predicted": [10.0, 26.0, 18.0, 140.0],
        "image": range(4),
    }
)


def test_error_by_age_plots_mean_by_year_and_sex():
    lines = {line.get_label(): line.get_xydata().tolist() for line in error_by_age(PREDICTIONS).axes[0].lines}
    assert lines == {"girls": [[1.5, 6.0], [12.5, 10.0]], "boys": [[1.5, 4.0]]}


def test_predicted_against_true_plots_every_prediction():
    axes = predicted_against_true(PREDICTIONS).axes[0]
    points = {
        line.get_label(): line.get_xydata().tolist()
        for line in axes.lines
        if line.get_label() in ("girls", "boys")
    }
    assert points == {"girls": [[12.0, 18.0], [150.0, 140.0]], "boys": [[12.0, 10.0], [20.0, 26.0]]}
    assert "6.00 months" in axes.get_title()


def test_non_finite_predictions_can_be_plotted(tmp_path: Path):
    broken = PREDICTIONS.assign(predicted=[np.nan, np.inf, np.nan, np.nan])
    for draw in (predicted_against_true, error_by_age):
        draw(broken).savefig(tmp_path / "figure.png")


@pytest.mark.parametrize("name", ["_hidden", r"a $\frac$", "3$"])
def test_names_are_shown_as_they_are(tmp_path: Path, name: str):
    metrics = metrics_by_part(PREDICTIONS.assign(id=list("abcd")))
    epoch = {"epoch": 0, "train_mae": 2.0, "val_mae": 1.0}
    for figure in (error_by_part({name: metrics}), learning_curves({name: [epoch], "other": [epoch]})):  # type: ignore[list-item]
        figure.savefig(tmp_path / "figure.png")
        shown = [text.get_text().strip().replace(r"\$", "$") for text in figure.legends[0].get_texts()]
        assert name in shown
    worst_cases(PREDICTIONS.assign(id=name), np.zeros((4, 8, 8), np.uint8)).savefig(tmp_path / "figure.png")
