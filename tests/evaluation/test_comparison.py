"""Comparison of finished, running, stopped and failed runs, and of records."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from filelock import FileLock
from omegaconf import DictConfig, OmegaConf
from PIL import Image

from boneage_pl.errors import BoneAgeError
from boneage_pl.evaluation.compare import compare_runs
from boneage_pl.evaluation.comparison import compare_pair
from boneage_pl.evaluation.paired_test import holm_correction
from boneage_pl.evaluation.run_results import load_results
from boneage_pl.training.run_dir import LOCK

CONFIG = {
    "seed": 1,
    "model": {},
    "data": {"root": "data/rsna"},
    "optimizer": {"lr": 0.01},
    "trainer": {"max_epochs": 3},
}
EPOCHS = [(90.0, 60.0), (40.0, 30.0), (35.0, 31.0)]


def ages(first: int = 0, count: int = 60) -> pd.DataFrame:
    ids = np.arange(first, first + count)
    return pd.DataFrame({"id": ids.astype(str), "male": ids % 2 == 0, "bone_age": 12.0 + 3 * (ids % 60)})


def make_run(
    folder: Path,
    rows: pd.DataFrame | None = None,
    off: float = 5.0,
    epochs: list[tuple[float, float]] = EPOCHS,
    **changed: Any,
) -> Path:
    """Write a run's folder, unfinished without `rows`; predictions are about `off` months too old."""
    (folder / ".hydra").mkdir(parents=True)
    config = OmegaConf.to_container(OmegaConf.merge(CONFIG, changed))
    (folder / ".hydra" / "config.yaml").write_text(yaml.safe_dump(config))
    (folder / ".hydra" / "overrides.yaml").write_text("[]")
    session = {"hardware": {"gpus": [], "cores": 2}}
    timed = [{"epoch": n, "seconds": 60.0} for n in range(len(epochs))]
    run = {"experiment": folder.parent.name, "config": config, "sessions": [session], "epochs": timed}
    (folder / "run.json").write_text(json.dumps(run))
    if epochs:
        table = [f"{n},{train},{val},0.01" for n, (train, val) in enumerate(epochs)]
        (folder / "metrics.csv").write_text("\n".join(["epoch,train_mae,val_mae,lr", *table, ""]))
    if rows is None:
        return folder
    error = off + np.random.default_rng(0).normal(0, 1, len(rows))
    predictions = rows.assign(
        predicted=rows["bone_age"] + error, error=error, group=0, seen_in_training=False
    )
    mae = {"value": float(np.abs(error).mean()), "low": off - 1, "high": off + 1}
    report = folder / "report"
    report.mkdir()
    predictions.to_csv(report / "predictions.csv", index=False)
    (report / "metrics.json").write_text(json.dumps({"overall": {"mae": mae}, "population_weighted": None}))
    verdict = "learned" if off < 20 else "did not learn"
    (report / "summary.json").write_text(json.dumps({"verdict": verdict, "start": None}))
    for name in ("groups", "worst_cases"):
        Image.new("RGB", (40, 30), "red").save(report / f"{name}.png")
    return folder


def compare(capsys: Any, caplog: Any, runs: Any, **options: Any) -> tuple[str, Path]:
    config = OmegaConf.load(Path(__file__).parents[2] / "conf" / "compare.yaml")
    assert isinstance(config, DictConfig)
    caplog.clear()
    with caplog.at_level("INFO"):
        page = compare_runs(DictConfig(OmegaConf.merge(config, {"runs": runs, **options})))
    return caplog.text + capsys.readouterr().out, page


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_runs_of_every_state_are_tabulated(there: Path, capsys, caplog):
    make_run(there / "outputs/v1/good", ages(), 5.0)
    make_run(there / "outputs/v1/bad", ages(), 50.0, optimizer={"lr": 0.1})
    make_run(there / "outputs/v1/stopped", epochs=EPOCHS[:2])
    make_run(there / "outputs/v1/none", epochs=[])
    going = make_run(there / "outputs/v1/going", epochs=EPOCHS[:1])
    with FileLock(going / LOCK):
        stdout, page = compare(capsys, caplog, ["outputs/v1/*"])
    for words in (
        "did not learn",
        "stopped after 2 of 3 epochs",
        "running, 1 of 3 epochs",
        "stopped in its first epoch",
        "v1/stopped is not finished",
        "optimizer.lr",
        "3.0 min",
    ):
        assert words in stdout
    assert "trainer.max_epochs" not in stdout  # equal in all runs
    text = page.read_text()
    assert text.count("data:image/png;base64,") == 2
    assert "http" not in text
    assert "30.00" in text  # the best epoch of the stopped run


def test_difference_is_first_minus_second(there: Path):
    rows = ages().replace({"id": {"0": "NA"}})  # a valid id
    near, far = (load_results(make_run(there / f"o/v1/{off}", rows, off)) for off in (5.0, 9.0))
    test = compare_pair(near, far)
    assert test["difference"]["value"] == pytest.approx(-4.0)
    assert test["p"] < 0.001
    assert (test["images"], test["all"]) == (60, True)


