"""The main job: one run from a composed configuration."""

import errno
import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import lightning as L
from hydra.core.hydra_config import HydraConfig
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig
from tqdm.contrib.logging import logging_redirect_tqdm

from boneage_pl import __version__
from boneage_pl.cli.command import resume_command
from boneage_pl.data.found import Found
from boneage_pl.errors import BoneageError
from boneage_pl.machine.hardware import arithmetic, check_devices, resolve_precision
from boneage_pl.machine.home import path_of
from boneage_pl.model.head import is_depthwise
from boneage_pl.model.input import input_of
from boneage_pl.reading.remember import remember
from boneage_pl.report.own import report_best
from boneage_pl.report.summary import Summary, closing_words, finish, opening_words
from boneage_pl.run.beginning import Beginning
from boneage_pl.run.callbacks import CheckpointRecord, EpochLog, SampleGrid, SeededEpochs
from boneage_pl.run.files import write_first_files
from boneage_pl.run.folder import plain
from boneage_pl.run.history import History
from boneage_pl.run.hold import alone_in
from boneage_pl.run.interrupts import Interrupts, Stopped, say_stopped, stoppable
from boneage_pl.run.parts import check_compile, make_data, make_module, make_trainer
from boneage_pl.run.published import write_published_curves
from boneage_pl.run.record import Record
from boneage_pl.run.run_json import RunRecord
from boneage_pl.run.runs import BEST, LAST, shortest

log = logging.getLogger(__name__)


def train(cfg: DictConfig, found: Found | None = None) -> Summary:
    """Train one experiment in its run folder and return what came of it; what the folder holds is continued.

    Args:
        cfg: the composed configuration.
        found: the data set, where it has just been looked at.

    Raises:
        BoneageError: data, a checkpoint or an option that cannot be right.
        SystemExit: stopped by a signal, with 128 and the signal's number, as shells have it.
    """
    run = shortest(Path(HydraConfig.get().runtime.output_dir))
    _quiet()
    if getattr(rank_zero_only, "rank", 0):  # of the processes of a distributed run one speaks, and locks
        logging.getLogger("boneage_pl").setLevel(logging.ERROR)
        return _train(cfg, run, found)
    with alone_in(run):
        try:
            with stoppable(), _in_our_words(run):
                return _train(cfg, run, found)
        except Stopped as stopped:
            say_stopped(stopped.number, run)
            sys.exit(128 + stopped.number)
        except BoneageError as error:
            if (run / LAST).exists():
                raise BoneageError(
                    f"{error}\nThe run is kept; go on with\n  {resume_command(run)}"
                ) from error
            raise


def _train(cfg: DictConfig, run: Path, found: Found | None) -> Summary:
    check_devices(cfg.trainer.accelerator, cfg.trainer.devices)
    check_compile(cfg.compile)
    L.seed_everything(cfg.seed, workers=True, verbose=False)

    beginning = Beginning.of(cfg, run)
    data = make_data(cfg, beginning, found)
    network = beginning.network(cfg.model)
    precision = beginning.precision or resolve_precision(
        cfg.trainer.precision, cfg.trainer.accelerator, depthwise=is_depthwise(network)
    )
    data.prepare_data()
    data.setup()

    record = Record(
        version=__version__,
        experiment=HydraConfig.get().runtime.choices["experiment"],
        config=plain(cfg),
        precision=precision,
        input=input_of(network),
        split=data.record,
        start=beginning.start,
        root=str(path_of(cfg.data.root).absolute()),
        levels=getattr(data, "levels", []),  # a data module of one's own may not know
    )
    history = History(beginning.epochs)
    epochs = EpochLog(run / "metrics.csv", history, RunRecord.of(run, record, data.table, len(history.rows)))
    own = [
        CheckpointRecord(record, data.validation_rows, history),
        SampleGrid(),
        SeededEpochs(cfg.seed),
        Interrupts(run),
        epochs,
    ]
    trainer = make_trainer(cfg, run, precision, own, purge=len(history.rows) if beginning.resumed else None)
    data.check_shares(trainer.world_size, trainer.accumulate_grad_batches)
    optimizer_state = beginning.optimizer_state(cfg.optimizer.get("state"))
    module = make_module(cfg, network, precision, data, trainer.world_size, optimizer_state)
    beginning.check(module.build_optimizer()[0])
    record.arithmetic = arithmetic(trainer.strategy.root_device.type, trainer.world_size)
    if trainer.is_global_zero:
        write_first_files(run, beginning, network, data.split, data.skipped, epochs)
        write_published_curves(Path(cfg.outputs) / "published")

    log.info(opening_words(record, data.split, beginning.describe(cfg)))
    if trainer.limit_val_batches != 1:
        log.warning(
            "validation errors are of a part of the samples (trainer.limit_val_batches): not to be quoted"
        )
    with logging_redirect_tqdm():
        if beginning.to_be_measured:
            trainer.validate(module, datamodule=data, verbose=False)
            record.start = beginning.measure(float(trainer.callback_metrics["val_mae"]))
        beginning.say(run, cfg.trainer.max_epochs, record.arithmetic)
        if len(history.rows) < cfg.trainer.max_epochs:
            trainer.fit(module, datamodule=data, ckpt_path=beginning.path, weights_only=True)

    summary = Summary.of(record, data.split, history)
    if trainer.is_global_zero:
        paths = dict(zip(data.table["id"], data.table["path"], strict=True))
        remember(run / BEST, data.read, paths, record.config)
        figures = report_best(run, data, history, epochs.record.content)
        finish(run, summary, figures, record, trainer.logger)
        if cfg.trainer.get("fast_dev_run"):
            log.info("trainer.fast_dev_run: all went through, up to the report; nothing of it is kept")
        else:
            log.info(closing_words(summary, run, cfg.next_experiment, cfg.outputs))
    return summary


@contextmanager
def _in_our_words(run: Path) -> Iterator[None]:
    """Turn a full disk, and what Lightning or torch.compile refuses, into the user's own errors."""
    try:
        yield
    except MisconfigurationException as error:
        raise BoneageError(f"Lightning refuses this training: {error}") from error
    except RuntimeError as error:
        if not type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
            raise
        raise BoneageError(
            f"compile: {str(error).splitlines()[0]}\nWithout it (compile=false) nothing is compiled."
        ) from error
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        raise BoneageError(
            f"{error.filename or run} cannot be written: {error.strerror}. Make room."
        ) from error


def _quiet() -> None:
    """Leave the console to the lines that a person reads; warnings that matter stay."""
    logging.raiseExceptions = False  # a log that cannot be written ends nothing
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    lightning = logging.getLogger("lightning.pytorch")
    lightning.handlers.clear()  # what it says is said once, by Hydra's
    lightning.propagate = True
    for name in ("callbacks.model_summary", "profilers.profiler"):  # which speak when they are asked to
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
