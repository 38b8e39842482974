"""The author's runs (`as_run/*`), as a chain of three small trainings."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from tests.conftest import SMALL_PHANTOM, Result

STEPS = 3, 5  # epochs of 60 and 120 training rows
SMALL = [*SMALL_PHANTOM, "data.batch_size=24", "trainer.max_epochs=1", "model.hidden_features=16"]
KEYS = ["trainer.max_epochs=2", "+callbacks.keys._target_=tests.helpers.tiny_models.Keys"]
Chain = dict[str, tuple[Path, str]]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("as_run")


@pytest.fixture(scope="module")
def chain(home: Path, command: Callable[..., Result]) -> Chain:
    """Return folder and output of each stage."""
    low_rate = [option for option in SMALL if "samples_per_group" not in option]
    stages: Chain = {}
    for stage, options in (
        ("v1", ["model.normalization=inception", *SMALL, *KEYS]),
        ("v1_low_rate", ["ckpt=as_run/v1", *low_rate, "data.samples_per_group=8"]),
        ("v2", ["ckpt=as_run/v1_low_rate", *SMALL]),
    ):
        printed = command(f"+experiment=as_run/{stage}", *options, cwd=home).stdout
        (run,) = (home / "outputs" / "as_run" / stage).iterdir()
        stages[stage] = run, printed
    return stages


def before_the_first_step(printed: str) -> float:
    return float(re.search(r"before the first step: ([\d.]+) months", printed)[1])


def checkpoint(run: Path, name: str = "last") -> dict[str, Any]:
    return torch.load(run / "checkpoints" / f"{name}.ckpt", weights_only=True)


@pytest.mark.slow
def test_stages_report_leaking_validation(chain: Chain):
    for run, printed in chain.values():
        assert "LEAKAGE" in printed
        assert "% of the rows show training images" in (run / "report" / "report.html").read_text()
        assert pd.read_csv(run / "report" / "predictions.csv")["seen_in_training"].any()


@pytest.mark.slow
def test_stages_draw_new_splits(chain: Chain):
    splits = {stage: pd.read_csv(run / "split.csv") for stage, (run, _) in chain.items()}
    assert [len(split) for split in splits.values()] == [80, 160, 80]
    for split in splits.values():
        assert split["id"].duplicated().any()
    assert splits["v1"]["id"].tolist() != splits["v2"]["id"].tolist()


@pytest.mark.slow
def test_stages_start_from_last_epoch(chain: Chain):
    for before, stage in (("v1", "v1_low_rate"), ("v1_low_rate", "v2")):
        last = chain[before][0] / "checkpoints" / "last.ckpt"
        assert f"initial weights: {last.relative_to(last.parents[5])}" in chain[stage][1]


@pytest.mark.slow
def test_v2_continues_adam_state_and_rate(chain: Chain):
    low_rate, v2 = (checkpoint(chain[stage][0])["optimizer_states"][0] for stage in ("v1_low_rate", "v2"))
    assert float(low_rate["state"][0]["step"]) == STEPS[1]
    assert float(v2["state"][0]["step"]) == STEPS[1] + STEPS[0]
    assert v2["param_groups"][0]["lr"] == 0.001
    assert "with optimizer state" in chain["v2"][1]


@pytest.mark.slow
def test_v2_normalizes_otherwise_than_its_weights(chain: Chain, home: Path, command: Callable[..., Result]):
    inputs = {s: checkpoint(run)["boneage_pl"]["input"]["mean"][0] for s, (run, _) in chain.items()}
    assert inputs == {"v1": 0.5, "v1_low_rate": 0.5, "v2": 0.485}
    assert "another input normalization" in chain["v2"][1]
    starts = {}
    for name in ("inception", "imagenet"):
        options = [f"ckpt={chain['v1_low_rate'][0]}", f"model.normalization={name}", "trainer.fast_dev_run=1"]
        small = [o for o in SMALL if not o.startswith(("data.samples_per_group", "trainer.max_epochs"))]
        printed = command("+experiment=v2", *options, *small, cwd=home).stdout
        starts[name] = before_the_first_step(printed)
    assert starts["imagenet"] != pytest.approx(starts["inception"], abs=1e-3)


@pytest.mark.slow
def test_validation_flips_differ_by_epoch(chain: Chain):
    keys = re.findall(r"validation keys: (.*)", chain["v1"][1])
    assert len(keys) == len(set(keys)) == 2


@pytest.mark.slow
def test_predictions_are_not_flipped(chain: Chain):
    from boneage_pl.training.checkpoint import load_for_inference

    inference, checkpoint = load_for_inference(chain["v2"][0] / "checkpoints" / "best.ckpt")
    assert "flip" in checkpoint.metadata.config["transforms"]["validation"]
    assert inference.transforms.num_random == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "option"),
    [
        (["+experiment=v1", "optimizer.state=checkpoint"], "ckpt="),
        (["+experiment=v1", "optimizer.state=fresh"], "optimizer.state=fresh"),
        (["+experiment=v1", "optimizer.state=checkpoint", "ckpt=as_run/v1", "optimizer=adamw"], "AdamW"),
        (["+experiment=v2", "ckpt=as_run/v1", "ckpt_epoch=first"], "ckpt_epoch=first"),
        (["+experiment=v1", "data.split_protocol=published", "data.fold=2"], "data.split_protocol=published"),
    ],
)
@pytest.mark.usefixtures("chain")
def test_invalid_options_are_refused(
    home: Path, command: Callable[..., Result], options: list[str], option: str
):
    before = set((home / "outputs").rglob("*"))
    result = command(*options, *SMALL, cwd=home, check=False)
    assert result.returncode == 2, result.stderr
    assert option in result.stderr
    assert "Traceback" not in result.stderr
    assert set((home / "outputs").rglob("*")) == before


@pytest.mark.parametrize("experiment", ["v1", "lr_0.1_failure", "as_run/v1"])
def test_offline_imagenet_is_refused_before_reading_data(
    tmp_path: Path, command: Callable[..., Result], experiment: str
):
    offline = {"TORCH_HOME": str(tmp_path / "torch"), "https_proxy": "http://127.0.0.1:9"}
    (tmp_path / "empty").mkdir()
    result = command(f"+experiment={experiment}", "data.root=empty", cwd=tmp_path, check=False, **offline)
    assert result.returncode == 2, result.stderr
    for words in ("inception_v3_google-0cc3c7bd.pth", "model.weights=null", "model.weights=<file>"):
        assert words in result.stderr
    assert not (tmp_path / "outputs").exists()
    assert not list((tmp_path / "torch").rglob("*.p*"))
