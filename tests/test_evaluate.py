"""The commands `evaluate` and `compare`."""

import json
import re
import shutil
from html import unescape
from pathlib import Path

import pandas as pd
import pytest
import torch
from PIL import Image

from boneage_pl.data.corruptions import CORRUPTIONS, RESAMPLING_CORRUPTIONS
from tests.conftest import Result
from tests.helpers.fork_server import Forks
from tests.training.test_resume import TINY

OWN = "+model._target_=tests.helpers.tiny_models.Tiny"
IMAGES = "boneage-training-dataset"


class Home:
    """A folder with two runs of one experiment with different seeds, and their data."""

    def __init__(self, path: Path, forks: Forks) -> None:
        self.path = path
        self.forks = forks
        for name, options in (("a", []), ("b", ["optimizer.lr=0.003"])):
            command = ["+experiment=v1", *TINY, "trainer.max_epochs=3", *options]
            self.forks.run(*command, f"hydra.run.dir=outputs/{name}", cwd=path)
        self.root = path / "data" / "phantom"
        self.table = pd.read_csv(self.root / "boneage-training-dataset.csv", dtype={"id": str})
        split = pd.read_csv(path / "outputs" / "a" / "split.csv", dtype={"id": str})
        self.trained = sorted(set(split.loc[split["subset"] == "train", "id"]))
        self.unseen = sorted(set(self.table["id"]) - set(self.trained))

    def evaluate(self, *options: str, check: bool = True, cwd: Path | None = None, **env: str) -> Result:
        result = self.forks.start("boneage_pl.evaluate", OWN, *options, cwd=cwd or self.path, **env).wait()
        assert not check or result.returncode == 0, result.stdout + result.stderr
        return result

    def compare(self, *options: str) -> Result:
        return self.forks.start("boneage_pl.compare", *options, cwd=self.path).wait()

    def other(self, name: str, ids: dict[str, str]) -> Path:
        """Write a data set: new id → id of the phantom's image."""
        root = self.path / name
        (root / "images").mkdir(parents=True)
        for new, old in ids.items():
            shutil.copy(self.root / IMAGES / f"{old}.png", root / "images" / f"{new}.png")
        return root


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, forks: Forks) -> Home:
    return Home(tmp_path_factory.mktemp("home"), forks)


def numbers_of(folder: Path) -> dict:
    return json.loads((folder / "metrics.json").read_text())


def mae_of(folder: Path) -> float:
    return numbers_of(folder)["overall"]["mae"]["value"]


@pytest.mark.parametrize("batch", [7, pytest.param(1, marks=pytest.mark.slow)])
def test_validation_subset_gives_best_mae(home: Home, batch: int):
    home.evaluate("ckpt=outputs/a", f"out=val{batch}", f"data.batch_size={batch}")
    best = pd.read_csv(home.path / "outputs" / "a" / "metrics.csv")["val_mae"].min()
    assert mae_of(home.path / f"val{batch}") == pytest.approx(best, abs=1e-3)
    assert mae_of(home.path / "outputs" / "a" / "report") == pytest.approx(best, abs=1e-3)


def test_report_is_self_contained_with_caveats(home: Home):
    home.evaluate("ckpt=outputs/a", "out=page", FIGURES="1")
    page = (home.path / "page" / "report.html").read_text()
    assert "These images\nalso selected the reported epoch" in page
    assert "These are synthetic radiographs" in page
    assert "RSNA 2017 test set" in unescape(page)
    assert "http" not in page  # self-contained
    assert (home.path / "page" / "bland_altman.png").stat().st_size > 5000
    record = json.loads((home.path / "page" / "run.json").read_text())
    assert record["data"]["images"] == record["predictions"][0]["images"] == 20
    assert record["sessions"][0]["packages"]["torch"] in page


