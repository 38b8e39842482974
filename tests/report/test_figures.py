from pathlib import Path

import numpy as np
import pandas as pd
import torch

from boneage_pl.data.batch import Batch
from boneage_pl.report.figures import error_by_age, predicted_against_true, sample_grid

ANSWERS = pd.DataFrame(
    {
        "male": [True, True, False, False],
        "bone_age": [12.0, 20.0, 12.0, 150.0],
        "predicted": [10.0, 26.0, 18.0, 140.0],
    }
)


def test_error_by_age_plots_the_mean_error_of_each_year_and_sex():
    lines = {line.get_label(): line.get_xydata().tolist() for line in error_by_age(ANSWERS).axes[0].lines}
    assert lines == {"girls": [[1.5, 6.0], [12.5, 10.0]], "boys": [[1.5, 4.0]]}


def test_predicted_against_true_shows_every_answer():
    axes = predicted_against_true(ANSWERS).axes[0]
    points = {
        line.get_label(): line.get_xydata().tolist()
        for line in axes.lines
        if line.get_label() in ("girls", "boys")
    }
    assert points == {"girls": [[12.0, 18.0], [150.0, 140.0]], "boys": [[12.0, 10.0], [20.0, 26.0]]}
    assert "6.00 months" in axes.get_title()


def test_answers_that_are_not_numbers_can_still_be_drawn(tmp_path: Path):
    broken = ANSWERS.assign(predicted=[np.nan, np.inf, np.nan, np.nan])
    for draw in (predicted_against_true, error_by_age):
        draw(broken).savefig(tmp_path / "figure.png")


def test_the_grid_shows_the_pixels_with_sex_and_age():
    image = torch.zeros(5, 3, 8, 8)  # ImageNet-normalised zero is the mean gray
    flip, male, months = torch.zeros(5).bool(), torch.ones(5), torch.full((5,), 96.0)
    axes = sample_grid(Batch(image=image, flip=flip, male=male, bone_age=months, row=torch.arange(5))).axes[0]
    assert axes.get_title() == "boy, 96 months"
    np.testing.assert_allclose(axes.images[0].get_array()[0, 0], [0.485, 0.456, 0.406], atol=1e-6)
