"""A user's network, loss, augmentation and so on need only a YAML file."""

import csv
import json
from pathlib import Path

import pandas as pd
import pytest
import torch

from tests.conftest import SMALL_PHANTOM, Result
from tests.helpers.compare_runs import differing
from tests.helpers.fork_server import Forks

TINY = [*SMALL_PHANTOM, "data.batch_size=10", "trainer.max_epochs=2", "optimizer.lr=0.01"]
# Classes from outside the project, with one file each.
FILES = {
    "model/tiny": "_target_: tests.helpers.tiny_models.Tiny\nimage_size: ${data.image_size}",
    "model/gray": "_target_: tests.helpers.tiny_models.Gray\nimage_size: ${data.image_size}",
    "loss/squared": "_target_: torch.nn.MSELoss",
    "loss/ages": "_target_: tests.helpers.tiny_models.Ages\nmonths: [0, 100, 200]",
    "transforms/darker": """
        defaults: [published]
        train:
          flip: null
          darker: {_target_: tests.helpers.tiny_models.Darker, most: 0.5}
          blur: {_target_: torchvision.transforms.v2.GaussianBlur, kernel_size: 3}
        validation:
          darker: {_target_: tests.helpers.tiny_models.Darker, most: 0}""",
    "transforms/blurred": """
        train:
          blur: {_target_: torchvision.transforms.v2.GaussianBlur, kernel_size: 3}""",
    "transforms/misnamed": "training: {}",
    "sampler/by_size": "_target_: tests.helpers.tiny_models.natural\n_partial_: true",
    "scheduler/one_cycle": """
        _target_: torch.optim.lr_scheduler.OneCycleLR
        max_lr: 0.02
        total_steps: null
        interval: step""",
    "callbacks/more": """
        defaults: [default]
        brake: {_target_: tests.helpers.tiny_models.Brake}""",
    "experiment/mine": """
        # @package _global_
        # All of it.
        defaults:
          - override /model: gray
          - override /loss: ages
          - override /transforms: darker
          - override /sampler: by_size
          - override /scheduler: one_cycle
          - override /callbacks: more""",
}
OWN = [  # classes needed for prediction; others are not instantiated
    "model._target_=tests.helpers.tiny_models.Gray",
    "loss._target_=tests.helpers.tiny_models.Ages",
    "transforms.validation.darker._target_=tests.helpers.tiny_models.Darker",
]


class Home:
    def __init__(self, path: Path, forks: Forks) -> None:
        self.path = path
        self.forks = forks
        for name, text in FILES.items():
            file = path / "own" / f"{name}.yaml"
            file.parent.mkdir(parents=True, exist_ok=True)
            lines = text.strip("\n").split("\n")
            indent = len(lines[0]) - len(lines[0].lstrip())
            file.write_text("\n".join(line[indent:] for line in lines) + "\n")

    def run(self, name: str, *options: str, experiment: str = "v1", check: bool = True) -> Result:
        command = ["--config-dir", "own", f"+experiment={experiment}", *TINY, f"hydra.run.dir=outputs/{name}"]
        return self.forks.run(*command, *options, cwd=self.path, check=check)

    def rows(self, name: str) -> list[dict[str, float]]:
        with (self.path / "outputs" / name / "metrics.csv").open() as file:
            return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]

    def checkpoint(self, name: str, which: str = "last") -> dict:
        path = self.path / "outputs" / name / "checkpoints" / f"{which}.ckpt"
        return torch.load(path, weights_only=True)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, forks: Forks) -> Home:
    return Home(tmp_path_factory.mktemp("home"), forks)


@pytest.fixture(scope="module")
def plain(home: Home) -> list[dict[str, float]]:
    home.run("plain", "model=tiny")
    return home.rows("plain")


@pytest.fixture(scope="module")
def mine(home: Home) -> Path:
    home.run("mine", experiment="mine")
    return home.path / "outputs" / "mine"


def test_custom_network_loss_and_all(home: Home, mine: Path):
    record = home.checkpoint("mine", "best")["boneage_pl"]
    assert record["input"] == {"mean": (0.4,), "std": (0.2,)}
    assert all(0 < months < 200 for months in record["validation"]["predicted"])
    assert json.loads((mine / "report" / "summary.json").read_text())["epochs"] == 2