def test_report_has_interval_coverage(home: Home):
    home.evaluate("ckpt=outputs/a", "out=sure_own")
    own = numbers_of(home.path / "sure_own")
    assert (own["rows_seen_in_validation"], own["rows_seen_in_training"]) == (own["rows"], 0)
    assert own["coverage"]["parts"][0]["covered"]["value"] >= 0.9  # measured on the calibration images
    home.evaluate("ckpt=outputs/a", "subset=all", "leakage=exclude", "out=sure")
    numbers = numbers_of(home.path / "sure")
    coverage = numbers["coverage"]
    assert (numbers["rows_seen_in_validation"], numbers["rows_seen_in_training"]) == (numbers["rows"], 0)
    predictions = pd.read_csv(home.path / "sure" / "predictions.csv")
    inside = predictions["bone_age"].between(predictions["lower"], predictions["upper"])
    parts = {part["name"]: part["covered"]["value"] for part in coverage["parts"]}
    assert parts["all"] == pytest.approx(inside.mean())
    assert parts["boys"] == pytest.approx(inside[predictions["male"]].mean())
    assert parts["under 5 years"] == pytest.approx(inside[predictions["bone_age"] < 60].mean())
    for name, low, high in (
        ("under 5 years", 0, 60),
        ("5 to 10 years", 60, 120),
        ("over 14 years", 168, 999),
    ):
        of_region = inside[predictions["predicted"].between(low, high, inclusive="left")]
        assert of_region.empty or parts[f"predicted {name}"] == pytest.approx(of_region.mean())
    assert "Prediction intervals" in (home.path / "sure" / "report.html").read_text()


def test_moved_run_is_evaluated_from_anywhere(home: Home, tmp_path: Path):
    shutil.copytree(home.path / "outputs" / "a", tmp_path / "moved")
    home.evaluate("ckpt=moved", "out=there", cwd=tmp_path)
    assert mae_of(tmp_path / "there") == mae_of(home.path / "outputs" / "a" / "report")


def test_table_as_root_is_stored(home: Home, tmp_path: Path):
    root = home.other("twin", {i: i for i in home.table["id"]})
    for name in ("a.csv", "b.csv"):  # ambiguous
        home.table.to_csv(root / name, index=False)
    content = torch.load(home.path / "outputs" / "a" / "checkpoints" / "best.ckpt", weights_only=True)
    record = content["boneage_pl"]
    assert record["root"] == str(home.root)
    record["root"], record["config"]["data"]["root"] = str(root / "a.csv"), "twin/a.csv"
    torch.save(content, tmp_path / "named.ckpt")
    home.evaluate("ckpt=named.ckpt", "out=there", cwd=tmp_path)
    assert mae_of(tmp_path / "there") == mae_of(home.path / "outputs" / "a" / "report")


def test_later_evaluation_gets_own_folder(home: Home):
    before = {p: p.read_bytes() for p in (home.path / "outputs" / "a" / "report").iterdir()}
    home.evaluate("ckpt=outputs/a")
    assert len(list((home.path / "outputs" / "a").glob("report_validation_*/report.html"))) == 1
    assert {p: p.read_bytes() for p in (home.path / "outputs" / "a" / "report").iterdir()} == before


def test_leakage_is_an_error_by_default(home: Home):
    result = home.evaluate("ckpt=outputs/a", "subset=all", "out=no", check=False)
    assert result.returncode == 2
    assert f"{len(home.trained)} of the 80 images are training images" in result.stderr
    assert not (home.path / "no").exists()
    home.evaluate("ckpt=outputs/a", "subset=all", "leakage=exclude", "out=dropped")
    predictions = pd.read_csv(home.path / "dropped" / "predictions.csv", dtype={"id": str})
    assert sorted(predictions["id"]) == home.unseen
    left_out = f"every image of the table except {len(home.trained)} training images"
    page = (home.path / "dropped" / "report.html").read_text()
    assert left_out in page
    assert "These images\nalso selected the reported epoch" in page  # only validation images remain
    home.evaluate("ckpt=outputs/a", "subset=all", "leakage=allow", "out=marked")
    predictions = pd.read_csv(home.path / "marked" / "predictions.csv", dtype={"id": str})
    assert sorted(predictions.loc[predictions["seen_in_training"], "id"]) == home.trained
    page = (home.path / "marked" / "report.html").read_text()
    assert "75.0 % of the rows show training images" in page
    assert "The images of 25.0 % of these rows\nalso selected the reported epoch" in page


