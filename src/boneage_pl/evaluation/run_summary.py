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
    """A finished run in numbers; every MAE is in months, on the run's validation rows."""

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
    def of(
        cls,
        record: CheckpointMetadata,
        split: pd.DataFrame,
        history: MetricsHistory,
    ) -> "Summary":
        """Sum up a run from its record, split and epochs, at least one of them validated."""
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
    """Return the training rows' median age and its mean absolute error on the validation rows, in months."""
    train = split["subset"] == "train"
    months = float(split.loc[train, "bone_age"].median())
    return months, float((split.loc[~train, "bone_age"] - months).abs().mean())


def verdict(best_val_mae: float, constant_mae: float, start_mae: float | None = None) -> str:
    """Judge a run: `learned`, `barely learned` or `did not learn` (also for NaN).

    For a warm start, whose MAE on the same rows is `start_mae`, add whether no epoch was better than that.
    """
    if best_val_mae < LEARNED * constant_mae:
        words = "learned"
    else:
        words = "barely learned" if best_val_mae <= NOT_LEARNED * constant_mae else "did not learn"
    beaten = start_mae is None or best_val_mae < start_mae
    return words if beaten else f"{words}, and never beat its start"


def format_setup(record: CheckpointMetadata, split: pd.DataFrame, initial_weights: str) -> str:
    """Describe a run before its first step: data, hardware, initial weights, split, constant predictor."""
    train = split.loc[split["subset"] == "train", "id"]
    validation = split.loc[split["subset"] == "validation", "id"]
    seen = validation.isin(training_rows(validation, record.split)).mean()
    months, constant = constant_predictor(split)
    device = "{processes} × {device}".format(**record.numerics).removeprefix("1 × ")
    if record.numerics["processes"] > 1 and record.numerics["device"] == "cpu":
        device += ", BatchNorm normalizes each process's share of a batch by itself"
    leakage = (
        f"this validation is NOT on new images: {seen:.1%} of its rows show images that were trained on"
        if seen
        else "no validation image was trained on"
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
    """Format the results, where they are, and the next command."""
    share = f"{summary.best_val_mae / summary.constant_mae:.2f} ×" if summary.constant_mae else "above"
    rows = [
        (
            f"{summary.experiment}, epoch {summary.best_epoch}",
            summary.best_val_mae,
            run / "checkpoints" / "best.ckpt",
        ),
        ("constant predictor", summary.constant_mae, f"{summary.constant_months:.1f} months for everyone"),
        (
            "published v2",
            BEST_PUBLISHED,
            "at 500 px on its own validation rows, which it was partly trained on",
        ),
        ("", PUBLISHED_ON_TEST[0], "on the challenge's 200 test images; neither is this run's validation"),
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
    """Show the report's figures and the hyper-parameters in TensorBoard, if it logs, and write summary.json.

    It is the last of a run's files: it says that the run is finished.
    """
    if tensorboard is not None:
        for name, figure in figures.items():
            pixels = np.asarray(Image.open(BytesIO(figure)).convert("RGB"))
            tensorboard.experiment.add_image(f"images/{name}", pixels, summary.epochs, dataformats="HWC")
        # a step after the last epoch: a run cut off here and resumed purges it from TensorBoard
        tensorboard.log_hyperparams(
            _hyperparameters(record), {"result/best_val_mae": summary.best_val_mae}, step=summary.epochs
        )
        tensorboard.save()
    atomic_write(run / SUMMARY, json.dumps(_without_nan(asdict(summary)), indent=2) + "\n")


def _hyperparameters(record: CheckpointMetadata) -> dict[str, Any]:
    """Return the choices that TensorBoard's HPARAMS page compares runs by."""
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
    """JSON has no NaN or infinity: write null."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return _without_nan(value)
        return None if isinstance(value, float) and not math.isfinite(value) else value

    return {key: plain(value) for key, value in values.items()}
