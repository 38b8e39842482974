"""Predictions use the precision of the training, by any of its names."""

import csv
import json
from pathlib import Path

import pytest
import torch

from boneage_pl.errors import BoneAgeError
from boneage_pl.utils.precision import normalize_precision
from tests.conftest import SMALL_PHANTOM
from tests.helpers.fork_server import Forks

SMALL = [
    *(option for option in SMALL_PHANTOM if "count" not in option),
    "data.phantom.count=280",
    "data.samples_per_group=64",  # enough validation images to fit out-of-distribution statistics
    "data.image_size=64",
    "model=backbone",
    "model.backbone=test_resnet",
    "trainer.max_epochs=1",
]


@pytest.mark.slow
@pytest.mark.parametrize(("precision", "full"), [("64", "64-true"), ("bf16", "bf16-mixed")])
def test_trained_run_evaluates_to_its_validation(tmp_path: Path, forks: Forks, precision: str, full: str):
    options = [*SMALL, f"trainer.precision={precision}", "trainer.gradient_clip_val=1"]
    forks.run("+experiment=v1", *options, "hydra.run.dir=outputs/x", cwd=tmp_path)
    best = tmp_path / "outputs" / "x" / "checkpoints" / "best.ckpt"
    content = torch.load(best, weights_only=True)
    assert content["boneage_pl"]["precision"] == full
    assert content["ood_statistics"] is not None
    done = forks.start("boneage_pl.evaluate", f"ckpt={best}", "out=evaluated", cwd=tmp_path).wait()
    assert done.returncode == 0, done.stderr
    mae = json.loads((tmp_path / "evaluated" / "metrics.json").read_text())["overall"]["mae"]["value"]
    with (tmp_path / "outputs" / "x" / "metrics.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert mae == pytest.approx(float(row["val_mae"]), rel=1e-5)


def test_precision_has_one_name():
    assert [normalize_precision(p) for p in (64, "32", "16", "bf16", "bf16-mixed", "auto")] == [
        "64-true",
        "32-true",
        "16-mixed",
        "bf16-mixed",
        "bf16-mixed",
        "auto",
    ]
    for wrong in ("17", "bf16-true", "transformer-engine"):
        with pytest.raises(BoneAgeError, match="must be auto, 64-true"):
            normalize_precision(wrong)