def test_leaked_copy_under_other_id_is_detected(home: Home):
    """Also if the file differs: the pixels are compared."""
    one, other = home.trained[:2]
    root = home.other("copies", {"900": one, "901": home.unseen[0], "902": other, other: home.unseen[1]})
    saved = root / "images" / "902.png"
    Image.open(saved).save(saved, compress_level=1)
    assert saved.read_bytes() != (home.root / IMAGES / f"{other}.png").read_bytes()
    (root / "ages.csv").write_text(
        f"id,boneage,male\n900,50,True\n901,60,True\n902,70,True\n{other},70,False\n"
    )
    options = ["ckpt=outputs/a", f"data.root={root}"]
    result = home.evaluate(*options, "out=copied", check=False)
    assert result.returncode == 2
    assert (
        f"3 of the 4 images are training images of outputs/a/checkpoints/best.ckpt (id {other}, 900, 902)"
        in (result.stderr)
    )
    result = home.evaluate(*options, "leakage=content_only", "out=copied", check=False)
    assert "2 of the 4 images" in result.stderr
    assert "(id 900, 902)" in result.stderr


def test_unmapped_columns_are_named(home: Home):
    root = home.other("foreign", {"901": home.unseen[0], "902": home.unseen[1]})
    (root / "t.csv").write_text("Nummer,Alter,Geschlecht\n901,50,M\n902,60,F\n")
    result = home.evaluate("ckpt=outputs/a", f"data.root={root}", check=False)
    assert result.returncode == 2
    assert "its columns are Nummer, Alter, Geschlecht" in result.stderr
    assert "data.columns.bone_age=<column> data.columns.male=<column>" in result.stderr


def test_compare_with_needs_no_own_validation_images(home: Home):
    """It must not have been trained on the evaluated images."""
    home.forks.run("+experiment=v1", *TINY, "data.seed=3", "hydra.run.dir=outputs/c", cwd=home.path)
    result = home.evaluate("ckpt=outputs/a", "compare_with=outputs/c", check=False)
    assert result.returncode == 2
    assert "of the 20 images are training images of outputs/c/checkpoints/best.ckpt (id" in result.stderr
    home.evaluate("ckpt=outputs/a", "compare_with=outputs/c", "leakage=exclude", "out=rival")
    assert 0 < numbers_of(home.path / "rival")["paired_comparison"]["images"] < 20


def test_inherited_training_images_count_as_leakage(home: Home):
    """v2 with its own split has v1's weights, so v1's training images are known to it."""
    options = [o for o in TINY if not o.startswith("trainer.max_epochs")]
    home.forks.run(
        "+experiment=v2",
        "ckpt=outputs/a",
        *options,
        "trainer.max_epochs=1",
        "data.split_from=new",
        "data.allow_leakage=true",
        "data.seed=7",
        "hydra.run.dir=outputs/later",
        cwd=home.path,
    )
    split = pd.read_csv(home.path / "outputs" / "later" / "split.csv", dtype={"id": str})
    validated = set(split.loc[split["subset"] == "validation", "id"])
    both = validated & set(home.trained)
    assert both
    result = home.evaluate("ckpt=outputs/later", "out=later", check=False)
    assert f"{len(both)} of the {len(validated)} images are training images" in result.stderr
    report = home.path / "outputs" / "later" / "report"
    predictions = pd.read_csv(report / "predictions.csv", dtype={"id": str})
    assert set(predictions.loc[predictions["seen_in_training"], "id"]) == both


