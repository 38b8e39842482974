"""Several answers as one."""

import numpy as np
import pytest
import torch
from torch import nn

from boneage_pl.data.transforms.compose import Compose
from boneage_pl.model.inference import BatchPredictor, InferenceModule, PredictionBatch, average_predictions


def test_the_spread_of_several_is_that_of_their_distributions_mixed():
    rng = np.random.default_rng(0)
    parts = [(100.0, 3.0), (112.0, 8.0), (103.0, 5.0)]
    drawn = np.concatenate([rng.normal(mean, sd, 400_000) for mean, sd in parts])
    said = average_predictions([PredictionBatch(np.array([mean]), np.array([sd])) for mean, sd in parts])
    assert said.months[0] == pytest.approx(105)
    assert said.std is not None
    assert said.std[0] == pytest.approx(drawn.std(), rel=0.005)


def test_one_that_gives_a_number_alone_leaves_the_spread_unknown():
    number, distribution = (
        PredictionBatch(np.array([90.0]), None),
        PredictionBatch(np.array([100.0]), np.array([5.0])),
    )
    assert average_predictions([number, distribution]).std is None
    assert average_predictions([distribution]).std == pytest.approx([5.0])


def test_predictions_are_computed_without_tf32():
    torch.backends.cudnn.allow_tf32 = True
    torch.set_float32_matmul_precision("high")
    BatchPredictor(InferenceModule(nn.Identity(), Compose(), nn.L1Loss()), "bf16-mixed", "cpu")
    assert not torch.backends.cudnn.allow_tf32
    assert not torch.backends.cuda.matmul.allow_tf32
