"""Inference and averaging of predictions."""

import numpy as np
import pytest
import torch
from torch import nn

from boneage_pl.data.transforms.compose import Compose
from boneage_pl.model.inference import BatchPredictor, InferenceModule, PredictionBatch, average_predictions
from tests.helpers.tiny_models import Tiny


def test_ensemble_std_is_of_the_mixture():
    rng = np.random.default_rng(0)
    parts = [(100.0, 3.0), (112.0, 8.0), (103.0, 5.0)]
    drawn = np.concatenate([rng.normal(mean, sd, 400_000) for mean, sd in parts])
    average = average_predictions([PredictionBatch(np.array([mean]), np.array([sd])) for mean, sd in parts])
    assert average.months[0] == pytest.approx(105)
    assert average.std is not None
    assert average.std[0] == pytest.approx(drawn.std(), rel=0.005)


def test_missing_std_makes_ensemble_std_missing():
    number, distribution = (
        PredictionBatch(np.array([90.0]), None),
        PredictionBatch(np.array([100.0]), np.array([5.0])),
    )
    assert average_predictions([number, distribution]).std is None
    assert average_predictions([distribution]).std == pytest.approx([5.0])


def test_predictions_use_no_tf32():
    torch.backends.cudnn.allow_tf32 = True
    torch.set_float32_matmul_precision("high")
    BatchPredictor(InferenceModule(nn.Identity(), Compose(), nn.L1Loss()), "bf16-mixed", "cpu")
    assert not torch.backends.cudnn.allow_tf32
    assert not torch.backends.cuda.matmul.allow_tf32


def test_float64_network_predicts():
    """Weights keep their dtype, and images are converted to it."""
    module = InferenceModule(Tiny(64).double(), Compose(), nn.L1Loss()).eval()
    image = torch.randint(0, 256, (2, 64, 64), dtype=torch.uint8)
    with torch.no_grad():
        months = module(image.unsqueeze(1), torch.ones(2))
    predicted = BatchPredictor(module, "64-true", "cpu")(image.numpy(), [True, True]).months
    assert predicted == pytest.approx(months.numpy(), rel=1e-6)