def test_challenge_tables_are_read(home: Home):
    ids = {"4360": home.unseen[0], "4361": home.unseen[1]}
    root = home.other("validation", ids)
    (root / "boneage-validation-dataset-1").mkdir()
    (root / "images" / "4360.png").rename(root / "boneage-validation-dataset-1" / "4360.png")
    (root / "images").rename(root / "boneage-validation-dataset-2")
    (root / "Validation Dataset.csv").write_text(
        "Image ID,male,Bone Age (months)\n4360,TRUE,50\n4361,FALSE,120\n"
    )
    home.evaluate("ckpt=outputs/a", f"data.root={root}", "out=validated")
    predictions = pd.read_csv(home.path / "validated" / "predictions.csv")
    assert predictions["bone_age"].tolist() == [50, 120]
    assert predictions["male"].tolist() == [True, False]

    root = home.other("test", ids)
    table = pd.DataFrame(
        {"Case ID": [4360, 4361], "Sex": ["M", "F"], "Ground truth bone age (months)": [50.5, 120]}
    )
    table = table.assign(chronological_age=[60.0, None])
    table.to_excel(root / "Bone age ground truth.xlsx", index=False)
    home.evaluate("ckpt=outputs/a", f"data.root={root}", "out=tested", FIGURES="1")
    tested = pd.read_csv(home.path / "tested" / "predictions.csv")
    assert tested["bone_age"].tolist() == [50.5, 120]
    assert tested["chronological_age"].fillna(-1).tolist() == [60, -1]
    assert (home.path / "tested" / "error_by_chronological_age.png").stat().st_size > 5000


def test_checkpoints_are_averaged(home: Home):
    home.evaluate("ckpt=[outputs/a,outputs/b]", "out=both")
    alone = [home.path / "outputs" / name / "report" for name in "ab"]
    one, two, both = (
        pd.read_csv(folder / "predictions.csv")["predicted"] for folder in (*alone, home.path / "both")
    )
    assert both.to_numpy() == pytest.approx(((one + two) / 2).to_numpy(), abs=1e-3)
    members = {m["name"]: m["mae"]["value"] for m in numbers_of(home.path / "both")["members"]}
    assert list(members) == [f"outputs/{name}/checkpoints/best.ckpt" for name in "ab"]
    assert list(members.values()) == pytest.approx([mae_of(folder) for folder in alone], abs=1e-3)
    table = pd.read_csv(home.path / "both" / "predictions.csv")
    assert table["predicted_2"].to_numpy() == pytest.approx(two.to_numpy(), abs=1e-3)


def test_compare_with_checkpoint_and_predictions(home: Home):
    theirs = mae_of(home.path / "outputs" / "b" / "report")
    for out, against in (("by_ckpt", "outputs/b"), ("by_csv", "outputs/b/report/predictions.csv")):
        result = home.evaluate("ckpt=outputs/a", f"compare_with={against}", f"out={out}")
        found = numbers_of(home.path / out)["paired_comparison"]
        assert found["images"] == 20
        difference = mae_of(home.path / out) - theirs
        assert found["difference"]["value"] == pytest.approx(difference, abs=1e-3)
        assert found["difference"]["low"] <= difference <= found["difference"]["high"]
        assert f"{found['difference']['value']:+.2f} (" in result.stdout
        assert f"p = {found['p']:.4f}" in (home.path / out / "report.html").read_text()


def test_robustness_covers_corruptions(home: Home):
    home.evaluate("ckpt=[outputs/a,outputs/b]", "robustness=true", "out=stressed", FIGURES="1")
    rows = numbers_of(home.path / "stressed")["robustness"]
    assert [row["name"] for row in rows] == ["clean", *CORRUPTIONS, *RESAMPLING_CORRUPTIONS]
    clean = rows[0]
    assert clean["mae"]["value"] == pytest.approx(mae_of(home.path / "stressed"))
    assert clean["absolute_change"]["value"] == 0
    predictions = pd.read_csv(home.path / "stressed" / "predictions.csv", dtype={"id": str}).set_index("id")
    months = pd.read_csv(home.path / "stressed" / "robustness.csv", dtype={"id": str}).set_index("id")
    for row in rows:
        changed = months[row["name"]][predictions.index]
        assert row["mae"]["value"] == pytest.approx((changed - predictions["bone_age"]).abs().mean())
        moved = changed - predictions["predicted"]
        assert row["absolute_change"]["value"] == pytest.approx(moved.abs().mean(), abs=1e-6)
        assert row["change"]["value"] == pytest.approx(moved.mean(), abs=1e-6)
    assert rows[list(CORRUPTIONS).index("inverted") + 1]["absolute_change"]["value"] > 0.1
    assert (home.path / "stressed" / "robustness.png").stat().st_size > 20_000


