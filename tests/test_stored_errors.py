"""Errors kept of held-out images are predictions again for whoever has the images, and for nobody else."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from boneage_pl.errors import BoneAgeError
from experiments.stored_errors import compare, give, keep

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
    with pytest.raises(BoneAgeError, match="not of the images"):
        give(tmp_path / "kept.csv", others, tmp_path / "given.csv")
    assert not (tmp_path / "given.csv").exists()


def kept(file: Path, errors: np.ndarray, first: int = 0) -> Path:
    pd.DataFrame({"id": [f"{first + at:03}" for at in range(len(errors))], "error": errors}).to_csv(file)
    keep(file, file.with_suffix(".kept"))
    return file.with_suffix(".kept")


def test_stored_errors_are_tested_without_images(tmp_path: Path):
    off = np.random.default_rng(0).normal(0, 10, 200).round(2)
    one, worse = kept(tmp_path / "one.csv", off), kept(tmp_path / "worse.csv", off + np.sign(off))
    same = kept(tmp_path / "same.csv", off)
    opposite = kept(tmp_path / "opposite.csv", -off)
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
        compare(kept(tmp_path / "one.csv", off), [kept(tmp_path / "other.csv", off, first=1)])
    with pytest.raises(BoneAgeError, match="not of the same images"):
        compare(Path(f"{tmp_path}/one.kept+{tmp_path}/other.kept"), [])
