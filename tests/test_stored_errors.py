"""Stored errors are restored for the same images and rejected for others."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from boneage_pl.errors import BoneAgeError
from experiments.stored_errors import compare, restore, store

ROWS = pd.DataFrame({"id": ["10", "9", "200"], "boneage": [120.0, 36.5, 200.0], "male": [True, False, True]})


def data_set(folder: Path, rows: pd.DataFrame) -> Path:
    folder.mkdir()
    for name in rows["id"]:
        Image.new("L", (8, 8)).save(folder / f"{name}.png")
    rows.to_csv(folder / "train.csv", index=False)
    return folder


def test_errors_round_trip(tmp_path: Path):
    root = data_set(tmp_path / "data", ROWS)
    predictions = ROWS.rename(columns={"boneage": "bone_age"}).assign(error=[1.25, -3.5, 0.0])
    predictions.iloc[::-1].to_csv(tmp_path / "predictions.csv", index=False)
    store(tmp_path / "predictions.csv", tmp_path / "stored.csv")
    assert (tmp_path / "stored.csv").read_text().split("\n")[1:] == ["1.25", "0.00", "-3.50", ""]
    restore(tmp_path / "stored.csv", root, tmp_path / "restored.csv")
    restored = pd.read_csv(tmp_path / "restored.csv", dtype={"id": str}).set_index("id")
    assert restored["predicted"].to_dict() == {"10": 121.25, "200": 200.0, "9": 33.0}
    assert restored["male"].to_dict() == {"10": True, "200": True, "9": False}


def test_errors_of_other_images_are_refused(tmp_path: Path):
    ROWS.rename(columns={"boneage": "bone_age"}).assign(error=0.0).to_csv(tmp_path / "a.csv", index=False)
    store(tmp_path / "a.csv", tmp_path / "stored.csv")
    others = data_set(tmp_path / "others", ROWS.assign(id=["10", "9", "201"]))
    with pytest.raises(BoneAgeError, match="not of the images"):
        restore(tmp_path / "stored.csv", others, tmp_path / "restored.csv")
    assert not (tmp_path / "restored.csv").exists()


def stored_file(file: Path, errors: np.ndarray, first: int = 0) -> Path:
    pd.DataFrame({"id": [f"{first + at:03}" for at in range(len(errors))], "error": errors}).to_csv(file)
    store(file, file.with_suffix(".stored"))
    return file.with_suffix(".stored")


def test_stored_errors_are_compared_without_images(tmp_path: Path):
    off = np.random.default_rng(0).normal(0, 10, 200).round(2)
    one, worse = (
        stored_file(tmp_path / "one.csv", off),
        stored_file(tmp_path / "worse.csv", off + np.sign(off)),
    )
    same = stored_file(tmp_path / "same.csv", off)
    opposite = stored_file(tmp_path / "opposite.csv", -off)
    results, tests = compare(one, [worse, one, same, Path(f"{one}+{opposite}")])
    assert [row[0] for row in results[1:]] == ["one", "worse", "same", "one+opposite"]
    assert results[4][1] == "0.00 (0.00 to 0.00)"
    assert float(results[1][1].split()[0]) == pytest.approx(np.abs(off).mean(), abs=0.01)
    second, third, _ = tests[1:]
    assert second[:2] == ["worse − one", "+1.00 (+1.00 to +1.00)"]
    assert second[3] == "0.0006"  # of three tests: 3 × 2 / 10,001
    assert third[1:4] == ["+0.00 (+0.00 to +0.00)", "1.0000", "1.0000"]
    (pooled,) = compare(Path(f"{one},{one}"), [Path(f"{worse},{same}")])[1][1:]
    assert pooled[0] == "worse,same − one,one"
    assert pooled[1].startswith("+0.50 (")
    assert pooled[4] == "400 (all)"


def test_mismatched_errors_are_refused(tmp_path: Path):
    off = np.zeros(30)
    with pytest.raises(BoneAgeError, match="not of the images of"):
        compare(stored_file(tmp_path / "one.csv", off), [stored_file(tmp_path / "other.csv", off, first=1)])
    with pytest.raises(BoneAgeError, match="not of the same images"):
        compare(Path(f"{tmp_path}/one.stored+{tmp_path}/other.stored"), [])
