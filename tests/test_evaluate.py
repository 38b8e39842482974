"""Checkpoints asked about known ages, and runs compared: the commands as a user types them."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

from tests.conftest import Result
from tests.forked import Forks
from tests.run.test_resume import TINY

OWN = "+model._target_=tests.tiny.Tiny"
IMAGES = "boneage-training-dataset"


class Home:
    """A folder with two runs of one experiment, of other seeds, and what they were trained on."""

    def __init__(self, path: Path, forks: Forks) -> None:
        self.path = path
        self.forks = forks
        for name, options in (("a", []), ("b", ["optimizer.lr=0.003"])):
            command = ["+experiment=v1", *TINY[:-2], "trainer.max_epochs=3", *options]
            self.forks.run(*command, f"hydra.run.dir=outputs/{name}", cwd=path)
        self.root = path / "data" / "phantom"
        self.table = pd.read_csv(self.root / "boneage-training-dataset.csv", dtype={"id": str})
        split = pd.read_csv(path / "outputs" / "a" / "split.csv", dtype={"id": str})
        self.trained = sorted(set(split.loc[split["subset"] == "train", "id"]))
        self.unseen = sorted(set(self.table["id"]) - set(self.trained))

    def evaluate(self, *options: str, check: bool = True) -> Result:
        result = self.forks.start("boneage_pl.evaluate", OWN, *options, cwd=self.path).wait()
        assert not check or result.returncode == 0, result.stdout + result.stderr
        return result

    def compare(self, *options: str) -> Result:
        return self.forks.start("boneage_pl.compare", *options, cwd=self.path).wait()

    def other(self, name: str, ids: dict[str, str]) -> Path:
        """Make another data set: new id → the phantom's image that it shows."""
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


def test_its_own_validation_set_gives_the_best_epochs_mae(home: Home):
    home.evaluate("ckpt=outputs/a", "out=val")
    best = pd.read_csv(home.path / "outputs" / "a" / "metrics.csv")["val_mae"].min()
    assert numbers_of(home.path / "val")["overall"]["mae"]["value"] == pytest.approx(best, abs=1e-3)
    own = numbers_of(home.path / "outputs" / "a" / "report")
    assert own["overall"]["mae"]["value"] == pytest.approx(best, abs=1e-3)
    page = (home.path / "val" / "report.html").read_text()
    assert "These images also chose the epoch" in page
    assert "http" not in page  # it opens without a network
    assert (home.path / "val" / "bland_altman.png").stat().st_size > 5000


def test_a_later_evaluation_lies_beside_the_runs_report(home: Home):
    before = {p: p.read_bytes() for p in (home.path / "outputs" / "a" / "report").iterdir()}
    home.evaluate("ckpt=outputs/a")
    assert len(list((home.path / "outputs" / "a").glob("report_val_*/report.html"))) == 1
    assert {p: p.read_bytes() for p in (home.path / "outputs" / "a" / "report").iterdir()} == before


def test_images_that_were_trained_on_are_refused_unless_asked_for(home: Home):
    result = home.evaluate("ckpt=outputs/a", "subset=all", "out=no", check=False)
    assert result.returncode == 2
    assert f"{len(home.trained)} of the 80 images were trained on" in result.stderr
    assert not (home.path / "no").exists()
    home.evaluate("ckpt=outputs/a", "subset=all", "seen=drop", "out=dropped")
    answers = pd.read_csv(home.path / "dropped" / "predictions.csv", dtype={"id": str})
    assert sorted(answers["id"]) == home.unseen
    home.evaluate("ckpt=outputs/a", "subset=all", "seen=mark", "out=marked")
    answers = pd.read_csv(home.path / "marked" / "predictions.csv", dtype={"id": str})
    assert sorted(answers.loc[answers["seen_in_training"], "id"]) == home.trained
    assert "The model was trained on images" in (home.path / "marked" / "report.html").read_text()
    home.evaluate("ckpt=outputs/a", "subset=train", "out=train")
    assert numbers_of(home.path / "train")["rows_seen_in_training"] == numbers_of(home.path / "train")["rows"]


def test_a_copy_of_a_trained_image_under_another_id_is_noticed(home: Home):
    root = home.other(
        "copies", {"900": home.trained[0], "901": home.unseen[0], home.trained[1]: home.unseen[1]}
    )
    (root / "ages.csv").write_text(f"id,boneage,male\n900,50,True\n901,60,True\n{home.trained[1]},70,False\n")
    options = ["ckpt=outputs/a", f"data.root={root}", "subset=table"]
    result = home.evaluate(*options, "out=copied", check=False)
    assert result.returncode == 2
    assert "1 of the 3 images were trained on (id 900)" in result.stderr


