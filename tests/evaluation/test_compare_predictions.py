"""Files of answers compared, whoever has answered."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from omegaconf import OmegaConf

from boneage_pl.errors import BoneAgeError
from boneage_pl.evaluation.compare import compare_prediction_files, paired_tests_by_subgroup
from tests.helpers.fork_server import Forks


def config(folder: Path, **options: Any) -> Any:
    return OmegaConf.create(
        {
            "predictions": [
                str(folder / "ours" / "predictions.csv"),
                str(folder / "theirs" / "predictions.csv"),
            ],
            "format": "html",
            "template": None,
            "save_records": None,
            "out": str(folder / "page.html"),
            "output_dir": str(folder),
            **options,
        }
    )


@pytest.fixture
def files(tmp_path: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """300 children; theirs lacks 50 of them, and is worse for boys over 14 years alone."""
    rng = np.random.default_rng(0)
    ours = pd.DataFrame(
        {
            "id": [f"{n:04}" for n in range(300)],
            "male": rng.random(300) < 0.5,
            "bone_age": rng.uniform(10, 228, 300).round(),
        }
    )
    theirs = ours[["id"]].assign(predicted=ours["bone_age"] + rng.normal(0, 8, 300))
    worse = ours["male"] & (ours["bone_age"] >= 168)
    theirs.loc[worse, "predicted"] += 30 * rng.choice([-1, 1], worse.sum())
    ours["predicted"] = ours["bone_age"] + rng.normal(0, 8, 300)
    theirs = theirs.iloc[50:].sample(frac=1, random_state=0)
    for name, table in (("ours", ours), ("theirs", theirs)):
        (tmp_path / name).mkdir()
        table.to_csv(tmp_path / name / "predictions.csv", index=False)
    return ours, theirs


def test_files_are_compared_on_common_images(
    tmp_path: Path, files: tuple[pd.DataFrame, pd.DataFrame], caplog: pytest.LogCaptureFixture
):
    ours, theirs = files
    with caplog.at_level("INFO"):
        page = compare_prediction_files(config(tmp_path)).read_text()
    both = ours.merge(theirs, on="id")
    for name in "xy":
        assert f"{(both[f'predicted_{name}'] - both['bone_age']).abs().mean():.2f} (" in caplog.text
    assert "ours − theirs" in caplog.text  # the folders tell the files apart
    assert "for the 250 images" in page
    assert "boys over 14 years" in page


def test_sex_words_are_accepted(tmp_path: Path, files: tuple[pd.DataFrame, pd.DataFrame]):
    ours, _ = files
    plain = compare_prediction_files(config(tmp_path)).read_text()
    words = ours.assign(male=ours["male"].map({True: "M", False: "F"}))
    words.to_csv(tmp_path / "ours" / "predictions.csv", index=False)
    assert compare_prediction_files(config(tmp_path)).read_text() == plain


def test_command_takes_runs_or_predictions(
    tmp_path: Path, files: tuple[pd.DataFrame, pd.DataFrame], forks: Forks
):
    assert len(files) == 2
    named = "predictions=[ours/predictions.csv,theirs/predictions.csv]"
    done = forks.start("boneage_pl.compare", named, "out=page.html", cwd=tmp_path).wait()
    assert done.returncode == 0, done.stderr
    assert "ours − theirs  boys over 14 years" in done.stdout
    assert (tmp_path / "page.html").is_file()
    refused = forks.start("boneage_pl.compare", named, "runs=[a,b]", cwd=tmp_path).wait()
    assert refused.returncode == 2
    assert refused.stderr == "error: runs= and predictions= exclude each other.\n"


def test_differing_subgroup_is_found(
    files: tuple[pd.DataFrame, pd.DataFrame],
):
    ours, theirs = files
    both = ours.merge(theirs, on="id", suffixes=("", "_theirs")).assign(image=lambda rows: rows["id"])
    answers = {
        "ours": both.assign(error=both["predicted"] - both["bone_age"]),
        "theirs": both.assign(error=both["predicted_theirs"] - both["bone_age"]),
    }
    head, *rows = paired_tests_by_subgroup(answers)
    adjusted = {row[1]: float(row[head.index("p (Holm)")]) for row in rows}
    assert len(adjusted) == 1 + 2 + 4 + 8
    assert {part for part, p in adjusted.items() if p < 0.05} == {
        "all",
        "boys",
        "over 14 years",
        "boys over 14 years",
    }
    assert all(row[3].startswith("-") for row in rows if row[1] == "boys over 14 years")
    third = answers["ours"].assign(error=answers["ours"]["error"] + 1)
    head, *rows = paired_tests_by_subgroup({**answers, "third": third})
    p = np.array([[float(row[head.index(name)]) for name in ("p", "p (Holm)")] for row in rows])
    assert len(rows) == 3 * 15
    assert p[p[:, 0].argmin(), 1] == pytest.approx(45 * p[:, 0].min(), abs=0.003)  # of the whole table


def test_invalid_files_are_refused(tmp_path: Path, files: tuple[pd.DataFrame, pd.DataFrame]):
    ours, theirs = files
    file = tmp_path / "theirs" / "predictions.csv"
    for table, said in (
        (theirs.drop(columns="predicted"), "lacks predicted"),
        (theirs.assign(id="x" + theirs["id"]), "has none of the evaluated images"),
        (theirs.assign(bone_age=3.0), "another bone age"),
        (theirs.assign(predicted="old"), "predictions are no numbers"),
        (theirs.assign(bone_age="12 y"), "bone ages are no numbers"),
    ):
        table.to_csv(file, index=False)
        with pytest.raises(BoneAgeError, match=said) as error:
            compare_prediction_files(config(tmp_path))
        assert f"predictions={file}" in str(error.value)
    theirs.to_csv(file, index=False)
    ours.assign(male="perhaps").to_csv(tmp_path / "ours" / "predictions.csv", index=False)
    with pytest.raises(BoneAgeError, match="male says no sex for 0000"):
        compare_prediction_files(config(tmp_path))
    ours.drop(columns="bone_age").to_csv(tmp_path / "ours" / "predictions.csv", index=False)
    with pytest.raises(BoneAgeError, match="no file has bone ages"):
        compare_prediction_files(config(tmp_path))
    with pytest.raises(BoneAgeError, match="at least two"):
        compare_prediction_files(config(tmp_path, predictions=str(file)))
    with pytest.raises(BoneAgeError, match="are for runs"):
        compare_prediction_files(config(tmp_path, save_records="records"))
    assert not (tmp_path / "page.html").exists()
