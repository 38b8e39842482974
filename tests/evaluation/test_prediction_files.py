"""Reading files of predictions, and comparing them with each other and with runs."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from omegaconf import DictConfig, OmegaConf

from boneage_pl.errors import BoneAgeError
from boneage_pl.evaluation.breakdown import predictions_frame
from boneage_pl.evaluation.compare import compare_runs
from boneage_pl.evaluation.comparison import paired_tests, paired_tests_by_part
from boneage_pl.evaluation.paired_test import paired_comparison
from boneage_pl.evaluation.prediction_files import predictions_for, read_predictions
from boneage_pl.evaluation.run_results import RunResults, load_results
from boneage_pl.prediction.output import open_writer
from boneage_pl.prediction.types import Prediction
from tests.evaluation.test_comparison import make_run

EVALUATED = pd.DataFrame({"id": ["001", "2", "2"], "male": True, "bone_age": [50.0, 60.0, 60.0]})


def test_predictions_are_matched_by_id(tmp_path: Path):
    (tmp_path / "p.csv").write_text(
        "id,predicted,bone_age\n2,61,60.4\n001,55.5,50\n7,1,2\nNA,1,2\n2,61,60.4\n"
    )
    assert list(read_predictions(tmp_path / "p.csv", "runs")["id"]) == ["2", "001", "7", "NA"]
    months = predictions_for(tmp_path / "p.csv", EVALUATED, "compare_with")
    assert months.to_dict() == {"001": 55.5, "2": 61.0}


def test_file_of_predict_is_read(tmp_path: Path):
    with open_writer(tmp_path / "p.csv") as writer:
        for path, months, male in (("a/001.png", 55.5, True), ("b.9.dcm", 61.0, False)):
            writer.write(Prediction(path, male=male, months=months))
        writer.write(Prediction("c.png", error="damaged"))
    table = read_predictions(tmp_path / "p.csv", "runs")
    expected = {"id": ["001", "b.9"], "predicted": [55.5, 61.0], "male": [True, False]}
    assert table.to_dict("list") == expected


@pytest.mark.parametrize("words", [("True", "False"), ("M", "F"), ("boy", "girl"), ("1", "0")])
def test_sex_words_are_accepted(tmp_path: Path, words: tuple[str, str]):
    (tmp_path / "p.csv").write_text(f"id,predicted,male\na,1,{words[0]}\nb,2,{words[1]}\n")
    assert read_predictions(tmp_path / "p.csv", "runs")["male"].tolist() == [True, False]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("case,months\n1,2\n", "lacks id and predicted; its columns are case, months"),
        ("id,predicted\n2,old\n", "1 predictions are not finite numbers (id 2)"),
        ("id,predicted\n2,inf\n", "1 predictions are not finite numbers (id 2)"),
        ("id,predicted,bone_age\n2,61,5 years\n", "1 bone ages are not finite numbers (id 2)"),
        ("id,predicted,male\n2,61,perhaps\n", "male must be True or False; it is not for id 2"),
        ("id,predicted\n2,61\n2,62\n", "several predictions for an image (id 2)"),
        ("id,predicted\n2,61\n,62\n", "a row without an id"),
        ("id,predicted\n", "no row"),
        ("id,predicted\n1,61\n", "has none of the evaluated images: its ids look like 1, theirs like 001"),
        ("id,predicted,bone_age\n2,61,160\n", "bone ages for 1 of the 1 images (id 2: 160, here 60 months)"),
        ("", "cannot be read as a table"),
    ],
)
def test_invalid_file_is_refused(tmp_path: Path, content: str, problem: str):
    (tmp_path / "p.csv").write_text(content)
    with pytest.raises(BoneAgeError) as error:
        predictions_for(tmp_path / "p.csv", EVALUATED, "compare_with")
    assert problem in str(error.value)
    assert f"compare_with={tmp_path / 'p.csv'}" in str(error.value)


@pytest.fixture
def files(tmp_path: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """300 children; `theirs` lacks 50 of them and the ages, and is worse only for boys over 14 years."""
    rng = np.random.default_rng(0)
    ages = rng.uniform(10, 228, 300).round()
    ours = pd.DataFrame({"id": [f"{n:04}" for n in range(300)], "male": rng.random(300) < 0.5})
    ours = ours.assign(bone_age=ages, predicted=ages + rng.normal(0, 8, 300))
    worse = ours["male"] & (ages >= 168)
    theirs = ours[["id"]].assign(predicted=ages + rng.normal(0, 8, 300) + 30 * worse)
    theirs = theirs.iloc[50:].sample(frac=1, random_state=0)
    for name, table in (("ours", ours), ("theirs", theirs)):
        (tmp_path / name).mkdir()
        table.to_csv(tmp_path / name / "predictions.csv", index=False)
    return ours, theirs


def compare(folder: Path, runs: list[str], **options: str) -> Path:
    config = OmegaConf.load(Path(__file__).parents[2] / "conf" / "compare.yaml")
    options = {"out": str(folder / "page.html"), **options}
    return compare_runs(DictConfig(OmegaConf.merge(config, {"runs": runs, **options})))


def test_files_are_compared_on_common_images(
    tmp_path: Path, files: tuple[pd.DataFrame, pd.DataFrame], caplog: pytest.LogCaptureFixture
):
    ours, theirs = files
    with caplog.at_level("INFO"):
        page = compare(tmp_path, [str(tmp_path / "*" / "predictions.csv")]).read_text()
    both = ours.merge(theirs, on="id")
    errors = [both[f"predicted_{name}"] - both["bone_age"] for name in "xy"]
    assert f"{errors[1].abs().mean():.2f} (" in page  # with the ages of the other file
    assert f"{errors[0].abs().mean() - errors[1].abs().mean():.2f} (" in page
    assert "250 (shared)" in page
    assert "ours − theirs" in caplog.text  # named by their folders


def test_runs_and_files_are_compared_alike(tmp_path: Path, files: tuple[pd.DataFrame, pd.DataFrame]):
    ours, _ = files
    run = make_run(tmp_path / "outputs" / "v1" / "a", ours.drop(columns="predicted"), 5.0)
    page = compare(
        tmp_path,
        [str(run), str(tmp_path / "theirs" / "predictions.csv")],
        format="markdown",
        out=str(tmp_path),
    )
    assert "| v1/a − predictions |" in page.read_text()
    one, other = load_results(run), load_results(run / "report" / "predictions.csv")
    row = paired_tests([(one, other)])[1]
    assert (row[1], row[-1]) == ("+0.00 (+0.00 to +0.00)", "300 (all)")


def test_columns_of_others_mean_nothing(tmp_path: Path, files: tuple[pd.DataFrame, pd.DataFrame]):
    paths = [str(tmp_path / "*" / "predictions.csv")]
    plain = compare(tmp_path, paths).read_text()
    theirs = files[1].assign(error="large", image="hand", stratum="x", seen_in_training="no", group="a")
    theirs.to_csv(tmp_path / "theirs" / "predictions.csv", index=False)
    assert compare(tmp_path, paths).read_text() == plain


def test_differing_part_is_found(tmp_path: Path, files: tuple[pd.DataFrame, pd.DataFrame]):
    ours, theirs = (table.merge(files[0][["id", "bone_age"]], on="id", suffixes=("", "_")) for table in files)
    runs = [
        RunResults(tmp_path / name / "predictions.csv", name, predictions=table.assign(error=error))
        for name, table in (("ours", ours), ("theirs", theirs))
        for error in [table["predicted"] - table["bone_age"]]
    ]
    head, *rows = paired_tests_by_part([(runs[0], runs[1])])
    adjusted = {row[1]: float(row[head.index("p (Holm)")]) for row in rows}
    assert list(adjusted)[:2] == ["girls", "boys"]
    assert {part for part, p in adjusted.items() if p < 0.05} == {"boys", "over 14 years"}
    assert all(row[2].startswith("-") for row in rows if row[1] == "boys")
    third = RunResults(
        runs[0].path, "third", predictions=ours.assign(error=ours["predicted"] - ours["bone_age"] + 1)
    )
    head, *rows = paired_tests_by_part([(runs[0], runs[1]), (runs[0], third), (runs[1], third)])
    p = np.array([[float(row[head.index(name)]) for name in ("p", "p (Holm)")] for row in rows])
    assert len(rows) > 12
    assert p[p[:, 0].argmin(), 1] == pytest.approx(len(rows) * p[:, 0].min(), abs=0.002)  # of the whole table


def test_files_without_ages_are_refused(tmp_path: Path, files: tuple[pd.DataFrame, pd.DataFrame]):
    ours, _ = files
    ours.drop(columns="bone_age").to_csv(tmp_path / "ours" / "predictions.csv", index=False)
    with pytest.raises(BoneAgeError, match="neither it nor the other results have bone ages"):
        compare(tmp_path, [str(tmp_path / "*" / "predictions.csv")])
    ours.to_csv(tmp_path / "ours" / "predictions.csv", index=False)
    with pytest.raises(BoneAgeError, match="is not a finished run"):
        compare(tmp_path, [str(tmp_path / "*" / "predictions.csv")], save_records=str(tmp_path / "records"))
    assert not (tmp_path / "page.html").exists()


def test_strata_of_predictions_narrow_the_interval():
    rng = np.random.default_rng(0)
    ages = np.repeat([20.0, 120.0, 200.0], 40)
    rows = pd.DataFrame({"id": [str(n) for n in range(120)], "male": True, "bone_age": ages})
    worse = ages + rng.normal(0, 5, 120) + ages  # its error grows with age
    widths = []
    for protocol in ("disjoint", ""):
        one, other = (
            predictions_frame(rows, months, [1.0, 60.0, 140.0, 228.0], {}, set(), protocol=protocol)
            for months in (worse, ages + 1)
        )
        found = paired_comparison(one, other)["difference"]
        widths.append(found["high"] - found["low"])
    assert widths[0] < 0.2 * widths[1]