def test_the_challenges_tables_are_read(home: Home):
    ids = {"4360": home.unseen[0], "4361": home.unseen[1]}
    root = home.other("validation", ids)
    (root / "boneage-validation-dataset-1").mkdir()
    (root / "images" / "4360.png").rename(root / "boneage-validation-dataset-1" / "4360.png")
    (root / "images").rename(root / "boneage-validation-dataset-2")
    (root / "Validation Dataset.csv").write_text(
        "Image ID,male,Bone Age (months)\n4360,TRUE,50\n4361,FALSE,120\n"
    )
    home.evaluate("ckpt=outputs/a", f"data.root={root}", "subset=table", "out=validated")
    answers = pd.read_csv(home.path / "validated" / "predictions.csv")
    assert answers["bone_age"].tolist() == [50, 120]
    assert answers["male"].tolist() == [True, False]

    root = home.other("test", ids)
    table = pd.DataFrame(
        {"Case ID": [4360, 4361], "Sex": ["M", "F"], "Ground truth bone age (months)": [50.5, 120]}
    )
    table.to_excel(root / "Bone age ground truth.xlsx", index=False)
    home.evaluate("ckpt=outputs/a", f"data.root={root}", "subset=table", "out=tested")
    assert pd.read_csv(home.path / "tested" / "predictions.csv")["bone_age"].tolist() == [50.5, 120]

    root = home.other("named", ids)
    (root / "t.csv").write_text("Patient;Alter;weiblich?;Geschlecht\n4360;50;x;M\n4361;120;y;F\n")
    named = ["data.columns.id=patient", "data.columns.bone_age=Alter", "data.columns.male=Geschlecht"]
    home.evaluate("ckpt=outputs/a", f"data.root={root}", "subset=table", *named, "out=named_out")
    assert pd.read_csv(home.path / "named_out" / "predictions.csv")["bone_age"].tolist() == [50, 120]


def test_several_checkpoints_are_averaged(home: Home):
    for out, ckpt in (("one", "outputs/a"), ("two", "outputs/b"), ("both", "[outputs/a,outputs/b]")):
        home.evaluate(f"ckpt={ckpt}", f"out={out}")
    one, two, both = (
        pd.read_csv(home.path / out / "predictions.csv")["predicted"] for out in ("one", "two", "both")
    )
    assert both.to_numpy() == pytest.approx(((one + two) / 2).to_numpy(), abs=1e-6)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["ckpt=nowhere"], "ckpt=nowhere: no such file"),
        (["ckpt=outputs/a", "subset=valid"], "subset=valid: there are val, train, all, table"),
        (["ckpt=outputs/a", "out=outputs/a"], "out=outputs/a holds something already"),
        (["ckpt=[]"], "name at least one checkpoint"),
    ],
)
def test_what_cannot_be_right_is_refused(home: Home, options: list[str], said: str):
    result = home.evaluate(*options, check=False)
    assert result.returncode == 2
    assert said in result.stderr
    assert "Traceback" not in result.stderr


def test_runs_are_compared_on_the_same_images(home: Home):
    result = home.forks.start(
        "boneage_pl.compare", "runs=[outputs/a,outputs/b]", "out=c", cwd=home.path
    ).wait()
    assert result.returncode == 0, result.stderr
    assert "optimizer.lr" in result.stdout
    assert "data.batch_size" not in result.stdout  # it is the same
    answers = [pd.read_csv(home.path / "outputs" / n / "report" / "predictions.csv") for n in ("a", "b")]
    difference = answers[0]["error"].abs().mean() - answers[1]["error"].abs().mean()
    assert f"{difference:+.2f} (" in result.stdout
    page = (home.path / "c" / "compare.html").read_text()
    assert "on 20 images (all)" in page
    result = home.forks.start("boneage_pl.compare", "runs=outputs/*", "out=p", cwd=home.path).wait()
    assert result.returncode == 0, result.stderr
    for runs, said in (
        ("outputs/a", "name at least two"),
        ("[outputs/a,nowhere]", "runs=nowhere: no run's folder"),
    ):
        result = home.forks.start("boneage_pl.compare", f"runs={runs}", cwd=home.path).wait()
        assert result.returncode == 2
        assert said in result.stderr


def test_a_run_records_what_it_ran_with(home: Home):
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
