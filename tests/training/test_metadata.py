"""Invalid metadata are rejected with the name of the field."""

from pathlib import Path
from typing import Any

import pytest

from boneage_pl.errors import BoneAgeError
from boneage_pl.training.checkpoint import load_checkpoint
from tests.helpers.fake_checkpoint import SPLIT, record, write_checkpoint


def without(key: str) -> dict[str, Any]:
    return {"split": {name: value for name, value in SPLIT.items() if name != key}}


def split(**changed: Any) -> dict[str, Any]:
    return {"split": {**SPLIT, **changed}}


def config(**changed: Any) -> dict[str, Any]:
    return {"config": {**record(9.0)["config"], **changed}}


WRONG = {
    "split: .*file_sha256 lacks 3 images": split(file_sha256={}),
    "split: .*pixel_sha256 lacks 1 images": split(pixel_sha256={"1": "A", "2": "B"}),
    "split.age_bins: ": without("age_bins"),
    "split.train: ": split(train=[]),
    "split.validation.0: ": split(validation=[3]),
    "split: .*edges must be 3 ascending": split(edges=[]),
    "split: .*edges must be": split(edges=[1.0, 228.0, 114.0]),
    "split.edges.1: ": split(edges=[1.0, float("nan"), 228.0]),
    "protocol disjoint, but training and validation share": split(validation=["3", "1"]),
    "training and validation share images": split(file_sha256={"1": "a", "2": "b", "3": "a"}),
    "split: .*counts must have": split(population={**SPLIT["population"], "counts": [1]}),
    "split.population.medians.boys: ": split(
        population={**SPLIT["population"], "medians": {"all": 1.0, "girls": 1.0}}
    ),
    "config.data.image_size: ": config(data={"root": "x", "image_size": True}),
    "config.trainer.max_epochs: ": config(trainer={}),
    "config.model._target_: ": config(model={"image_size": 107}),
    "input: .*mean and standard deviation": {"input": {"mean": (0.5,), "std": (0.2, 0.2)}},
    "input: .*above 0": {"input": {"mean": (0.5,), "std": (0.0,)}},
    "input.mean": {"input": {"mean": "half", "std": (0.5,)}},
    "validation: .*different lengths": {
        "validation": {"id": ["3"], "male": [1], "bone_age": [30.0], "predicted": []}
    },
    "validation.id: ": {"validation": {"id": ["1"], "male": [1], "bone_age": [30.0], "predicted": [31.0]}},
    "epochs: .*order": {"epochs": [{"epoch": 1, "train_mae": 1.0, "val_mae": 1.0, "lr": 0.1}]},
    "epochs.0.val_mae: ": {"epochs": [{"epoch": 0, "train_mae": 1.0, "val_mae": "low", "lr": 0.1}]},
    "start.ckpt: ": {"start": {"experiment": "v1", "val_mae": 1.0}},
}


def test_metadata_is_read(tmp_path: Path):
    checkpoint = load_checkpoint(write_checkpoint(tmp_path / "x.ckpt", float("nan"), None))
    assert checkpoint.metadata.split["train"] == ["1", "2", "2"]


@pytest.mark.parametrize(("message", "changed"), WRONG.items(), ids=WRONG)
def test_invalid_metadata_is_refused(tmp_path: Path, message: str, changed: dict[str, Any]):
    path = write_checkpoint(tmp_path / "x.ckpt", 9.0, **changed)
    with pytest.raises(BoneAgeError, match=message):
        load_checkpoint(path)


def test_published_split_may_share_images(tmp_path: Path):
    shared = split(protocol="published", validation=["3", "1"])
    load_checkpoint(write_checkpoint(tmp_path / "x.ckpt", 9.0, **shared))
