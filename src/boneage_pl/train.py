"""Train one run from a composed configuration."""

import errno
import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import lightning as L
import torch
from hydra.core.hydra_config import HydraConfig
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig
from tqdm.contrib.logging import logging_redirect_tqdm

from boneage_pl import __version__
from boneage_pl.cli.overrides import resume_command
from boneage_pl.data.cache.build import DatasetIndex
from boneage_pl.errors import BoneAgeError
from boneage_pl.evaluation.reference_results import write_published_curves
from boneage_pl.evaluation.report import write_training_report
from boneage_pl.evaluation.run_summary import Summary, format_setup, format_summary, write_summary
from boneage_pl.model.input_spec import get_input_spec
from boneage_pl.prediction.ensemble import parse_tta
from boneage_pl.prediction.ood_fitting import add_ood_statistics
from boneage_pl.training.build import build_datamodule, build_module, build_trainer, check_compile
from boneage_pl.training.callbacks.logging import EpochLogger, SampleGrid, SaveMetadata, SeedEachEpoch
from boneage_pl.training.callbacks.signals import (
    GracefulStop,
    StopRequested,
    handle_stop_signals,
    print_stopped,
)
from boneage_pl.training.history import MetricsHistory
from boneage_pl.training.initial_state import InitialState, write_run_files
from boneage_pl.training.loggers import open_loggers, tensorboard_of
from boneage_pl.training.metadata import CheckpointMetadata
from boneage_pl.training.provenance import RunLog
from boneage_pl.training.run_dir import run_dir_lock, to_plain
from boneage_pl.training.runs import BEST, LAST, shortest_path
from boneage_pl.utils.files import expand_path
from boneage_pl.utils.hardware import check_devices, describe_numerics, resolve_precision

log = logging.getLogger(__name__)


def train(cfg: DictConfig, index: DatasetIndex | None = None) -> Summary:
    """Train one experiment in its run folder and return the summary; an existing run is resumed.

    Args:
        cfg: the composed configuration.
        index: the data set, if it has been read already.

    Raises:
        BoneAgeError: invalid data, checkpoint or option.
        SystemExit: stopped by a signal, with 128 plus the signal's number.
    """
    run = shortest_path(Path(HydraConfig.get().runtime.output_dir))
    _silence_warnings()
    if getattr(rank_zero_only, "rank", 0):  # only rank 0 logs and locks
        logging.getLogger("boneage_pl").setLevel(logging.ERROR)
        return _train(cfg, run, index)
    with run_dir_lock(run):
        try:
            with handle_stop_signals(), _translate_errors(run):
                return _train(cfg, run, index)
        except StopRequested as stopped:
            print_stopped(stopped.number, run)
            sys.exit(128 + stopped.number)
        except BoneAgeError as error:
            if (run / LAST).exists():
                raise BoneAgeError(
                    f"{error}\nThe run is kept. Resume it with\n  {resume_command(run)}"
                ) from error
            raise


