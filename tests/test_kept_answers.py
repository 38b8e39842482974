"""Errors kept of held-out images are answers again for whoever has the images, and for nobody else."""

from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from benchmarks.answers import give, keep
from boneage_pl.errors import BoneageError

ROWS = pd.DataFrame({"id": ["10", "9", "200"], "boneage": [120.0, 36.5, 200.0], "male": [True, False, True]})


def data_set(folder: Path, rows: pd.DataFrame) -> Path:
    folder.mkdir()
    for name in rows["id"]:
        Image.new("L", (8, 8)).save(folder / f"{name}.png")
    rows.to_csv(folder / "train.csv", index=False)
    return folder


def test_answers_go_and_come_back(tmp_path: Path):
    root = data_set(tmp_path / "data", ROWS)
    answers = ROWS.rename(columns={"boneage": "bone_age"}).assign(error=[1.25, -3.5, 0.0])
    answers.iloc[::-1].to_csv(tmp_path / "predictions.csv", index=False)
    keep(tmp_path / "predictions.csv", tmp_path / "kept.csv")
    assert (tmp_path / "kept.csv").read_text().split("\n")[1:] == ["1.25", "0.00", "-3.50", ""]
    give(tmp_path / "kept.csv", root, tmp_path / "given.csv")
    given = pd.read_csv(tmp_path / "given.csv", dtype={"id": str}).set_index("id")
    assert given["predicted"].to_dict() == {"10": 121.25, "200": 200.0, "9": 33.0}
    assert given["male"].to_dict() == {"10": True, "200": True, "9": False}


def test_errors_of_other_images_are_refused(tmp_path: Path):
    ROWS.rename(columns={"boneage": "bone_age"}).assign(error=0.0).to_csv(tmp_path / "a.csv", index=False)
    keep(tmp_path / "a.csv", tmp_path / "kept.csv")
    others = data_set(tmp_path / "others", ROWS.assign(id=["10", "9", "201"]))
    with pytest.raises(BoneageError, match="not of the images"):
        give(tmp_path / "kept.csv", others, tmp_path / "given.csv")
    assert not (tmp_path / "given.csv").exists()
