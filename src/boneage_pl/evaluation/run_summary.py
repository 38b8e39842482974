"""Summary of a run: summary.json, verdict, console text."""

import json
import math
import shlex
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from boneage_pl.cli.overrides import next_command
from boneage_pl.data.split_record import training_rows
from boneage_pl.evaluation.reference_results import BEST_PUBLISHED, PUBLISHED_ON_TEST
from boneage_pl.training.history import MetricsHistory
from boneage_pl.training.metadata import CheckpointMetadata, WarmStart
from boneage_pl.training.runs import SUMMARY
from boneage_pl.utils.files import atomic_write

LEARNED = 0.5  # best validation MAE below this share of the constant predictor's: learned
NOT_LEARNED = 0.8  # above this share: did not learn


@dataclass
class Summary:
    """Numbers of a finished run; MAEs in months on its validation rows."""

    experiment: str
    protocol: str
    image_size: int
    precision: str
    epochs: int
    best_val_mae: float
    best_epoch: int
    constant_months: float
    constant_mae: float
    verdict: str
    start: WarmStart | None

    @classmethod
    def of(cls, record: CheckpointMetadata, split: pd.DataFrame, history: MetricsHistory) -> "Summary":
        """Build the summary from metadata, split and epochs, at least one of them validated."""
        best = history.best
        assert best is not None
        months, constant = constant_predictor(split)
        return cls(
            experiment=record.experiment,
            protocol=record.split["protocol"],
            image_size=record.image_size,
            precision=record.precision,
            epochs=len(history.rows),
            best_val_mae=best["val_mae"],
            best_epoch=int(best["epoch"]),
            constant_months=months,
            constant_mae=constant,
            verdict=verdict(best["val_mae"], constant, record.start.val_mae if record.start else None),
            start=record.start,
        )


def constant_predictor(split: pd.DataFrame) -> tuple[float, float]:
    """Return the median age of the training rows and its MAE on the validation rows, in months."""
    train = split["subset"] == "train"
    months = float(split.loc[train, "bone_age"].median())
    return months, float((split.loc[~train, "bone_age"] - months).abs().mean())


def verdict(best_val_mae: float, constant_mae: float, start_mae: float | None = None) -> str:
    """Return `learned`, `barely learned` or `did not learn` (also for NaN).

    For a warm start, with MAE `start_mae` on the same rows, add if no epoch was better.
    """
    if best_val_mae < LEARNED * constant_mae:
        outcome = "learned"
    else:
        outcome = "barely learned" if best_val_mae <= NOT_LEARNED * constant_mae else "did not learn"
    beaten = start_mae is None or best_val_mae < start_mae
    return outcome if beaten else f"{outcome}, and never beat its start"


def format_setup(record: CheckpointMetadata, split: pd.DataFrame, initial_weights: str) -> str:
    """Describe a run at its start: data, hardware, initial weights, split, constant predictor."""
    train = split.loc[split["subset"] == "train", "id"]
    validation = split.loc[split["subset"] == "validation", "id"]
    seen = validation.isin(training_rows(validation, record.split)).mean()
    months, constant = constant_predictor(split)
    device = "{processes} × {device}".format(**record.numerics).removeprefix("1 × ")
    if record.numerics["processes"] > 1 and record.numerics["device"] == "cpu":
        device += ", BatchNorm statistics are per process"
    leakage = (
        f"LEAKAGE: {seen:.1%} of the validation rows show training images"
        if seen
        else "no validation image is a training image"
    )
    count = sum(rows for _, rows in record.split.get("draws", []))
    drawn = f"; each epoch draws {count} rows" if count else ""
    lines = [
        f"{record.experiment}: {record.config['data']['root']} at {record.image_size} px, "
        f"{record.precision} on {device}, seed {record.config['seed']}",
        initial_weights,
        f"split {record.split['protocol']}: {len(train)} training rows ({train.nunique()} images{drawn}), "
        f"{len(validation)} validation rows ({validation.nunique()} images)",
        leakage,
        f"constant predictor ({months:.1f} months): validation MAE {constant:.2f}",
    ]
    return "\n".join(filter(None, lines))


def format_summary(summary: Summary, run: Path, suggested_next: str | None, output_dir: str) -> str:
    """Format the results, their paths and the next command."""
    share = f"{summary.best_val_mae / summary.constant_mae:.2f} ×" if summary.constant_mae else "above"
    rows = [
        (
            f"{summary.experiment}, epoch {summary.best_epoch}",
            summary.best_val_mae,
            run / "checkpoints" / "best.ckpt",
        ),
        ("constant predictor", summary.constant_mae, f"{summary.constant_months:.1f} months for every image"),
        (
            "published v2",
            BEST_PUBLISHED,
            "at 500 px on its own validation rows, some of them training images",
        ),
        (
            "",
            PUBLISHED_ON_TEST[0],
            "on the challenge's 200 test images; not comparable with this run's validation",
        ),
    ]
    if summary.start is not None:
        rows.insert(0, (f"{summary.start.experiment}, its start", summary.start.val_mae, summary.start.ckpt))
    table = "\n".join(f"  {name:<20} {mae:8.3f}  {note}" for name, mae, note in rows)
    lines = [
        f"\nbest validation MAE (months), {summary.protocol} split",
        table,
        f"verdict: {summary.verdict} (best validation MAE is {share} the constant predictor's)",
    ]
    if suggested_next is not None:
        lines += ["\nnext", f"  {next_command(suggested_next, str(run))}"]
    else:
        lines += ["\ncurves"]
    page = shlex.quote(str(run / "report" / "report.html"))
    return "\n".join([*lines, f"  tensorboard --logdir {shlex.quote(output_dir)}", f"\nreport\n  {page}"])


def write_summary(
    run: Path, summary: Summary, figures: dict[str, bytes], record: CheckpointMetadata, tensorboard: Any
) -> None:
    """Log figures and hyperparameters to TensorBoard, if enabled, and write summary.json.

    This file is written last: it marks the run as finished.
    """
    if tensorboard is not None:
        for name, figure in figures.items():
            pixels = np.asarray(Image.open(BytesIO(figure)).convert("RGB"))
            tensorboard.experiment.add_image(f"images/{name}", pixels, summary.epochs, dataformats="HWC")
        # logged after the last epoch, so that a run resumed from here purges it
        tensorboard.log_hyperparams(
            _hyperparameters(record), {"result/best_val_mae": summary.best_val_mae}, step=summary.epochs
        )
        tensorboard.save()
    atomic_write(run / SUMMARY, json.dumps(_without_nan(asdict(summary)), indent=2) + "\n")


def _hyperparameters(record: CheckpointMetadata) -> dict[str, Any]:
    """Return the hyperparameters for TensorBoard's HPARAMS page."""
    config = record.config
    return {
        "batch_size": config["data"]["batch_size"],
        "image_size": record.image_size,
        "protocol": record.split["protocol"],
        "samples_per_group": record.split["samples_per_group"],
        "lr": config["optimizer"].get("lr"),
        "scheduler": config.get("scheduler") is not None,
        "max_epochs": config["trainer"]["max_epochs"],
        "precision": record.precision,
        "seed": config["seed"],
    }


def _without_nan(values: dict[str, Any]) -> dict[str, Any]:
    """Replace NaN and infinity by `None`, which JSON can represent."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return _without_nan(value)
        return None if isinstance(value, float) and not math.isfinite(value) else value

    return {key: plain(value) for key, value in values.items()}