@pytest.mark.usefixtures("mine")
def test_custom_run_is_evaluated_resumed_and_warm_started(home: Home):
    best = min(row["val_mae"] for row in home.rows("mine"))
    own = [f"+{option}" for option in OWN]
    done = home.forks.start("boneage_pl.evaluate", "ckpt=outputs/mine", *own, "out=evaluated", cwd=home.path)
    assert done.wait().returncode == 0, done.wait().stderr
    measured = json.loads((home.path / "evaluated" / "metrics.json").read_text())
    assert measured["overall"]["mae"]["value"] == pytest.approx(best, abs=1e-3)
    for left_out in OWN:  # a foreign class that is not repeated is not instantiated
        some = [option for option in own if option != f"+{left_out}"]
        refused = home.forks.start("boneage_pl.evaluate", "ckpt=outputs/mine", *some, cwd=home.path).wait()
        assert refused.returncode == 2
        assert left_out in refused.stderr
    other = home.run("other", "ckpt=outputs/mine", experiment="mine")
    assert f"before the first step: {best:.4f} months" in other.stdout
    refused = home.forks.run("resume=outputs/mine", "trainer.max_epochs=3", cwd=home.path, check=False)
    assert refused.returncode == 2
    assert "which is not one of this project's" in refused.stderr


def test_plain_pytorch_loss(home: Home, plain: list[dict[str, float]]):
    home.run("squared", "model=tiny", "loss=squared")
    assert [row["val_mae"] for row in home.rows("squared")] != [row["val_mae"] for row in plain]


def test_loss_rejects_wrong_output_shape(home: Home):
    result = home.run("misfit", "model=gray", check=False)
    assert result.returncode == 2
    assert "the output has shape [10, 3], but loss=L1Loss needs [B, 1]" in result.stderr
    assert "Traceback" not in result.stderr


def test_transforms_change_training_images(home: Home, plain: list[dict[str, float]]):
    for name in ("darker", "blurred"):  # the second has no validation transforms
        home.run(name, "model=tiny", f"transforms={name}")
        assert [row["val_mae"] for row in home.rows(name)] != [row["val_mae"] for row in plain]


def test_sampler_affects_training_rows_alone(home: Home, mine: Path, plain: list[dict[str, float]]):
    assert plain
    ours = pd.read_csv(mine / "split.csv")
    theirs = pd.read_csv(home.path / "outputs" / "plain" / "split.csv")
    sizes = ours[ours["subset"] == "train"].groupby("group").size()
    assert sizes.sum() <= 60
    parts = [split.loc[split["subset"] == "validation", "id"].tolist() for split in (ours, theirs)]
    assert parts[0] == parts[1]


def test_scheduler_by_step_resumes(home: Home):
    """Interrupted before the third epoch and resumed, it equals the uninterrupted run, with its rates."""
    options = ["model=tiny", "scheduler=one_cycle", "trainer.max_epochs=4"]
    home.run("one_cycle", *options)
    cut = "one_cycle_cut"
    plan = '[["step", 15, "kill"]]'
    running = home.forks.start(
        "boneage_pl",
        *["--config-dir", "own", "+experiment=v1", *TINY, *options, f"hydra.run.dir=outputs/{cut}"],
        cwd=home.path,
        FAULT_PLAN=plan,
    )
    assert running.wait().returncode == -9
    assert len(home.rows(cut)) == 2
    home.forks.run(f"resume=outputs/{cut}", "model._target_=tests.helpers.tiny_models.Tiny", cwd=home.path)
    assert differing(home.path / "outputs" / cut, home.path / "outputs" / "one_cycle") == []
    longer = [
        f"resume=outputs/{cut}",
        "trainer.max_epochs=9",
        "model._target_=tests.helpers.tiny_models.Tiny",
    ]
    refused = home.forks.run(*longer, cwd=home.path, check=False)
    assert refused.returncode == 2
    assert "spans the whole run of 4 epochs" in refused.stderr
    assert len({row["lr"] for row in home.rows("one_cycle")}) == 4


@pytest.mark.usefixtures("plain")
@pytest.mark.parametrize("fit", [pytest.param("pad", marks=pytest.mark.slow), "stretch"])
def test_resize_mode_has_own_cache(home: Home, fit: str):
    home.run(fit, "model=tiny", f"data.resize_mode={fit}")
    prepared = home.path / "data" / "phantom" / "prepared"
    assert len(list(prepared.glob("107-*.npy"))) == len(list(prepared.glob(f"{fit}-107-*.npy"))) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["transforms=misnamed"], "transforms: must be tables of transforms by name for train"),
        (["data.resize_mode=squeeze"], "data.resize_mode=squeeze: choose from crop, pad, stretch"),
        (["scheduler=plateau", "+scheduler.interval=hour"], "scheduler.interval=hour"),
        (["scheduler=plateau", "+scheduler.interval=step"], "ReduceLROnPlateau steps after a validation"),
        (["data.split_protocol=published", "sampler=by_size"], "data.split_protocol=published draws equally"),
        (["loss=none"], "Could not find 'loss/none'"),
    ],
)
def test_unknown_choices_are_refused(home: Home, options: list[str], message: str):
    result = home.run("refused", "model=tiny", *options, check=False)
    assert result.returncode == 2
    assert message in result.stderr
    assert not (home.path / "outputs" / "refused").exists()
