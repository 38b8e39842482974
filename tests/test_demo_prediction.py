"""Intervals and flags of the demo's model on new phantoms; trains for minutes."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from boneage_pl import BoneAgePredictor
from boneage_pl.data.corruptions import invert, rotation
from boneage_pl.data.phantom import write_phantom
from experiments.demo import trainings
from tests.conftest import Result
from tests.helpers.non_hand_images import others

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory, command: Callable[..., Result]) -> Path:
    path = tmp_path_factory.mktemp("demo")
    for options in trainings():
        command(*options, cwd=path, timeout=2400)
    return path


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """1,000 phantoms of another seed: `path, male, boneage`."""
    root = tmp_path_factory.mktemp("fresh")
    write_phantom(root, count=1000, seed=12345, size=160, workers=1)
    table = pd.read_csv(root / "boneage-training-dataset.csv", dtype={"id": str})
    return table.assign(path=[str(root / "boneage-training-dataset" / f"{i}.png") for i in table["id"]])


@pytest.mark.parametrize("experiment", ["v1", "v2"])
def test_validation_predictions_match_training(demo: Path, experiment: str):
    model = BoneAgePredictor.load(experiment, output_dir=demo / "outputs" / "demo")
    validation = model.members[0].metadata.validation
    images = demo / "data" / "phantom_small" / "boneage-training-dataset"
    files = [images / f"{i}.png" for i in validation["id"]]
    predictions = model.predict(files, ["M" if male else "F" for male in validation["male"]])
    assert np.abs(np.array([a.months for a in predictions]) - validation["predicted"]).max() < 1e-3


def test_intervals_cover_and_few_new_hands_are_flagged(demo: Path, fresh: pd.DataFrame):
    model = BoneAgePredictor.load("v2", output_dir=demo / "outputs" / "demo")
    predictions = model.predict(fresh["path"].tolist(), ["M" if male else "F" for male in fresh["male"]])
    inside = [a.lower <= age <= a.upper for a, age in zip(predictions, fresh["boneage"], strict=True)]
    assert 0.87 <= np.mean(inside) <= 0.93
    assert np.mean([bool(a.flags) for a in predictions]) <= 0.05


def test_non_hands_are_flagged(demo: Path, fresh: pd.DataFrame):
    model = BoneAgePredictor.load("v1", output_dir=demo / "outputs" / "demo")
    hands = [np.asarray(Image.open(path).convert("L")) for path in fresh["path"][:40]]
    for name, image in others(hands[0]).items():
        assert set(model.predict(image, "F")[0].flags) & {"out_of_distribution", "resolution_mismatch"}, name
    upside_down = model.predict([rotation(180)(hand) for hand in hands], "F")
    assert np.mean(["rotated" in prediction.flags for prediction in upside_down]) > 0.95
    negatives = model.predict([invert(hand) for hand in hands], "F")
    assert np.mean(["inverted" in prediction.flags for prediction in negatives]) > 0.9
    plain = model.predict(hands, "F")
    for negative, prediction in zip(negatives, plain, strict=True):
        if "inverted" in negative.flags:
            # rounding differs between an image and its negative
            assert negative.months == pytest.approx(prediction.months, abs=1)
