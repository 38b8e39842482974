"""Sweeps with Hydra's own launcher and sweepers."""

import csv
import statistics
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from boneage_pl.training.sweep import SweepRun, format_sweep
from tests.conftest import Result
from tests.test_experiments import SMALL

TINY = [*SMALL, "trainer.max_epochs=1", "model._target_=tests.helpers.tiny_models.Tiny"]


def test_seed_sweep_reports_mean_and_std(tmp_path: Path, command: Callable[..., Result]):
    result = command("-m", "+experiment=v1", "seed=1,2", *TINY, cwd=tmp_path)
    (sweep,) = (tmp_path / "outputs" / "sweeps").iterdir()
    with (sweep / "sweep.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["run"], row["seed"]) for row in rows] == [("0", "1"), ("1", "2")]
    values = [float(row["best_val_mae"]) for row in rows]
    mean, deviation = statistics.mean(values), statistics.stdev(values)
    assert f"{mean:.3f} ± {deviation:.3f} (s.d.) over 2 runs" in result.stdout
    assert (sweep / "1" / "checkpoints" / "best.ckpt").exists()


@pytest.mark.slow
def test_search_minimizes_validation_mae(tmp_path: Path, command: Callable[..., Result]):
    search = ["hparams_search=optuna", "hydra.sweeper.n_trials=2", "hydra.sweeper.study_name=x"]
    kept = "hydra.sweeper.storage=sqlite:///search.db"
    command("+experiment=v1", *search, kept, *TINY, cwd=tmp_path)
    assert (tmp_path / "search.db").stat().st_size > 0
    (sweep,) = (tmp_path / "outputs" / "sweeps").iterdir()
    found = yaml.safe_load((sweep / "optimization_results.yaml").read_text())
    with (sweep / "sweep.csv").open() as file:
        rows = list(csv.DictReader(file))
    best = min(rows, key=lambda row: float(row["best_val_mae"]))
    assert found["best_value"] == pytest.approx(float(best["best_val_mae"]))
    assert found["best_params"]["optimizer.lr"] == pytest.approx(float(best["optimizer.lr"]))
    assert {row["scheduler.patience"] for row in rows} <= {str(n) for n in range(3, 11)}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["trainer=ddp"], "-m with trainer=ddp"),
        (["trainer=ddp,default"], "-m with trainer=ddp"),
        (["trainer.devices=2"], "-m with trainer=ddp"),
        (["hydra/launcher=slurm"], "srun is not available"),
        (["data.batch_size=0"], "data.batch_size=0"),
    ],
)
def test_invalid_sweep_is_refused(
    tmp_path: Path, command: Callable[..., Result], options: list[str], message: str
):
    result = command(
        "-m", "+experiment=v1", "seed=1,2", *TINY, *options, cwd=tmp_path, check=False, PATH="/nowhere"
    )
    assert result.returncode == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def test_refused_run_keeps_earlier_runs(tmp_path: Path, command: Callable[..., Result]):
    options = ["data.samples_per_group=4,-4", "~optimizer.fused"]
    result = command("-m", "+experiment=v1", *TINY, *options, cwd=tmp_path, check=False)
    assert result.returncode == 2
    assert "data.samples_per_group=-4" in result.stderr
    (sweep,) = (tmp_path / "outputs" / "sweeps").iterdir()
    with (sweep / "sweep.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert float(rows[0]["best_val_mae"]) > 0
    assert rows[0]["data.samples_per_group"] == "4"


@pytest.mark.slow
def test_refused_sweep_changes_nothing(tmp_path: Path, command: Callable[..., Result]):
    """Neither an existing run nor the sweep's files change."""
    sweep = ["-m", "+experiment=v1", *TINY, "hydra.sweep.dir=outputs/sw", "seed=1"]
    command(*sweep, "optimizer.lr=0.0001", cwd=tmp_path)
    folder = tmp_path / "outputs" / "sw"
    before = {
        path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != ".lock"
    }
    refused = command(*sweep, "optimizer.lr=0.0002", cwd=tmp_path, check=False)
    assert refused.returncode == 2
    assert "outputs/sw/0 contains another run, which differs in optimizer.lr" in refused.stderr
    after = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != ".lock"}
    assert after == before
    command("resume=outputs/sw/0", "trainer.max_epochs=2", TINY[-1], cwd=tmp_path)


def run(folder: str, best: float | None, **overrides: str) -> SweepRun:
    return SweepRun(Path(folder), {"data": "phantom", **overrides}, best)


def test_means_are_over_seeds_of_one_setting():
    words = format_sweep(
        [
            run("0", 10.0, seed="1", lr="0.1"),
            run("1", 14.0, seed="2", lr="0.1"),
            run("2", 7.0, seed="1", lr="0.2"),
            run("3", None, seed="2", lr="0.2"),
        ]
    )
    assert "lr=0.1: 12.000 ± 2.828 (s.d.) over 2 runs" in words
    assert "lr=0.2: 7.000 over 1 runs" in words
    assert "seed=2 lr=0.2       none" in words
    assert "phantom" not in words


def test_no_mean_without_seeds():
    assert "over" not in format_sweep([run("0", 10.0, lr="0.1"), run("1", 14.0, lr="0.2")])
