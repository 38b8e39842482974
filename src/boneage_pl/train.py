"""The main job: one run from a composed configuration."""

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
from boneage_pl.model.layers import is_depthwise
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
    """Train one experiment in its run folder and return what came of it; what the folder holds is continued.

    Args:
        cfg: the composed configuration.
        index: the data set, where it was just read.

    Raises:
        BoneAgeError: data, a checkpoint or an option that cannot be right.
        SystemExit: stopped by a signal, with 128 and the signal's number, as shells have it.
    """
    run = shortest_path(Path(HydraConfig.get().runtime.output_dir))
    _silence_warnings()
    if getattr(rank_zero_only, "rank", 0):  # of the processes of a distributed run one speaks, and locks
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
                    f"{error}\nThe run is kept; go on with\n  {resume_command(run)}"
                ) from error
            raise


def _train(cfg: DictConfig, run: Path, index: DatasetIndex | None) -> Summary:
    check_devices(cfg.trainer.accelerator, cfg.trainer.devices)
    check_compile(cfg.compile)
    parse_tta(cfg.tta)
    L.seed_everything(cfg.seed, workers=True, verbose=False)

    beginning = InitialState.resolve(cfg, run)
    data = build_datamodule(cfg, beginning, index)
    network = beginning.network(cfg.model)
    before = beginning.resumed_metadata
    precision = (
        before.precision
        if before
        else resolve_precision(
            cfg.trainer.precision, cfg.trainer.accelerator, depthwise=is_depthwise(network)
        )
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
        start=before.start if before else None,
        root=str(expand_path(cfg.data.root).absolute()),
        bit_depths=data.bit_depths,
    )
    history = MetricsHistory(beginning.epochs)
    epochs = EpochLogger(
        run / "metrics.csv", history, RunLog.start(run, record, data.table, len(history.rows))
    )
    own = [
        SaveMetadata(record, data.validation_rows, history),
        SampleGrid(),
        SeedEachEpoch(cfg.seed),
        GracefulStop(run),
        epochs,
    ]
    trainer = build_trainer(cfg, run, precision, own, purge=len(history.rows) if beginning.resumed else None)
    data.check_shares(trainer.world_size, trainer.accumulate_grad_batches)
    optimizer_state = beginning.optimizer_state(cfg.optimizer.get("state"))
    module = build_module(cfg, network, precision, data, trainer.world_size, optimizer_state)
    beginning.check(module.build_optimizer()[0])
    record.numerics = describe_numerics(trainer.strategy.root_device.type, trainer.world_size)
    if trainer.is_global_zero:
        write_run_files(run, beginning, network, data.split, data.skipped, epochs)
        write_published_curves(Path(cfg.output_dir) / "published")
        open_loggers(trainer.loggers, record.config)

    log.info(format_setup(record, data.split, beginning.describe(cfg)))
    if trainer.limit_val_batches != 1:
        log.warning(
            "validation errors are of a part of the samples (trainer.limit_val_batches): not to be quoted"
        )
    with logging_redirect_tqdm():
        if beginning.checkpoint and not before:
            trainer.validate(module, datamodule=data, verbose=False)
            record.start = beginning.record_baseline(float(trainer.callback_metrics["val_mae"]))
        beginning.log_start(run, cfg.trainer.max_epochs, record.numerics)
        if len(history.rows) < cfg.trainer.max_epochs:
            trainer.fit(module, datamodule=data, ckpt_path=beginning.path, weights_only=True)

    summary = Summary.of(record, data.split, history)
    if trainer.is_global_zero:
        paths = dict(zip(data.table["id"], data.table["path"], strict=True))
        add_ood_statistics(run / BEST, data.read, paths, record.config)
        figures = write_training_report(run, data, history, epochs.record.content)
        write_summary(run, summary, figures, record, tensorboard_of(trainer.loggers))
        if cfg.trainer.get("fast_dev_run"):
            log.info("trainer.fast_dev_run: all went through, up to the report; nothing of it is kept")
        else:
            log.info(format_summary(summary, run, cfg.suggested_next, cfg.output_dir))
    return summary


@contextmanager
def _translate_errors(run: Path) -> Iterator[None]:
    """Turn a full disk, and what Lightning or torch.compile refuses, into the user's own errors."""
    try:
        yield
    except MisconfigurationException as error:
        raise BoneAgeError(f"Lightning refuses this training: {error}") from error
    except RuntimeError as error:
        if isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error):
            raise BoneAgeError(
                f"there is not enough memory for a step: {str(error).splitlines()[0]}\n"
                "trainer.accumulate_grad_batches=2, or more, computes the same batch in parts; a smaller\n"
                "data.image_size or data.batch_size, or data.on_device=false, needs less."
            ) from error
        if "DataLoader worker" in str(error):
            raise BoneAgeError(
                f"{str(error).splitlines()[0]}\nThe system may have no memory left for it: try a smaller "
                "data.num_workers, or 0."
            ) from error
        if not type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
            raise
        raise BoneAgeError(
            f"compile: {str(error).splitlines()[0]}\nWithout it (compile=false) nothing is compiled."
        ) from error
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        raise BoneAgeError(
            f"{error.filename or run} cannot be written: {error.strerror}. Make room."
        ) from error


def _silence_warnings() -> None:
    """Leave the console to the lines that a person reads; warnings that matter stay."""
    logging.raiseExceptions = False  # a log that cannot be written ends nothing
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    lightning = logging.getLogger("lightning.pytorch")
    lightning.handlers.clear()  # its messages are logged once, by Hydra's handler
    lightning.propagate = True
    for name in ("callbacks.model_summary", "profilers.profiler"):  # which print on request
        logger = logging.getLogger(f"lightning.pytorch.{name}")
        logger.setLevel(logging.INFO)
        logger.disabled = False  # as Hydra leaves those that were there before it
    for message in (
        ".*does not have many workers.*",  # chosen on purpose on a CPU
        ".*logging interval.*",  # we log by epoch
        ".*treespec, LeafSpec.*",  # Lightning's own use of a deprecated name
        ".*overridden `on_after_batch_transfer` in `LightningModule`.*",  # as is meant
        ".*sync_dist=True.*",  # the metrics are the same in every process when they are logged
    ):
        warnings.filterwarnings("ignore", message)
