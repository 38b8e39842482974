import logging
from typing import Any

import lightning as L
import pytest
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from boneage_pl.data.dataset import Batch
from boneage_pl.model.lightning_module import BoneAgeModule


class Tiny(nn.Module):
    """A network with two weights."""

    def __init__(self) -> None:
        super().__init__()
        self.age = nn.Linear(2, 1)

    def forward(self, image: Tensor, male: Tensor) -> Tensor:
        return self.age(torch.stack([image.mean(dim=(1, 2, 3)), male], dim=1))


def loader(n: int = 32, batch_size: int = 8) -> Any:
    generator = torch.Generator().manual_seed(0)
    rows = [
        Batch(
            image=torch.randint(0, 256, (1, 4, 4), generator=generator, dtype=torch.uint8),
            male=torch.tensor(float(row % 2)),
            bone_age=torch.tensor(float(10 * row)),
            row=torch.tensor(row),
            key=torch.tensor(2**52),  # without flips
        )
        for row in range(n)
    ]
    return torch.utils.data.DataLoader(rows, batch_size=batch_size)


def trainer(**options: Any) -> L.Trainer:
    return L.Trainer(
        accelerator="cpu",
        inference_mode=False,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )


def validate(module: BoneAgeModule, batches: Any) -> dict[str, float]:
    run = trainer()
    run.validate(module, batches, verbose=False)
    return {name: float(value) for name, value in run.callback_metrics.items()}


def adam(lr: float) -> Any:
    return lambda network: torch.optim.Adam(network.parameters(), lr=lr)


def test_validation_mae_is_exact_and_by_sex():
    module = BoneAgeModule(Tiny(), adam(0.1))
    measured = validate(module, loader(30, batch_size=7))
    with torch.no_grad():
        batch = next(iter(loader(30, batch_size=30)))
        error = (module.inference(batch["image"], batch["male"]) - batch["bone_age"]).abs()
    assert measured["val_mae"] == pytest.approx(float(error.mean()), rel=1e-5)
    assert measured["val_mae_boys"] == pytest.approx(float(error[1::2].mean()), rel=1e-5)
    assert measured["val_mae_girls"] == pytest.approx(float(error[::2].mean()), rel=1e-5)
    assert module.validation["row"] == list(range(30))


def test_training_minimizes_l1():
    module = BoneAgeModule(Tiny(), adam(1.0))
    fit = trainer(max_epochs=60)
    before = validate(module, loader())["val_mae"]
    fit.fit(module, loader(), loader())
    # the median of each sex has about 80, the untrained network 155
    assert before > 140
    assert fit.callback_metrics["val_mae"] < 100
    assert float(fit.callback_metrics["train_mae"]) == pytest.approx(
        float(fit.callback_metrics["val_mae"]), abs=20
    )


def test_plateau_lowers_rate_as_in_published_log(caplog: pytest.LogCaptureFixture):
    def scheduler(optimizer: torch.optim.Optimizer, _length: int) -> ReduceLROnPlateau:
        return ReduceLROnPlateau(optimizer, patience=1, factor=0.5, threshold=10.0, threshold_mode="abs")

    module = BoneAgeModule(Tiny(), adam(1e-3), scheduler)
    fit = trainer(max_epochs=4)
    with caplog.at_level(logging.INFO):
        fit.fit(module, loader(), loader())
    assert "Epoch 00003: reducing learning rate of group 0 to 5.0000e-04." in caplog.text
    assert fit.optimizers[0].param_groups[0]["lr"] == 5e-4


def test_rate_is_constant_without_scheduler():
    fit = trainer(max_epochs=3)
    fit.fit(BoneAgeModule(Tiny(), adam(1e-3)), loader(), loader())
    assert fit.optimizers[0].param_groups[0]["lr"] == 1e-3
    assert fit.lr_scheduler_configs == []
