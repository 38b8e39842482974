import copy
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from boneage_pl.data.transforms.compose import Compose
from boneage_pl.model.lightning_module import BoneAgeModule
from boneage_pl.training.callbacks.weights import BatchNormRecalibration, EMAWeights, recalibrate_batchnorm
from tests.model.test_lightning_module import adam, loader, trainer


def averaged(values: list[float], decay: float) -> nn.BatchNorm1d:
    """What the callback's averaging makes of a network whose every number was each of these in turn."""
    network = nn.BatchNorm1d(1)
    average = AveragedModel(network)
    for steps, value in enumerate(values):
        for number in (*network.parameters(), *network.buffers()):
            number.data.fill_(value)
        EMAWeights(decay).update(average, network, steps)
    assert average.n_averaged == len(values)
    return average.module


def test_ema_weighs_latest_most_and_averages_batchnorm():
    found = averaged([0.0, *[8.0] * 200], decay=0.9)
    for number in (found.weight, found.bias, found.running_mean, found.running_var):
        assert 7.99 < float(number) <= 8.0
    once_more = averaged([*[0.0] * 200, 10.0], decay=0.9)
    assert float(once_more.running_mean) == pytest.approx(1.0, rel=1e-4)


def test_ema_memory_is_short_at_start():
    """With 0.999 from the first step on, nine tenths of the first weights would still be there after 100."""
    found = averaged([100.0, *[0.0] * 100], decay=0.999)
    assert float(found.weight) < 1


@pytest.mark.parametrize("decay", [1.0, -0.1])
def test_ema_invalid_decay_is_refused(decay: float):
    with pytest.raises(ValueError, match="is no share below 1"):
        EMAWeights(decay)


class Normed(nn.Module):
    """Three weights after a BatchNorm, and dropout before it."""

    def __init__(self) -> None:
        super().__init__()
        self.dropout = nn.Dropout(0.5)
        self.norm = nn.BatchNorm2d(3)
        self.age = nn.Linear(3, 1)

    def forward(self, image: torch.Tensor, male: torch.Tensor) -> torch.Tensor:
        return self.age(self.norm(self.dropout(image)).flatten(2).mean(2) + male.unsqueeze(1))


def batches(count: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    return [(5 + 2 * torch.randn(8, 3, 4, 4, generator=generator), torch.zeros(8)) for _ in range(count)]


def test_bn_recalibration_uses_given_batches_alone():
    network = Normed().train()
    network.dropout.eval()
    network.norm.running_mean.fill_(1e6)
    before = copy.deepcopy(network.state_dict())
    shown = batches(5)
    recalibrate_batchnorm(network, shown)
    everything = torch.cat([image for image, _ in shown])
    assert torch.allclose(network.norm.running_mean, everything.mean((0, 2, 3)), atol=1e-5)
    assert torch.allclose(network.norm.running_var, everything.var((0, 2, 3)), rtol=0.05)
    for name, value in before.items():
        assert name.startswith("norm.") or torch.equal(value, network.state_dict()[name])
    assert (network.training, network.norm.training, network.dropout.training) == (True, True, False)
    assert network.norm.momentum == 0.1


def fit(*callbacks: Any) -> tuple[BoneAgeModule, float]:
    torch.manual_seed(0)
    module = BoneAgeModule(Normed(), optimizer=adam(0.1))
    run = trainer(max_epochs=2, callbacks=list(callbacks))
    run.fit(module, loader(), loader())
    return module, float(run.callback_metrics["val_mae"])


def test_bn_recalibration_keeps_training_and_changes_validation():
    plain, before = fit()
    anew, after = fit(BatchNormRecalibration(2))
    assert torch.equal(plain.network.age.weight, anew.network.age.weight)
    assert before != after
    seen = torch.cat(
        [anew.preprocess(Compose(), batch["image"], batch["key"]) for batch in list(loader())[-2:]]
    )
    assert torch.allclose(anew.network.norm.running_mean, seen.mean((0, 2, 3)), atol=1e-5)


def test_bn_recalibration_without_validation_keeps_no_batches():
    callback = BatchNormRecalibration(2)
    module = BoneAgeModule(Normed(), optimizer=adam(0.1))
    trainer(max_epochs=3, callbacks=[callback], check_val_every_n_epoch=5).fit(module, loader(), loader())
    assert len(callback.kept) == 2


def test_bn_recalibration_needs_batches():
    with pytest.raises(ValueError, match="at least one"):
        BatchNormRecalibration(0)