def _train(cfg: DictConfig, run: Path, index: DatasetIndex | None) -> Summary:
    check_devices(cfg.trainer.accelerator, cfg.trainer.devices)
    check_compile(cfg.compile)
    parse_tta(cfg.tta)
    L.seed_everything(cfg.seed, workers=True, verbose=False)

    initial = InitialState.resolve(cfg, run)
    data = build_datamodule(cfg, initial, index)
    network = initial.build_network(cfg.model)
    resumed = initial.resumed_metadata
    precision = (
        resumed.precision if resumed else resolve_precision(cfg.trainer.precision, cfg.trainer.accelerator)
    )
    data.prepare_data()
    data.setup()

    record = CheckpointMetadata(
        version=__version__,
        experiment=HydraConfig.get().runtime.choices["experiment"],
        config=to_plain(cfg),
        precision=precision,
        input=get_input_spec(network),
        split=data.record,
        epoch=0,
        validation={},
        start=resumed.start if resumed else None,
        root=str(expand_path(cfg.data.root).absolute()),
        bit_depths=data.bit_depths,
    )
    history = MetricsHistory(initial.epochs)
    epochs = EpochLogger(
        run / "metrics.csv", history, RunLog.start(run, record, data.table, len(history.rows))
    )
    callbacks = [
        SaveMetadata(record, data.validation_rows, history),
        SampleGrid(),
        SeedEachEpoch(cfg.seed),
        GracefulStop(run),
        epochs,
    ]
    trainer = build_trainer(
        cfg, run, precision, callbacks, purge=len(history.rows) if initial.resumed else None
    )
    data.check_shares(trainer.world_size, trainer.accumulate_grad_batches)
    optimizer_state = initial.optimizer_state(cfg.optimizer.get("state"))
    module = build_module(cfg, network, data, trainer.world_size, optimizer_state)
    initial.check(module.build_optimizer()[0])
    record.numerics = describe_numerics(trainer.strategy.root_device.type, trainer.world_size)
    if trainer.is_global_zero:
        write_run_files(run, initial, network, data.split, data.skipped, epochs)
        write_published_curves(Path(cfg.output_dir) / "published")
        open_loggers(trainer.loggers, record.config)

    log.info(format_setup(record, data.split, initial.describe(cfg)))
    if trainer.limit_val_batches != 1:
        log.warning(
            "trainer.limit_val_batches: validation uses only a part of the images; do not report its errors"
        )
    with logging_redirect_tqdm():
        if initial.checkpoint and not resumed:
            trainer.validate(module, datamodule=data, verbose=False)
            record.start = initial.record_baseline(float(trainer.callback_metrics["val_mae"]))
        initial.log_start(run, cfg.trainer.max_epochs, record.numerics)
        if len(history.rows) < cfg.trainer.max_epochs:
            trainer.fit(module, datamodule=data, ckpt_path=initial.path, weights_only=True)

    summary = Summary.of(record, data.split, history)
    if trainer.is_global_zero:
        paths = dict(zip(data.table["id"], data.table["path"], strict=True))
        add_ood_statistics(run / BEST, data.read, paths, record.config)
        figures = write_training_report(run, data, history, epochs.record.content)
        write_summary(run, summary, figures, record, tensorboard_of(trainer.loggers))
        if cfg.trainer.get("fast_dev_run"):
            log.info("trainer.fast_dev_run: completed, up to the report; nothing is kept")
        else:
            log.info(format_summary(summary, run, cfg.suggested_next, cfg.output_dir))
    return summary


@contextmanager
def _translate_errors(run: Path) -> Iterator[None]:
    """Turn a full disk or memory, and errors of Lightning and torch.compile, into `BoneAgeError`."""
    try:
        yield
    except MisconfigurationException as error:
        raise BoneAgeError(f"Lightning rejects this configuration: {error}") from error
    except RuntimeError as error:
        if isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error):
            raise BoneAgeError(
                f"Out of memory in a training step: {str(error).splitlines()[0]}\n"
                "Compute the batch in parts with trainer.accumulate_grad_batches=2 or more, or reduce\n"
                "data.image_size or data.batch_size, or set data.on_device=false."
            ) from error
        if "DataLoader worker" in str(error):
            raise BoneAgeError(
                f"{str(error).splitlines()[0]}\nMemory may be short: reduce data.num_workers, or set it to 0."
            ) from error
        if not type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
            raise
        raise BoneAgeError(
            f"compile: {str(error).splitlines()[0]}\nTrain without it: compile=false."
        ) from error
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        raise BoneAgeError(
            f"{error.filename or run} cannot be written: {error.strerror}. Free some disk space."
        ) from error


def _silence_warnings() -> None:
    """Silence irrelevant messages and warnings of the libraries."""
    logging.raiseExceptions = False  # a full disk must not raise in logging
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    lightning = logging.getLogger("lightning.pytorch")
    lightning.handlers.clear()  # Hydra's handler logs them
    lightning.propagate = True
    for name in ("callbacks.model_summary", "profilers.profiler"):  # printed on request
        logger = logging.getLogger(f"lightning.pytorch.{name}")
        logger.setLevel(logging.INFO)
        logger.disabled = False  # Hydra disables existing loggers
    for message in (
        ".*does not have many workers.*",  # intended on a CPU
        ".*logging interval.*",  # logging is by epoch
        ".*treespec, LeafSpec.*",  # Lightning's use of a deprecated name
        ".*overridden `on_after_batch_transfer` in `LightningModule`.*",  # intended
        ".*sync_dist=True.*",  # metrics are already synchronized
    ):
        warnings.filterwarnings("ignore", message)
