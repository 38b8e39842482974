"""Write report.html, metrics.json and predictions.csv."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from matplotlib.figure import Figure

from boneage_pl.data.datamodule import BoneAgeDataModule
from boneage_pl.data.images.resize import Pixels
from boneage_pl.data.split_record import training_rows
from boneage_pl.evaluation.breakdown import Population, compute_metrics, predictions_frame
from boneage_pl.evaluation.calibration import measure_std
from boneage_pl.evaluation.figures import (
    bland_altman,
    error_by_age,
    error_by_chronological_age,
    groups_heat_map,
    interval_coverage,
    learning_curves,
    predicted_against_true,
    worst_cases,
)
from boneage_pl.evaluation.reference_results import (
    REPRODUCED,
    TEST,
    VALIDATION,
    curves_caption,
    published_stages,
)
from boneage_pl.evaluation.templating import figure_to_png, render
from boneage_pl.training.checkpoint import load_checkpoint
from boneage_pl.training.history import MetricsHistory
from boneage_pl.training.metadata import CheckpointMetadata
from boneage_pl.training.runs import BEST

WORST = 12
PUBLISHED_SIZE = 500  # pixels


@dataclass
class ReportContext:
    """Context of a report.

    Args:
        title: of the page.
        subset: description of the evaluated rows.
        data: folder of the images.
        checkpoints: paths; several are averaged.
        record: metadata of the first checkpoint.
        synthetic: whether the radiographs are synthetic.
        rows_seen_in_validation: number of rows that show validation images of a checkpoint, which selected
            its epoch and calibrated its intervals.
        views: number of averaged views per image.
        run: content of the training's run.json, if any.
        evaluation: content of the evaluation's run.json; empty for a training's own report.
    """

    title: str
    subset: str
    data: str
    checkpoints: list[str]
    record: CheckpointMetadata
    synthetic: bool
    rows_seen_in_validation: int
    views: int = 1
    run: dict[str, Any] = field(default_factory=dict)
    evaluation: dict[str, Any] = field(default_factory=dict)


def write_report(
    folder: Path,
    about: ReportContext,
    predictions: pd.DataFrame,
    read: Callable[[Sequence[str]], Pixels],
    measured: dict[str, Any] | None = None,
    figures: dict[str, Figure] | None = None,
) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Write a report into `folder` and return its numbers, and its figures as PNG bytes by name.

    Args:
        folder: of the report.
        about: context.
        predictions: see `predictions_frame`; further columns are written to predictions.csv too.
        read: ids → uint8 [B, H, W], for the worst cases.
        measured: further content of metrics.json: `members` of an ensemble with `name` and metrics;
            `paired_comparison` with another model; `robustness`; `coverage`.
        figures: further figures by name.
    """
    split = about.record.split
    numbers = {
        "subset": about.subset,
        "data": about.data,
        "checkpoints": about.checkpoints,
        **compute_metrics(predictions, Population.from_split(split)),
        "rows_seen_in_validation": about.rows_seen_in_validation,
        "views": about.views,
        "predicted_std": measure_std(predictions),
        **{"members": [], "paired_comparison": None, "robustness": [], "coverage": None},
        **(measured or {}),
    }
    all_figures = {**_figures(about, predictions, numbers, read), **(figures or {})}
    images = {name: figure_to_png(figure) for name, figure in all_figures.items()}
    page = render(
        "report.html",
        title=about.title,
        about=about,
        numbers=numbers,
        images=images,
        test_sets=(TEST, VALIDATION),
        reproduced=REPRODUCED,
        curves_caption=curves_caption([about.record.experiment]),
        published_size=PUBLISHED_SIZE,
        configuration=yaml.safe_dump(about.record.config, sort_keys=False),
    )
    folder.mkdir(parents=True, exist_ok=True)
    predictions.to_csv(folder / "predictions.csv", index=False)
    (folder / "metrics.json").write_text(json.dumps(numbers, indent=1) + "\n", encoding="utf-8")
    for name, image in images.items():
        (folder / f"{name}.png").write_bytes(image)
    (folder / "report.html").write_text(page, encoding="utf-8")
    return numbers, images


def _figures(
    about: ReportContext,
    predictions: pd.DataFrame,
    numbers: dict[str, Any],
    read: Callable[[Sequence[str]], Pixels],
) -> dict[str, Figure]:
    worst = predictions.assign(size=predictions["error"].abs()).sort_values(
        "size", ascending=False, na_position="first"
    )
    worst = worst.drop_duplicates("image").head(WORST)
    figures = {
        "predicted_against_true": predicted_against_true(predictions),
        "bland_altman": bland_altman(predictions),
        "error_by_age": error_by_age(predictions),
        "groups": groups_heat_map(numbers["by_group"], about.record.split["edges"]),
        "worst_cases": worst_cases(worst, read(worst["id"].tolist())),
    }
    if epochs := about.record.epochs:
        name = about.record.experiment
        figures["learning_curves"] = learning_curves({name: epochs}, published_stages([name]))
    if "chronological_age" in predictions and predictions["chronological_age"].notna().any():
        figures["error_by_chronological_age"] = error_by_chronological_age(predictions)
    if coverage := numbers["coverage"]:
        figures["interval_coverage"] = interval_coverage(coverage["by_level"])
    return figures


def write_training_report(
    run: Path, data: BoneAgeDataModule, history: MetricsHistory, run_json: dict[str, Any]
) -> dict[str, bytes]:
    """Write the report of a run's best checkpoint on its validation images and return its PNG figures."""
    best = load_checkpoint(run / BEST)
    table = validation_predictions(best.metadata)
    about = ReportContext(
        title=f"Bone age: {best.metadata.experiment}, best of {len(history.rows)} epochs",
        subset="the validation images of its own run",
        data=str(data.root),
        checkpoints=[str(best.path)],
        record=replace(best.metadata, epochs=history.rows),
        synthetic=best.metadata.synthetic,
        rows_seen_in_validation=len(table),
        run=run_json,
    )
    return write_report(run / "report", about, table, data.read)[1]


def validation_predictions(record: CheckpointMetadata) -> pd.DataFrame:
    """Return a checkpoint's predictions for its validation rows, see `predictions_frame`.

    With `predicted_std` in months if the loss predicts a standard deviation.
    """
    predictions, split = record.validation, record.split
    contents = split["pixel_sha256"]
    seen = training_rows(predictions["id"], split)
    rows = pd.DataFrame({name: predictions[name] for name in ("id", "male", "bone_age")})
    table = predictions_frame(
        rows, predictions["predicted"], split["edges"], contents, seen, protocol=split["protocol"]
    )
    return (
        table.assign(predicted_std=predictions["predicted_std"]) if "predicted_std" in predictions else table
    )