def test_diverged_network_has_report(home: Home):
    content = torch.load(home.path / "outputs" / "a" / "checkpoints" / "best.ckpt", weights_only=True)
    content["state_dict"]["inference.network.age.bias"].fill_(float("nan"))
    torch.save(content, home.path / "nan.ckpt")
    home.evaluate("ckpt=nan.ckpt", "compare_with=outputs/b", "robustness=true", "out=diverged")
    numbers = numbers_of(home.path / "diverged")
    assert not numbers["finite"]
    assert numbers["overall"]["mae"] == {"value": None, "low": None, "high": None}
    assert numbers["paired_comparison"]["difference"] is None
    page = (home.path / "diverged" / "report.html").read_text()
    assert "Some predictions are not finite" in page
    text = re.sub('src="[^"]*"', "", page.split("<h2>Training</h2>")[0])
    assert not re.search(r"\b(nan|None|inf)\b", text)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["ckpt=nowhere"], "ckpt=nowhere: no such file"),
        (["ckpt=outputs/a", "subset=val"], "subset=val: choose from validation, all"),
        (["ckpt=outputs/a", "out=outputs/a"], "out=outputs/a is not an empty folder"),
        (["ckpt=[]"], "at least one checkpoint is needed"),
        (
            ["ckpt=outputs/a", "data.fold=2"],
            "data.fold=: an evaluation uses the checkpoint's split and image size",
        ),
        (["ckpt=outputs/a", "compare_with=nowhere"], "compare_with=nowhere: no such file"),
        (["ckpt=outputs/a", "compare_with=no.csv"], "compare_with=no.csv cannot be read"),
        (["ckpt=outputs/a", "leakage=mark"], "leakage=mark: choose from error, content_only, exclude, allow"),
        (["ckpt=outputs/a", "robustness=some"], "robustness=some: it must be true or false"),
    ],
)
def test_invalid_options_are_refused(home: Home, options: list[str], message: str):
    result = home.evaluate(*options, check=False)
    assert result.returncode == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def test_compare_tests_runs_on_common_images(home: Home):
    result = home.forks.start(
        "boneage_pl.compare", "runs=[outputs/a,outputs/b]", "out=c", cwd=home.path
    ).wait()
    assert result.returncode == 0, result.stderr
    assert "optimizer.lr" in result.stdout
    assert "data.batch_size" not in result.stdout  # the same
    predictions = [pd.read_csv(home.path / "outputs" / n / "report" / "predictions.csv") for n in ("a", "b")]
    difference = predictions[0]["error"].abs().mean() - predictions[1]["error"].abs().mean()
    assert f"{difference:+.2f} (" in result.stdout
    assert "20 (all)" in (home.path / "c" / "compare.html").read_text()
    result = home.forks.start(
        "boneage_pl.compare", "runs=outputs/*", "out=p", "save_records=k", cwd=home.path
    ).wait()
    assert result.returncode == 0, result.stderr
    kept = [file for file in (home.path / "k" / "outputs_a").iterdir() if file.suffix != ".png"]
    ids = {str(i) for i in home.table["id"]}
    assert not ids & {word for file in kept for word in re.findall(r'"(\d+)"', file.read_text())}
    result = home.forks.start("boneage_pl.compare", "runs=outputs/a", cwd=home.path).wait()
    assert result.returncode == 2
    assert "at least two are needed" in result.stderr


def test_run_json_describes_run(home: Home):
    record = json.loads((home.path / "outputs" / "a" / "run.json").read_text())
    assert record["data"]["images"] == 80
    assert record["seed"] == 1
    assert [row["epoch"] for row in record["epochs"]] == [0, 1, 2]
    (session,) = record["sessions"]
    assert session["packages"]["torch"]
    assert session["hardware"]["cores"] >= 1
    assert record["config"]["data"]["batch_size"] == 8
    text = (home.path / "outputs" / "a" / "report" / "report.html").read_text()
    assert record["data"]["table_sha256"][:12] in text
