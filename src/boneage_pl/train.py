"""The main job: one run from a composed configuration."""

import errno
import logging
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import lightning as L
import pandas as pd
from hydra.core.hydra_config import HydraConfig
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Callback, TQDMProgressBar
from lightning.pytorch.utilities import rank_zero_only
from matplotlib.figure import Figure
from omegaconf import DictConfig, OmegaConf
from tqdm.contrib.logging import logging_redirect_tqdm

from boneage_pl import __version__
from boneage_pl.cli.building import built, partial_of
from boneage_pl.cli.command import resume_command
from boneage_pl.data.datamodule import BoneAgeData
from boneage_pl.data.found import Found
from boneage_pl.errors import BoneageError
from boneage_pl.machine.hardware import (
    arithmetic,
    check_devices,
    keep_freed_memory,
    resolve_precision,
    say_other_arithmetic,
    set_float32_arithmetic,
    synchronises,
)
from boneage_pl.model.module import BoneAgeModule
from boneage_pl.report.measures import answers_table
from boneage_pl.report.published import write_published_curves
from boneage_pl.report.summary import Start, Summary, closing_words, finish, opening_words
from boneage_pl.report.writer import About, write_report
from boneage_pl.run.callbacks import CheckpointRecord, EpochLog, SampleGrid, SeededEpochs, check_monitors
from boneage_pl.run.checkpoint import (
    Checkpoint,
    load_checkpoint,
    load_weights,
    rescales,
)
from boneage_pl.run.curves import Curves
from boneage_pl.run.folder import alone_in, differences
from boneage_pl.run.history import History
from boneage_pl.run.interrupts import Interrupts, Stopped, say_stopped, stoppable
from boneage_pl.run.preflight import find_start
from boneage_pl.run.run_json import RunRecord, fingerprint
from boneage_pl.run.runs import BEST, FINISHED, LAST, shortest
from boneage_pl.run.saving import WholeFiles, warn_of_little_room
from boneage_pl.run.state import check_training_state, newest_state, restore_best

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
            f"compile=true: {str(error).splitlines()[0]}\nWithout it (compile=false) nothing is compiled."
        ) from error
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        raise BoneageError(
            f"{error.filename or run} cannot be written: {error.strerror}. Make room."
        ) from error


def _train(cfg: DictConfig, run: Path, found: Found | None) -> Summary:
    check_devices(cfg.trainer.accelerator, cfg.trainer.devices)
    L.seed_everything(cfg.seed, workers=True, verbose=False)
    state = newest_state(run)
    if state is not None:
        _continue_as_begun(cfg, state)
    ckpt = find_start(cfg) if state is None else None
    start = load_checkpoint(ckpt) if ckpt else None
    source = state or start
    # weights that are replaced at once need not be fetched
    replaced = {"weights": None} if source and "weights" in cfg.model else {}
    network = built(cfg.model, "model", **replaced)
    if source is not None:
        load_weights(network, source, plain(cfg.model))
    if state is not None and state.record["epochs"]:
        check_training_state(state, network)
    data = make_data(cfg, source, found, exactly=state is not None)
    data.prepare_data()
    data.setup()

    precision = resolve_precision(cfg.trainer.precision, cfg.trainer.accelerator)
    precision = state.record["precision"] if state else precision
    record = describe_run(cfg, HydraConfig.get().runtime.choices["experiment"], precision, data)
    record["transform_input"] = rescales(network)
    record["start"] = state.record["start"] if state else None
    module = BoneAgeModule(
        network,
        optimizer_of(cfg, precision),
        partial_of(cfg.scheduler, "scheduler") if cfg.scheduler else None,
    )
    module.build_optimizer()  # what cannot be built is refused before anything is written
    history = History(state.record["epochs"] if state else ())
    run_record = RunRecord(
        run / "run.json",
        {
            "experiment": record["experiment"],
            "seed": cfg.seed,
            "precision": precision,
            "data": fingerprint(data.table, data.record["hashes"]),
            "config": record["config"],
        },
        len(history.rows),
    )
    epochs = EpochLog(run / "metrics.csv", history, run_record)
    for checkpoint in (state, start):
        if checkpoint is not None:
            checkpoint.let_go()
    own = [
        CheckpointRecord(record, data.validation_rows, history),
        SampleGrid(),
        SeededEpochs(cfg.seed),
        Interrupts(run),
        epochs,
    ]
    trainer = make_trainer(cfg, run, precision, own, purge=len(history.rows) if state else None)
    data.check_shares(trainer.world_size, trainer.accumulate_grad_batches)
    record["arithmetic"] = arithmetic(trainer.strategy.root_device.type, trainer.world_size)
    set_float32_arithmetic(precision)
    if trainer.strategy.root_device.type == "cpu":
        keep_freed_memory()
    if cfg.compile:
        network.compile()
    if trainer.is_global_zero:
        warn_of_little_room(network, run)
        data.split.to_csv(run / "split.csv", index=False)
        if len(data.skipped):
            data.skipped.to_csv(run / "skipped.csv", index=False)
        write_published_curves(Path(cfg.outputs) / "published")
        run_record.write()
        if state is not None:
            epochs.write()
            restore_best(run, state, history)
            (run / FINISHED).unlink(missing_ok=True)  # of a run that grows; written again at its end

    log.info(opening_words(record, data.split, _devices(trainer)))
    if trainer.limit_val_batches != 1:
        log.warning(
            "validation errors are of a part of the samples (trainer.limit_val_batches): not to be quoted"
        )
    with logging_redirect_tqdm():
        if start is not None:
            trainer.validate(module, datamodule=data, verbose=False)
            val_mae = float(trainer.callback_metrics["val_mae"])
            log.info("validation MAE of %s before the first step: %.4f months", start.path, val_mae)
            record["start"] = asdict(Start(start.record["experiment"], str(start.path), val_mae))
        if state is not None:
            log.info("continuing %s after %d of %d epochs", run, len(history.rows), cfg.trainer.max_epochs)
            say_other_arithmetic(state.record.get("arithmetic"), record["arithmetic"])
        if len(history.rows) < cfg.trainer.max_epochs:
            path = state.path if state and history.rows else None
            trainer.fit(module, datamodule=data, ckpt_path=path, weights_only=True)

    before = Start(**record["start"]) if record["start"] else None
    summary = Summary.of(record, data.split, history, before)
    if trainer.is_global_zero:
        figures = report_best(run, data, history, run_record.content)
        finish(run, summary, figures, hyperparameters(cfg, record), trainer.logger)
        if cfg.trainer.get("fast_dev_run"):
            log.info("trainer.fast_dev_run: all went through, up to the report; nothing of it is kept")
        else:
            log.info(closing_words(summary, run, cfg.next_experiment, cfg.outputs))
    return summary


