"""v3 and v3_fine, small: trained, evaluated, continued at another size."""

import csv
import json
from pathlib import Path

import pandas as pd
import pytest
import torch

from tests.conftest import SMALL_PHANTOM
from tests.helpers.fork_server import Forks

SMALL = [
    *(option for option in SMALL_PHANTOM if "image_size" not in option),
    "data.batch_size=20",
    "transforms.train.size.size=null",
    "model.backbone=test_efficientnet",
    "model.weights=null",
]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, forks: Forks) -> Path:
    home = tmp_path_factory.mktemp("v3")
    options = [*SMALL, "data.image_size=64", "trainer.max_epochs=2", "hydra.run.dir=outputs/v3/x"]
    stdout = forks.run("+experiment=v3", *options, cwd=home).stdout
    assert "+experiment=v3_fine ckpt=outputs/v3/x" in stdout
    return home


def test_validated_weights_are_served(home: Path, forks: Forks):
    """Loss and transforms for prediction are in the checkpoint."""
    with (home / "outputs" / "v3" / "x" / "metrics.csv").open() as file:
        best = min(float(row["val_mae"]) for row in csv.DictReader(file))
    evaluated = forks.start("boneage_pl.evaluate", "ckpt=v3", "tta=[]", "out=evaluated", cwd=home).wait()
    assert evaluated.returncode == 0, evaluated.stderr
    numbers = json.loads((home / "evaluated" / "metrics.json").read_text())
    assert numbers["overall"]["mae"]["value"] == pytest.approx(best, abs=1e-3)
    assert numbers["population_weighted"] is None  # the rows have natural ages


def test_predicted_std_is_reported_everywhere(home: Path, forks: Forks):
    own = pd.read_csv(home / "outputs" / "v3" / "x" / "report" / "predictions.csv", dtype={"id": str})
    assert own["predicted_std"].between(0, 120).all()
    assert own["predicted_std"].nunique() > 1
    evaluated = pd.read_csv(home / "evaluated" / "predictions.csv", dtype={"id": str})
    assert evaluated["predicted_std"].tolist() == pytest.approx(own["predicted_std"].tolist(), abs=1e-3)
    numbers = json.loads((home / "evaluated" / "metrics.json").read_text())["predicted_std"]
    assert numbers["mean"] == pytest.approx(own["predicted_std"].mean(), abs=1e-3)
    assert "Predictive standard deviation" in (home / "evaluated" / "report.html").read_text()
    hand = home / "data" / "phantom" / "boneage-training-dataset" / f"{own['id'][0]}.png"
    one = ["ckpt=v3", "tta=[]", f"images={hand}", f"sex={'M' if own['male'][0] else 'F'}", "out=unsure.csv"]
    assert forks.start("boneage_pl.predict", *one, cwd=home).wait().returncode == 0
    assert pd.read_csv(home / "unsure.csv")["predicted_std"][0] == pytest.approx(
        own["predicted_std"][0], abs=0.01
    )


def test_training_image_is_seen_once_an_epoch(home: Path):
    split = pd.read_csv(home / "outputs" / "v3" / "x" / "split.csv")
    train = split[split["subset"] == "train"]
    assert train["id"].is_unique
    validation = split.loc[split["subset"] == "validation", "id"].nunique()
    assert len(train) + validation == 80


def test_fine_tuning_at_other_size_with_layer_decay(home: Path, forks: Forks):
    options = [
        *SMALL,
        "data.image_size=96",
        "trainer.max_epochs=1",
        "ckpt=v3",
        "hydra.run.dir=outputs/v3_fine/x",
    ]
    stdout = forks.run("+experiment=v3_fine", *options, cwd=home).stdout
    assert "v3, its start" in stdout
    last = torch.load(home / "outputs" / "v3_fine" / "x" / "checkpoints" / "last.ckpt", weights_only=True)
    groups = last["optimizer_states"][0]["param_groups"]
    rates = [group["initial_lr"] for group in groups]
    assert max(rates) == pytest.approx(0.0008)
    assert min(rates) < 0.0005
    assert {group["weight_decay"] for group in groups} == {0.0, 0.05}


@pytest.mark.slow
def test_network_takes_smaller_images(home: Path, forks: Forks):
    options = [*SMALL, "data.image_size=96", "transforms.train.size.size=64", "trainer.max_epochs=1"]
    forks.run("+experiment=v3", *options, "hydra.run.dir=outputs/reduced/x", cwd=home)
    for name, *further in (
        ("evaluate", "out=reduced", "tta=[]"),
        ("export", "format=onnx", "out=reduced.onnx"),
    ):
        done = forks.start(f"boneage_pl.{name}", "ckpt=outputs/reduced/x", *further, cwd=home).wait()
        assert done.returncode == 0, done.stderr
    with (home / "outputs" / "reduced" / "x" / "metrics.csv").open() as file:
        (epoch,) = csv.DictReader(file)
    numbers = json.loads((home / "reduced" / "metrics.json").read_text())
    assert numbers["overall"]["mae"]["value"] == pytest.approx(float(epoch["val_mae"]), abs=1e-3)
    weights = torch.load(home / "outputs" / "reduced" / "x" / "checkpoints" / "best.ckpt", weights_only=True)
    assert weights["boneage_pl"]["config"]["transforms"]["train"]["size"]["size"] == 64


