import csv
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from boneage_pl.errors import BoneAgeError
from boneage_pl.training.loggers import build_loggers, log_epoch, tensorboard_of
from tests.conftest import SMALL_PHANTOM
from tests.helpers.compare_runs import scalars_of
from tests.helpers.fork_server import Forks

OWN = "model._target_=tests.helpers.tiny_models.Tiny"
TINY = [*SMALL_PHANTOM, "data.batch_size=8", "trainer.max_epochs=1", OWN, "hydra.run.dir=outputs/x"]
OFFLINE = {"WANDB_MODE": "offline", "WANDB_SILENT": "true"}


def csv_rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_every_logger_has_every_epoch(tmp_path: Path, forks: Forks):
    pytest.importorskip("wandb")
    pytest.importorskip("mlflow")
    options = [*TINY, "logger=many", "logger.wandb.offline=true"]
    forks.run("+experiment=v1", *options, cwd=tmp_path, **OFFLINE)
    forks.run("resume=outputs/x", "trainer.max_epochs=2", OWN, cwd=tmp_path, **OFFLINE)
    run = tmp_path / "outputs" / "x"
    own = csv_rows(run)
    assert [
        float(row["mae/val"]) for n in "01" for row in csv_rows(run / "csv" / f"version_{n}")
    ] == pytest.approx([float(row["val_mae"]) for row in own])
    assert "mae/val" in str(scalars_of(run))
    folders = list((run / "wandb").glob("offline-run-*"))
    assert {folder.name.rpartition("-run-")[2].partition("-")[2] for folder in folders} == {"outputs-x"}
    values = [
        file.read_text().split()[1]
        for file in sorted((tmp_path / "outputs" / "mlruns").glob("*/*/metrics/mae/val"))
    ]
    assert sorted(map(float, values)) == pytest.approx(sorted(float(row["val_mae"]) for row in own))


def test_run_without_tensorboard_is_complete(tmp_path: Path, forks: Forks):
    forks.run("+experiment=v1", *TINY, "logger=csv", "~scheduler", cwd=tmp_path)
    run = tmp_path / "outputs" / "x"
    assert len(csv_rows(run / "csv" / "version_0")) == 1
    assert (run / "report" / "summary.json").exists()
    assert not list(run.glob("events.*"))


def test_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("lightning.pytorch.loggers.wandb._WANDB_AVAILABLE", False)
    node = OmegaConf.create({"wandb": {"_target_": "lightning.pytorch.loggers.WandbLogger"}})
    with pytest.raises(BoneAgeError, match=r"pip install 'boneage_pl\[wandb\]'"):
        build_loggers(node, tmp_path, None)


def test_failing_logger_ends_no_training(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    node = OmegaConf.create({"csv": {"_target_": "lightning.pytorch.loggers.CSVLogger"}})
    (logger,) = build_loggers(node, tmp_path, None)
    logger.log_metrics = lambda *_: 1 / 0  # type: ignore[method-assign]
    log_epoch([logger], {"mae/val": 1.0}, 0)
    assert "CSVLogger: division by zero" in caplog.text
    assert tensorboard_of([logger]) is None
