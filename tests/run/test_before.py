"""A run of before (commit a1646f6, v0.1.0: two epochs of tests.tiny.Tiny on images of noise) is not lost.

`before.zip` is its folder and its data; the expected errors are what that commit itself went on to, with one
thread as all tests (with two the validation errors come out 1e-4 of their size apart).
"""

import csv
import json
import shutil
from pathlib import Path
from zipfile import ZipFile

import pytest

from tests.forked import Forks

OWN = "model._target_=tests.tiny.Tiny"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("home")
    with ZipFile(Path(__file__).with_name("before.zip")) as archive:
        archive.extractall(home)
    checkpoints = home / "outputs" / "v1" / "checkpoints"
    shutil.copy(checkpoints / "last.ckpt", checkpoints / "best.ckpt")  # the last epoch was the best
    (home / "outputs" / "v1" / "tensorboard").mkdir()  # where its curves were
    return home


def maes(run: Path) -> list[tuple[float, float]]:
    with (run / "metrics.csv").open() as file:
        return [(float(row["train_mae"]), float(row["val_mae"])) for row in csv.DictReader(file)]


def test_it_is_resumed(home: Path, forks: Forks):
    forks.run("resume=outputs/v1", OWN, "trainer.max_epochs=4", cwd=home)
    assert maes(home / "outputs" / "v1") == [
        pytest.approx(epoch, rel=1e-5)
        for epoch in (
            (114.22293853759766, 112.46826171875),
            (112.49935913085938, 109.0689697265625),
            (109.79888153076172, 104.880615234375),
            (106.66848754882812, 101.1959228515625),
        )
    ]
    run = home / "outputs" / "v1"
    assert [len(list(folder.glob("events.*"))) > 0 for folder in (run / "tensorboard", run)] == [True, False]


def test_v2_starts_from_it(home: Path, forks: Forks):
    before = home / "before"
    with ZipFile(Path(__file__).with_name("before.zip")) as archive:
        archive.extract("outputs/v1/checkpoints/last.ckpt", before)
    options = ["data.root=data", "data.image_size=20", "data.batch_size=10", OWN, "trainer.max_epochs=1"]
    ckpt = "ckpt=before/outputs/v1/checkpoints/last.ckpt"
    said = forks.run("+experiment=v2", ckpt, *options, "trainer.precision=32", cwd=home).stdout
    assert "before the first step: 109.0690 months" in said


def test_it_is_evaluated(home: Path, forks: Forks):
    """It knows no prepared pixels, and its images are found where its configuration says."""
    ckpt = "ckpt=before/outputs/v1/checkpoints/last.ckpt"
    forks.start("boneage_pl.evaluate", ckpt, f"+{OWN}", "out=asked", cwd=home).wait()
    assert json.loads((home / "asked" / "metrics.json").read_text())["overall"]["mae"]["value"] == (
        pytest.approx(109.0689697265625, rel=1e-5)
    )
    said = forks.start("boneage_pl.evaluate", ckpt, f"+{OWN}", "subset=all", cwd=home).wait()
    assert said.returncode == 2
    assert "were trained on by before/outputs/v1/checkpoints/last.ckpt" in said.stderr


def test_its_command_is_another_experiment_today(home: Path, forks: Forks):
    """v1 starts from ImageNet's weights now; the run itself can be resumed."""
    (home / "outputs" / "v1").rename(home / "outputs" / "done")
    with ZipFile(Path(__file__).with_name("before.zip")) as archive:
        archive.extractall(home)
    (home / "outputs" / "v1" / "report" / "summary.json").unlink()
    overrides = home / "outputs" / "v1" / ".hydra" / "overrides.yaml"
    typed = [line.removeprefix("- ") for line in overrides.read_text().splitlines()]
    refused = forks.run(*typed, "hydra.run.dir=outputs/v1", cwd=home, check=False)
    assert refused.returncode == 2
    assert "model.weights" in refused.stderr
    assert "resume=outputs/v1" in refused.stderr
