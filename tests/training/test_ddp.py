"""Training with two CPU processes equals training with one."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch

from tests.conftest import SMALL_PHANTOM, Result, run_command
from tests.helpers.compare_runs import differing
from tests.helpers.fork_server import Forks
from tests.helpers.frozen_bn_model import Frozen

# One step of plain gradient descent per epoch. In float64, because in float32 rounding
# switches units on and off, which changes gradients by more than rounding.
ONE_STEP = [
    *SMALL_PHANTOM,
    "data.samples_per_group=2",
    "data.val_fraction=0.5",
    "data.batch_size=20",
    "model._target_=tests.helpers.frozen_bn_model.Frozen",
    "~optimizer.fused",
    "optimizer._target_=torch.optim.SGD",
    "optimizer.lr=1e-2",
    "trainer.precision=64",
    "trainer.max_epochs=1",
]
DDP = ["trainer=ddp", "trainer.devices=2", "trainer.accelerator=cpu"]
ENV = {"PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}

Train = Callable[..., Path]


@pytest.fixture(scope="session")
def command() -> Callable[..., Result]:
    """In new processes: the first starts the second with the same command."""
    return run_command


@pytest.fixture(scope="module")
def train(tmp_path_factory: pytest.TempPathFactory, command: Callable[..., Result], forks: Forks) -> Train:
    home = tmp_path_factory.mktemp("ddp")

    def run(name: str, *options: str) -> Path:
        start = command if "trainer=ddp" in options else forks.run
        start("+experiment=v1", *options, f"hydra.run.dir=outputs/{name}", cwd=home, **ENV)
        return home / "outputs" / name

    return run


@pytest.fixture(scope="module")
def alone(train: Train) -> Path:
    return train("alone", *ONE_STEP)


def weights_of(run: Path) -> dict[str, torch.Tensor]:
    return torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]


def assert_same_run(run: Path, alone: Path) -> None:
    ours, theirs = weights_of(run), weights_of(alone)
    assert ours.keys() == theirs.keys()
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-8, atol=1e-8, msg=name)
    one, other = (pd.read_csv(r / "metrics.csv") for r in (run, alone))
    pd.testing.assert_frame_equal(one, other, rtol=1e-6)
    one, other = (pd.read_csv(r / "report" / "predictions.csv") for r in (run, alone))
    pd.testing.assert_frame_equal(one, other, rtol=1e-6)


def test_step_changes_weights(alone: Path):
    torch.manual_seed(1)
    unmoved, moved = Frozen(107).state_dict(), weights_of(alone)
    change = max(float((moved[f"inference.network.{name}"] - unmoved[name]).abs().max()) for name in unmoved)
    assert 1e-2 < change < 10  # far above the tolerances below


def test_two_processes_make_step_of_one(alone: Path, train: Train):
    run = train("together", *ONE_STEP, *DDP)
    assert_same_run(run, alone)
    assert sorted(path.name for path in run.glob("*.log")) == ["boneage_pl.log"]
    assert (run / "boneage_pl.log").read_text().count("v1: data/phantom") == 1


def test_accumulation_makes_step_of_one(alone: Path, train: Train):
    assert_same_run(train("accumulated", *ONE_STEP, "trainer.accumulate_grad_batches=2"), alone)


@pytest.mark.slow
def test_two_processes_train_v1_and_v2(tmp_path: Path, command: Callable[..., Result]):
    small = [*SMALL_PHANTOM, *DDP, "data.batch_size=16", "trainer.max_epochs=1"]
    result = command("+experiment=v1", *small, cwd=tmp_path, **ENV)
    assert "2 × cpu, BatchNorm statistics are per process" in result.stdout
    assert result.stdout.count("verdict") == 1
    result = command("+experiment=v2", "ckpt=v1", *small, cwd=tmp_path, **ENV)
    (v1,) = (tmp_path / "outputs" / "v1").iterdir()
    best = pd.read_csv(v1 / "metrics.csv")["val_mae"].min()
    before = next(line for line in result.stdout.splitlines() if "before the first step" in line)
    assert float(before.split(":")[-1].removesuffix("months")) == pytest.approx(best, rel=1e-3)
    (v2,) = (tmp_path / "outputs" / "v2").iterdir()
    predictions = pd.read_csv(v2 / "report" / "predictions.csv")
    split = pd.read_csv(v2 / "split.csv")
    assert predictions["id"].tolist() == split.loc[split["subset"] == "validation", "id"].tolist()


def test_indivisible_batch_is_refused(tmp_path: Path, forks: Forks):
    options = [*SMALL_PHANTOM, "trainer=ddp", "trainer.devices=3", "trainer.accelerator=cpu"]
    result = forks.run("+experiment=v1", *options, cwd=tmp_path, check=False)
    assert result.returncode == 2
    assert "data.batch_size=32: not divisible by 3 processes" in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "outputs").exists() or not any((tmp_path / "outputs").glob("v1/*"))


@pytest.mark.slow
def test_full_disk_at_the_end_stops_both_processes(tmp_path: Path, command: Callable[..., Result]):
    """Only rank 0 writes, and rank 1 must not wait for it."""
    own = ["model._target_=tests.helpers.tiny_models.Tiny", "data.batch_size=8", "trainer.max_epochs=2"]
    full = "+callbacks.full._target_=tests.helpers.tiny_models.FullDisk"
    options = [*SMALL_PHANTOM, *DDP, *own, full, "hydra.run.dir=outputs/full"]
    result = command("+experiment=v1", *options, cwd=tmp_path, check=False, **ENV)
    assert result.returncode == 2, result.stderr
    assert "Free some disk space" in result.stderr
    assert "Traceback" not in result.stderr
    checkpoints = tmp_path / "outputs" / "full" / "checkpoints"
    assert torch.load(checkpoints / "last.ckpt", weights_only=True)["boneage_pl"]["epochs"][-1]["epoch"] == 0


@pytest.mark.slow
def test_run_of_one_device_goes_on_with_two(tmp_path: Path, command: Callable[..., Result], forks: Forks):
    own = "model._target_=tests.helpers.tiny_models.Tiny"
    tiny = [*SMALL_PHANTOM, "data.batch_size=8", "trainer.max_epochs=1", own, "hydra.run.dir=outputs/x"]
    forks.run("+experiment=v1", *tiny, cwd=tmp_path)
    more = ["resume=outputs/x", "trainer.max_epochs=2", own]
    result = command(*more, *DDP, cwd=tmp_path, **ENV)
    assert "resuming with processes 2" in result.stdout
    assert (tmp_path / "outputs" / "x" / "metrics.csv").read_text().count("\n") == 3


@pytest.mark.slow
@pytest.mark.timeout(1900)
def test_two_processes_learn_phantom(tmp_path: Path, command: Callable[..., Result]):
    demo = ["data=phantom_small", "seed=0", "optimizer.lr=0.001", "trainer.max_epochs=10"]
    result = command("+experiment=v1", *demo, *DDP, cwd=tmp_path, timeout=1800)
    assert "verdict: learned" in result.stdout


@pytest.mark.slow
@pytest.mark.parametrize("more", [[], ["scheduler=cosine", "optimizer=adamw"]])
def test_two_processes_resume_identically(tmp_path: Path, command: Callable[..., Result], more: list[str]):
    own = [
        "model._target_=tests.helpers.tiny_models.Tiny",
        "callbacks.brake._target_=tests.helpers.tiny_models.Brake",
    ]
    tiny = [
        *SMALL_PHANTOM,
        *DDP,
        *more,
        "data.batch_size=6",
        "trainer.max_epochs=5",
        "optimizer.lr=0.001",
        own[0],
        f"+{own[1]}",
    ]
    command("+experiment=v1", *tiny, "hydra.run.dir=outputs/whole", cwd=tmp_path, **ENV)
    slowed = [*tiny, "+callbacks.brake.seconds=0.1", "hydra.run.dir=outputs/cut"]
    running = subprocess.Popen(
        [sys.executable, "-m", "boneage_pl", "+experiment=v1", *slowed],
        cwd=tmp_path,
        env={**os.environ, **ENV},
    )
    metrics = tmp_path / "outputs" / "cut" / "metrics.csv"
    while not metrics.exists() or metrics.read_text().count("\n") < 3:
        assert running.poll() is None
        time.sleep(0.01)
    running.terminate()
    assert running.wait(60) == 143
    result = command("resume=outputs/cut", *own, cwd=tmp_path, **ENV)
    assert "resuming outputs/cut after 2 of 5 epochs" in result.stdout
    assert differing(tmp_path / "outputs" / "cut", tmp_path / "outputs" / "whole") == []
