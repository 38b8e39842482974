"""Exports with other predictions or a larger MAE are rejected."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from omegaconf import DictConfig
from PIL import Image

from boneage_pl.data.images.resize import ResizeSpec
from boneage_pl.deploy.verification_set import build_verification_set
from boneage_pl.deploy.verify import ExportCheck, assert_accuracy, assert_parity, mae_increase
from boneage_pl.errors import BoneAgeError


def check(*months: float, name: str = "int8", errors: float | None = None) -> ExportCheck:
    return ExportCheck(name, np.array(months), 1.0, 1.0, 1.0, None if errors is None else np.array([errors]))


def test_parity_above_tolerance_is_refused():
    assert assert_parity(check(1.0, 2.04), check(1.0, 2.0)) == pytest.approx(0.04)
    with pytest.raises(BoneAgeError, match=r"int8 differs from PyTorch by up to 0\.060 months"):
        assert_parity(check(1.0, 2.06), check(1.0, 2.0))
    with pytest.raises(BoneAgeError, match="up to nan"):
        assert_parity(check(1.0, float("nan")), check(1.0, 2.0))
    with pytest.raises(BoneAgeError, match="the training diverged"):
        assert_parity(check(1.0, 2.0), check(1.0, float("inf")))


def test_mae_increase_uses_ages_else_predictions():
    assert mae_increase(check(1.0, errors=9.5), check(2.0, errors=9.2)) == pytest.approx(0.3)
    assert mae_increase(check(1.0, 3.0), check(2.0, 3.2)) == pytest.approx(0.6)
    with pytest.raises(
        BoneAgeError, match=r"int8 increases the MAE by \+0\.300 months \(max_mae_increase=0\.2\)"
    ):
        assert_accuracy(check(1.0, errors=9.5), check(2.0, errors=9.2), 0.2)
    with pytest.raises(BoneAgeError, match="increases the MAE"):
        assert_accuracy(check(1.0, errors=float("nan")), check(2.0, errors=9.2), 0.2)
    assert assert_accuracy(check(1.0, errors=9.0), check(2.0, errors=9.2), 0.0) < 0


def test_mae_increase_has_interval():
    exact = ExportCheck("float32", np.zeros(4), 1.0, 1.0, 1.0, np.full(4, 9.0))
    found = ExportCheck("int8", np.zeros(4), 1.0, 1.0, 1.0, np.array([9.0, 9.4, 9.0, 9.4]))
    assert found.row(exact).endswith("9.200  +0.200 ± 0.196")  # 1.96 · 0.2 / √4
    assert exact.row(exact).endswith("9.000")


def test_named_images_are_not_measured_on_what_calibrates(tmp_path: Path):
    noise = np.random.default_rng(0).integers(0, 256, (5, 32, 32), np.uint8)
    for number, pixels in enumerate(noise):
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    rows = "\n".join(f"{number}.png,{'unknown' if number else 'M'}" for number in range(5))
    (tmp_path / "hands.csv").write_text(f"path,sex\n{rows}\n")  # with any sexes
    member: Any = SimpleNamespace(resize_spec=ResizeSpec(32), metadata=SimpleNamespace(bit_depths=()))
    for name in (tmp_path, tmp_path / "hands.csv"):
        trial = build_verification_set(DictConfig({"verify_images": str(name), "verify_count": 9}), [member])
        for batch, expected in ((trial.images, noise[::2]), (trial.calibration, noise[1::2])):
            assert (batch.image[:, 0] == np.concatenate([expected, expected])).all()
            assert batch.male.tolist() == [0] * len(expected) + [1] * len(expected)