def report_best(run: Path, data: BoneAgeData, history: History, ran: dict[str, Any]) -> dict[str, Figure]:
    """Write the report of a run's best checkpoint on its own validation images; return the figures."""
    best = load_checkpoint(run / BEST)
    answers = best.record["validation"]
    split = best.record["split"]
    table = answers_table(
        pd.DataFrame({name: answers[name] for name in ("id", "male", "bone_age")}),
        answers["predicted"],
        split["edges"],
        split["hashes"],
        set(split["train"]),
    )
    about = About(
        title=f"Bone age: {best.record['experiment']}, best of {len(history.rows)} epochs",
        subset="the validation images of its own run",
        data=str(data.root),
        checkpoints=[str(best.path)],
        record={**best.record, "epochs": history.rows},
        chose_epoch=True,
        balanced=not split["protocol"].startswith("file"),
        run=ran,
    )
    return write_report(run / "report", about, table, data.read)


def optimizer_of(cfg: DictConfig, precision: str) -> Callable[..., Any]:
    """Return what makes the optimiser; unfused where gradients are clipped that a fused one would scale."""
    if cfg.trainer.get("gradient_clip_val") and cfg.optimizer.get("fused") and "mixed" in precision:
        log.info("optimizer.fused=false: %s gradients of a fused optimiser cannot be clipped", precision)
        cfg = OmegaConf.merge(cfg, {"optimizer": {"fused": False}})  # type: ignore[assignment]
    return partial_of(cfg.optimizer, "optimizer")


def _continue_as_begun(cfg: DictConfig, state: Checkpoint) -> None:
    """Refuse to go on as another experiment; never go on to fewer epochs than were ever asked for."""
    begun = state.record["config"]
    if changed := differences(plain(cfg), begun):
        raise BoneageError(
            f"{state.path} was trained with another {', '.join(changed[:5])}: a run goes on as it began.\n"
            "Start a new run for another configuration."
        )
    cfg.trainer.max_epochs = max(cfg.trainer.max_epochs, begun["trainer"]["max_epochs"])


def make_data(
    cfg: DictConfig, source: Checkpoint | None, found: Found | None, *, exactly: bool
) -> BoneAgeData:
    """Build the configured data with the split of `source`, if there is one; `exactly` as it was stored."""
    # a partial, because instantiate() would turn the plain values of `origin` into configuration objects
    make: Callable[..., BoneAgeData] = partial_of(cfg.data, "data")
    stored = {"split_file": None, "new_split": False, "allow_overlap": False} if exactly else {}
    looked = {"found": found} if found else {}  # only ours is looked at, and knows the option
    return make(origin=source.record["split"] if source else None, **looked, **stored)


def make_trainer(
    cfg: DictConfig, run: Path, precision: str, own: list[Callback], purge: int | None = None
) -> L.Trainer:
    """Build the configured trainer, writing under `run`, with the configured callbacks and then our `own`.

    TensorBoard forgets what it was told of the epochs from `purge` on: they are trained again.
    """
    bar = sys.stderr.isatty() if cfg.trainer.enable_progress_bar is None else cfg.trainer.enable_progress_bar
    callbacks = list(built(cfg.callbacks, "callbacks").values())
    check_monitors(callbacks)
    trainer: L.Trainer = built(
        cfg.trainer,
        "trainer",
        precision=precision,
        enable_progress_bar=bar,
        sync_batchnorm=synchronises(cfg.trainer.sync_batchnorm, cfg.trainer.accelerator),
        benchmark=cfg.trainer.benchmark and not cfg.trainer.get("deterministic"),
        plugins=[WholeFiles()],
        logger=Curves(run, purge),
        callbacks=[
            *callbacks,
            *([TQDMProgressBar(leave=False)] if bar else []),
            *own,
        ],
        default_root_dir=run,
        **({"fast_dev_run": False} if "fast_dev_run" in cfg.trainer else {}),  # done by then: see preflight
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
        ".*sync_dist=True.*",  # the metrics are the same in every process when they are logged
    ):
        warnings.filterwarnings("ignore", message)
