"""The main job: one run from a composed configuration."""

import logging
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import lightning as L
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from lightning.pytorch.callbacks import Callback, TQDMProgressBar
from lightning.pytorch.loggers import TensorBoardLogger
from omegaconf import DictConfig, OmegaConf
from tqdm.contrib.logging import logging_redirect_tqdm

from boneage_pl import __version__
from boneage_pl.callbacks import CheckpointRecord, EpochLog, SampleGrid
from boneage_pl.checkpoint import load_checkpoint, load_weights
from boneage_pl.data.datamodule import BoneAgeData
from boneage_pl.hardware import resolve_precision
from boneage_pl.model.module import BoneAgeModule
from boneage_pl.preflight import find_start
from boneage_pl.report.published import write_published_curves
from boneage_pl.report.summary import Start, Summary, closing_words, opening_words, write_report
from boneage_pl.runs import shortest

log = logging.getLogger(__name__)


def train(cfg: DictConfig) -> Summary:
    """Train one experiment into Hydra's run folder and return what came of it.

    Raises:
        BoneageError: data, a checkpoint or an option that cannot be right.
    """
    hydra = HydraConfig.get()
    run = shortest(Path(hydra.runtime.output_dir))
    _quiet_lightning()
    L.seed_everything(cfg.seed, workers=True, verbose=False)

    ckpt = find_start(cfg)
    start = load_checkpoint(ckpt) if ckpt else None
    network = instantiate(cfg.model)
    if start is not None:
        load_weights(network, start, plain(cfg.model))
    # a partial, because instantiate() would turn the plain values of `origin` into configuration objects
    make_data: Callable[..., BoneAgeData] = instantiate(cfg.data, _partial_=True)
    data = make_data(origin=start.record["split"] if start else None)
    data.prepare_data()
    data.setup()
    data.split.to_csv(run / "split.csv", index=False)
    write_published_curves(Path(cfg.outputs) / "published")

    precision = resolve_precision(cfg.trainer.precision)
    record = describe_run(cfg, hydra.runtime.choices["experiment"], precision, data)
    record["transform_input"] = network.backbone.transform_input
    module = BoneAgeModule(network, instantiate(cfg.optimizer), instantiate(cfg.scheduler))
    epochs = EpochLog(run / "metrics.csv")
    own = [CheckpointRecord(record, data.validation_rows), SampleGrid(), epochs]
    trainer = make_trainer(cfg, run, precision, own)

    log.info(opening_words(record, data.split, device=str(trainer.strategy.root_device)))
    before = None
    with logging_redirect_tqdm():
        if start is not None:
            trainer.validate(module, datamodule=data, verbose=False)
            val_mae = float(trainer.callback_metrics["val_mae"])
            log.info("validation MAE of %s before the first step: %.4f months", start.path, val_mae)
            before = Start(start.record["experiment"], str(start.path), val_mae)
        trainer.fit(module, datamodule=data)

    best = load_checkpoint(run / "checkpoints" / "best.ckpt")
    summary = Summary.of(record, data.split, epochs.rows, before)
    write_report(run, summary, best.record["validation"], hyperparameters(cfg, record), trainer.logger)
    log.info(closing_words(summary, run, cfg.next_experiment, cfg.outputs))
    return summary


def make_trainer(cfg: DictConfig, run: Path, precision: str, own: list[Callback]) -> L.Trainer:
    """Build the configured trainer, writing under `run`, with the configured callbacks and then our `own`."""
    bar = sys.stderr.isatty() if cfg.trainer.enable_progress_bar is None else cfg.trainer.enable_progress_bar
    trainer: L.Trainer = instantiate(
        cfg.trainer,
        precision=precision,
        enable_progress_bar=bar,
        logger=TensorBoardLogger(run, name=None, version="tensorboard", default_hp_metric=False),
        callbacks=[
            *instantiate(cfg.callbacks).values(),
            *([TQDMProgressBar(leave=False)] if bar else []),
            *own,
        ],
        default_root_dir=run,
    )
    return trainer


def describe_run(cfg: DictConfig, experiment: str, precision: str, data: BoneAgeData) -> dict[str, Any]:
    """Return the plain values that every checkpoint of this run carries beside its weights."""
    return {
        "version": __version__,
        "experiment": experiment,
        "config": plain(cfg),
        "model": plain(cfg.model),
        "image_size": cfg.data.image_size,
        "precision": precision,
        "split": data.record,
    }


def plain(cfg: DictConfig) -> dict[str, Any]:
    """Return a configuration as resolved plain values."""
    return cast(dict[str, Any], OmegaConf.to_container(cfg, resolve=True))


def hyperparameters(cfg: DictConfig, record: dict[str, Any]) -> dict[str, Any]:
    """Return the choices that TensorBoard's HPARAMS page compares runs by."""
    return {
        "batch_size": cfg.data.batch_size,
        "image_size": cfg.data.image_size,
        "protocol": record["split"]["protocol"],
        "samples_per_group": record["split"]["samples_per_group"],
        "lr": cfg.optimizer.get("lr"),
        "scheduler": cfg.scheduler is not None,
        "max_epochs": cfg.trainer.max_epochs,
        "precision": record["precision"],
        "seed": cfg.seed,
    }


def _quiet_lightning() -> None:
    """Leave the console to the lines that a person reads; warnings that matter stay."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    for message in (
        ".*does not have many workers.*",  # chosen on purpose on a CPU
        ".*logging interval.*",  # we log by epoch
        ".*treespec, LeafSpec.*",  # Lightning's own use of a deprecated name
    ):
        warnings.filterwarnings("ignore", message)