@pytest.mark.parametrize(
    ("rows", "why"),
    [
        (ages(1000), "no shared images"),
        (ages(50), "10 shared images; 20 are needed"),
        (ages().assign(bone_age=200.0), "equal ids have different ages"),
    ],
)
def test_different_data_are_not_tested(there: Path, rows: pd.DataFrame, why: str, capsys, caplog):
    make_run(there / "a/v1/one", ages())
    make_run(there / "a/v1/two", rows)
    assert why in compare(capsys, caplog, ["a/v1/one", "a/v1/two"])[0]


def test_trained_rows_are_not_tested(there: Path):
    one, other = (load_results(make_run(there / f"o/v1/{off}", ages(), off)) for off in (5.0, 9.0))
    one.predictions.loc[:19, "seen_in_training"] = True
    assert compare_pair(one, other)["images"] == 40


def test_p_values_are_holm_adjusted():
    assert holm_correction([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm_correction([0.5, 0.9]) == pytest.approx([1.0, 1.0])
    assert holm_correction([]) == []


def test_equal_run_names_become_paths(there: Path, capsys, caplog):
    for root in ("one", "two"):
        make_run(there / root / "v1/x", ages())
    stdout, _ = compare(capsys, caplog, ["one/v1/x", "two/v1/x"])
    assert "one/v1/x" in stdout
    assert "two/v1/x" in stdout


def test_record_gives_equal_results_without_ids(there: Path, capsys, caplog):
    make_run(there / "outputs/v1/a", ages(), 5.0)
    make_run(there / "outputs/v1/b", ages(), 9.0)
    live, _ = compare(capsys, caplog, ["outputs/v1/*"], save_records="records")
    kept = sorted(str(p.relative_to(there)) for p in (there / "records").rglob("*") if p.is_file())
    names = [
        "config.yaml",
        "groups.png",
        "metrics.csv",
        "metrics.json",
        "paired_tests.json",
        "run.json",
        "summary.json",
    ]
    assert kept == [
        f"records/v1_{run}/{name}" for run in "ab" for name in names
    ]  # without worst cases and ids
    again, _ = compare(capsys, caplog, ["records/v1_b", "records/v1_a"])
    assert "-4.00 (-4.00 to -4.00)" in live
    assert "+4.00 (+4.00 to +4.00)" in again
    make_run(there / "outputs/v1/c", ages(), 7.0)
    compare(capsys, caplog, ["outputs/v1/a", "outputs/v1/c"], save_records="records")
    assert set(json.loads((there / "records/v1_a/paired_tests.json").read_text())) == {"v1_b", "v1_c"}
    alone = compare(capsys, caplog, ["records/v1_b", "records/v1_c"])[0]
    assert "were not recorded together" in alone


def test_default_page_has_everything(there: Path, capsys, caplog):
    make_run(there / "outputs/v1/a", ages(), 5.0)
    make_run(there / "outputs/v1/b", ages(), 9.0)
    _, page = compare(capsys, caplog, ["outputs/v1/*"], format="markdown")
    assert page.name == "compare.md"
    assert "| v1/a − v1/b | -4.00 (-4.00 to -4.00) | 0.0002 |" in page.read_text()
    assert {path.name for path in page.parent.glob("*.png")} == {"compare_curves.png", "compare_errors.png"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"runs": []}, "got 0"),
        ({"runs": ["outputs/v1/a"]}, "got 1"),
        ({"runs": ["nowhere", "outputs/v1/a"]}, "runs=nowhere: not a run folder"),
        ({"runs": ["outputs", "outputs/v1/a"]}, "outputs is not the folder of a run"),
        ({"format": "pdf"}, "format=pdf: there are html, markdown"),
        ({"out": "page.md"}, "format=html needs the suffix .html"),
        ({"out": "mine.html"}, "is not overwritten"),
        ({"save_records": "records", "runs": ["outputs/v1/a", "outputs/v1/going"]}, "is not a finished run"),
        ({"save_records": "mine.html"}, "cannot be written"),
        ({"runs": ["outputs/v1/a", "outputs/v1/broken"]}, "unreadable content"),
    ],
)
def test_invalid_options_are_refused(there: Path, options: dict[str, Any], message: str, capsys, caplog):
    for name in ("a", "b", "broken"):
        make_run(there / "outputs/v1" / name, ages())
    make_run(there / "outputs/v1/going")
    (there / "outputs/v1/broken/report/metrics.json").write_text('{"overall"')
    (there / "mine.html").write_text("<p>my own notes")
    with pytest.raises(BoneAgeError) as raised:
        compare(capsys, caplog, **{"runs": ["outputs/v1/a", "outputs/v1/b"], **options})
    assert message in str(raised.value)
    assert (there / "mine.html").read_text() == "<p>my own notes"
    assert not list(there.glob("outputs/comparisons/*"))