def test_distribution_loss_names_required_outputs(home: Path, forks: Forks):
    refused = forks.run(
        "+experiment=v1", *SMALL_PHANTOM, "loss=distribution", "data.batch_size=4", cwd=home, check=False
    )
    assert refused.returncode == 2
    assert "model=backbone model.num_outputs=277" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_views_of_the_experiment_are_averaged_and_compared(home: Path, forks: Forks):
    """v3's test-time augmentation is its default; tta=[] disables it."""
    for name, options in (("views", []), ("one", ["tta=[]", "compare_with=v3"])):
        done = forks.start("boneage_pl.evaluate", "ckpt=v3", f"out={name}", *options, cwd=home).wait()
        assert done.returncode == 0, done.stderr
        assert ("mean over 4 views of each image" in done.stdout) == (name != "one")
    views, one = (
        pd.read_csv(home / name / "predictions.csv", dtype={"id": str}) for name in ("views", "one")
    )
    numbers = json.loads((home / "one" / "metrics.json").read_text())["paired_comparison"]
    change = one["predicted"] - one["bone_age"], views["predicted"] - views["bone_age"]
    expected = change[0].abs().mean() - change[1].abs().mean()
    assert numbers["difference"]["value"] == pytest.approx(expected, abs=1e-4)
    assert expected != 0
    last = views.iloc[-1]
    hand = home / "data" / "phantom" / "boneage-training-dataset" / f"{last['id']}.png"
    options = ["ckpt=v3", f"images={hand}", f"sex={'M' if last['male'] else 'F'}", "out=one.csv"]
    assert forks.start("boneage_pl.predict", *options, cwd=home).wait().returncode == 0
    assert pd.read_csv(home / "one.csv")["months"][0] == pytest.approx(last["predicted"], abs=0.01)
    refused = forks.start("boneage_pl.evaluate", "ckpt=v3", "tta=up", cwd=home).wait()
    assert refused.returncode == 2
    assert "tta=up" in refused.stderr


@pytest.mark.slow
def test_fold_ensemble_is_one_command(home: Path, forks: Forks):
    options = [*SMALL, "data.image_size=64", "trainer.max_epochs=1", "hydra.sweeper.params.seed='1,2'"]
    stdout = forks.run("+experiment=v3_ensemble", *options, cwd=home).stdout
    (folder,) = (home / "outputs" / "v3_ensemble").iterdir()
    assert "over 2 runs" in stdout
    splits = [pd.read_csv(folder / name / "split.csv", dtype={"id": str}) for name in "01"]
    first, second = (set(s.loc[s["subset"] == "validation", "id"]) for s in splits)
    assert len(first) > 10
    assert not first & second
    hand = next((home / "data" / "phantom" / "boneage-training-dataset").glob("*.png"))
    months, spreads = [], []
    for ckpt in ("v3_ensemble", folder / "0", folder / "1"):
        evaluated = forks.start(
            "boneage_pl.predict", f"ckpt={ckpt}", f"images={hand}", "sex=F", "out=a.csv", cwd=home
        )
        assert evaluated.wait().returncode == 0, evaluated.wait().stderr
        months.append(pd.read_csv(home / "a.csv")["months"][0])
        spreads.append(pd.read_csv(home / "a.csv")["predicted_std"][0])
        (home / "a.csv").unlink()
    assert months[0] == pytest.approx((months[1] + months[2]) / 2, abs=0.01)
    apart = (months[1] - months[2]) ** 2 / 4
    assert spreads[0] == pytest.approx(((spreads[1] ** 2 + spreads[2] ** 2) / 2 + apart) ** 0.5, abs=0.01)

    (folder / "1" / "report" / "summary.json").rename(folder / "kept.json")
    refused = forks.start("boneage_pl.predict", f"ckpt={folder}", f"images={hand}", "sex=F", cwd=home).wait()
    assert refused.returncode == 2
    assert "1 are unfinished.\n" in refused.stderr
    last = (folder / "0" / "checkpoints" / "last.ckpt").stat().st_mtime_ns
    forks.run("+experiment=v3_ensemble", *options, f"hydra.sweep.dir={folder}", cwd=home)
    assert (folder / "1" / "report" / "summary.json").exists()
    assert (folder / "0" / "checkpoints" / "last.ckpt").stat().st_mtime_ns == last
