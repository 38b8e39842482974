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
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig, OmegaConf
from tqdm.contrib.logging import logging_redirect_tqdm

from boneage_pl import __version__
from boneage_pl.callbacks import CheckpointRecord, EpochLog, SampleGrid
from boneage_pl.checkpoint import load_checkpoint, load_weights
from boneage_pl.checkpoint_io import WholeFiles
from boneage_pl.data.datamodule import BoneAgeData
from boneage_pl.hardware import keep_freed_memory, on_gpu, resolve_precision, set_float32_arithmetic
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
    if getattr(rank_zero_only, "rank", 0):  # of the processes of a distributed run one speaks
        logging.getLogger("boneage_pl").setLevel(logging.ERROR)
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

    precision = resolve_precision(cfg.trainer.precision, cfg.trainer.accelerator)
    record = describe_run(cfg, hydra.runtime.choices["experiment"], precision, data)
    record["transform_input"] = network.backbone.transform_input
    module = BoneAgeModule(network, instantiate(cfg.optimizer), instantiate(cfg.scheduler))
    epochs = EpochLog(run / "metrics.csv")
    own = [CheckpointRecord(record, data.validation_rows), SampleGrid(), epochs]
    trainer = make_trainer(cfg, run, precision, own)
    data.check_shares(trainer.world_size, trainer.accumulate_grad_batches)
    set_float32_arithmetic(precision)
    if trainer.strategy.root_device.type == "cpu":
        keep_freed_memory()
    if cfg.compile:
        network.compile()
    if trainer.is_global_zero:
        data.split.to_csv(run / "split.csv", index=False)
        write_published_curves(Path(cfg.outputs) / "published")

    log.info(opening_words(record, data.split, _devices(trainer)))
    before = None
    with logging_redirect_tqdm():
        if start is not None:
            trainer.validate(module, datamodule=data, verbose=False)
            val_mae = float(trainer.callback_metrics["val_mae"])
            log.info("validation MAE of %s before the first step: %.4f months", start.path, val_mae)
            before = Start(start.record["experiment"], str(start.path), val_mae)
        trainer.fit(module, datamodule=data)

    summary = Summary.of(record, data.split, epochs.rows, before)
    if trainer.is_global_zero:
        best = load_checkpoint(run / "checkpoints" / "best.ckpt")
        write_report(run, summary, best.record["validation"], hyperparameters(cfg, record), trainer.logger)
        log.info(closing_words(summary, run, cfg.next_experiment, cfg.outputs))
    return summary


def make_trainer(cfg: DictConfig, run: Path, precision: str, own: list[Callback]) -> L.Trainer:
    """Build the configured trainer, writing under `run`, with the configured callbacks and then our `own`."""
    bar = sys.stderr.isatty() if cfg.trainer.enable_progress_bar is None else cfg.trainer.enable_progress_bar
    synchronised = cfg.trainer.sync_batchnorm
    trainer: L.Trainer = instantiate(
        cfg.trainer,
        precision=precision,
        enable_progress_bar=bar,
        sync_batchnorm=on_gpu(cfg.trainer.accelerator) if synchronised is None else synchronised,
        plugins=[WholeFiles()],
        logger=TensorBoardLogger(run, name=None, version="tensorboard", default_hp_metric=False),
        callbacks=[
            *instantiate(cfg.callbacks).values(),
            *([TQDMProgressBar(leave=False)] if bar else []),
            *own,
        ],
        default_root_dir=run,
    )
    return trainer


def _devices(trainer: L.Trainer) -> str:
    """Say what is trained on, and what several processes do otherwise than one."""
    device = trainer.strategy.root_device.type
    if trainer.world_size == 1:
        return str(trainer.strategy.root_device)
    alone = device == "cpu"
    statistics = ", BatchNorm normalises each process's share of a batch by itself" if alone else ""
    return f"{trainer.world_size} × {device}{statistics}"


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
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in (
        ".*does not have many workers.*",  # chosen on purpose on a CPU
        ".*logging interval.*",  # we log by epoch
        ".*treespec, LeafSpec.*",  # Lightning's own use of a deprecated name
        ".*sync_dist=True.*",  # the metrics are the same in every process when they are logged
    ):
        warnings.filterwarnings("ignore", message)
