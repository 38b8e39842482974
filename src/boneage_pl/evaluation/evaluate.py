"""The evaluate command."""

import json
import logging
import os
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd
from omegaconf import DictConfig, OmegaConf

from boneage_pl.cli.overrides import as_list
from boneage_pl.errors import BoneAgeError
from boneage_pl.evaluation.breakdown import metrics_of, predictions_frame
from boneage_pl.evaluation.calibration import LEVEL, add_intervals, measure_interval_coverage
from boneage_pl.evaluation.eval_data import EvaluationSet, select_evaluation_set
from boneage_pl.evaluation.paired_test import paired_comparison
from boneage_pl.evaluation.prediction_files import predictions_for, with_error
from boneage_pl.evaluation.predictions import (
    UNCHANGED,
    CheckpointPredictions,
    ensemble_mean,
    predict_checkpoint,
)
from boneage_pl.evaluation.report import ReportContext, write_report
from boneage_pl.evaluation.robustness import measure_robustness, representative_image, robustness_figure
from boneage_pl.evaluation.templating import environment
from boneage_pl.prediction.conformal import calibrate
from boneage_pl.prediction.ensemble import TTATransform, parse_tta
from boneage_pl.training.checkpoint import Checkpoint, load_checkpoint
from boneage_pl.training.provenance import (
    SCHEMA,
    data_fingerprint,
    describe_environment,
    format_time,
    load_run_json,
)
from boneage_pl.training.runs import find_checkpoint, find_checkpoints, run_of, shortest_path
from boneage_pl.utils.files import expand_path
from boneage_pl.utils.hardware import keep_freed_memory, on_gpu

log = logging.getLogger(__name__)


def evaluate_checkpoints(config: DictConfig) -> Path:
    """Evaluate the checkpoints that `ckpt` names, write the report and return its folder.

    Raises:
        BoneAgeError: see `load_checkpoint`, `select_evaluation_set` and `predictions_for`; the folder is not
            empty.
    """
    started = datetime.now()
    if not on_gpu("auto"):
        keep_freed_memory()
    outputs = Path(config.output_dir)
    parse_tta(config.tta)  # rejected before anything is loaded
    checkpoints = [load_checkpoint(path) for path in find_checkpoints(as_list(config.ckpt), outputs)]
    file, other = _load_other_model(config, outputs)
    dataset = select_evaluation_set(config, checkpoints, [other] if other else [])
    # rejected before anything is predicted
    other_months = predictions_for(file, dataset.rows, "compare_with") if file else None
    folder = _folder(config, checkpoints[0].path, "validation" if dataset.own else "all", started)

    tta = [parse_tta(config.tta, c.metadata) for c in checkpoints]
    members = [
        _predict(checkpoint, dataset, config, transforms, robustness=config.robustness)
        for checkpoint, transforms in zip(checkpoints, tta, strict=True)
    ]
    intervals = calibrate([c.metadata for c in checkpoints], LEVEL)
    predictions = add_intervals(
        _predictions_table(dataset, ensemble_mean(members), checkpoints[0]), intervals
    )
    measured: dict[str, Any] = {"coverage": measure_interval_coverage(predictions, intervals)}
    if len(members) > 1:
        measured["members"] = _add_members(predictions, members)
    timings = [member.timing for member in members]
    if other:
        other_predictions = _predict(
            other, dataset, config, parse_tta(None, other.metadata), robustness=False
        )
        other_months, timings = other_predictions.months(), [*timings, other_predictions.timing]
    if other_months is not None:
        name = str(file or _checkpoint_name(other))
        measured["paired_comparison"] = {"name": name, **_compare(predictions, other_months)}
    largest = max(dataset.stores, key=lambda spec: spec.size)
    figures, months = {}, {}
    if config.robustness:
        conditions = dataset.conditions(largest)
        months = {condition: ensemble_mean(members, condition)["months"] for condition in conditions}
        measured["robustness"] = measure_robustness(predictions, months)
        image = representative_image(predictions, conditions[UNCHANGED])
        figures["robustness"] = robustness_figure(image, conditions, months)

    context = ReportContext(
        title=_title(checkpoints, dataset, max(map(len, tta))),
        subset=dataset.describe,
        data=str(dataset.spec.root),
        checkpoints=[_checkpoint_name(c) for c in checkpoints],
        record=checkpoints[0].metadata,
        synthetic=dataset.synthetic,
        rows_seen_in_validation=dataset.rows_seen_in_validation,
        views=1 + max(map(len, tta)),
        run=load_run_json(checkpoints[0].path),
        evaluation=_describe(started, config, dataset, timings),
    )
    numbers, _ = write_report(folder, context, predictions, dataset.stores[largest].read, measured, figures)
    if months:
        pd.DataFrame(months).rename_axis("id").to_csv(folder / "robustness.csv")
    (folder / "run.json").write_text(json.dumps(context.evaluation, indent=1) + "\n", encoding="utf-8")
    console = environment("boneage_pl.evaluation", escaped=False).get_template("console.txt")
    log.info("%s", console.render(title=context.title, report=folder / "report.html", **numbers).rstrip())
    return folder


def _load_other_model(config: DictConfig, outputs: Path) -> tuple[Path | None, Checkpoint | None]:
    """Return the file of predictions or the checkpoint that `compare_with` names."""
    if config.compare_with is None:
        return None, None
    path = expand_path(str(config.compare_with))
    if path.suffix.lower() == ".csv":
        return path, None
    return None, load_checkpoint(find_checkpoint(str(config.compare_with), outputs, option="compare_with"))


def _compare(predictions: pd.DataFrame, months: pd.Series) -> dict[str, Any]:
    """Return the `paired_comparison` with another model and the metrics of both on shared images.

    Args:
        predictions: see `predictions_frame`.
        months: predictions of the other model by id, possibly incomplete.
    """
    this = predictions[predictions["id"].isin(months.index)]
    other = with_error(this.assign(predicted=this["id"].map(months)))
    paired = paired_comparison(this, other)
    is_all = len(this) == len(predictions)
    return {**paired, "all": is_all, "this": metrics_of(this), "other": metrics_of(other)}


def _predict(
    checkpoint: Checkpoint,
    dataset: EvaluationSet,
    config: DictConfig,
    tta: Sequence[TTATransform],
    *,
    robustness: bool,
) -> CheckpointPredictions:
    checkpoint.release()  # `load_for_inference` reads it again
    trusted = OmegaConf.to_container(config, resolve=False)
    spec = checkpoint.metadata.resize_spec
    conditions = dataset.conditions(spec) if robustness else {UNCHANGED: dataset.stores[spec].read}
    return predict_checkpoint(checkpoint.path, dataset.rows, conditions, config.data.batch_size, trusted, tta)


def _add_members(predictions: pd.DataFrame, members: list[CheckpointPredictions]) -> list[dict[str, Any]]:
    """Add the members' predictions as columns `predicted_1` … and return their names and metrics."""
    metrics = []
    for number, member in enumerate(members, 1):
        months = predictions["id"].map(member.months())
        predictions[f"predicted_{number}"] = months
        alone = with_error(predictions.assign(predicted=months))
        metrics.append({"name": member.timing["checkpoint"], **metrics_of(alone)})
    return metrics


def _predictions_table(dataset: EvaluationSet, batch: pd.DataFrame, checkpoint: Checkpoint) -> pd.DataFrame:
    """Return the predictions, see `predictions_frame`, with `predicted_std` in months if all have one."""
    by_row = batch.loc[dataset.rows["id"]].reset_index(drop=True)
    split = checkpoint.metadata.split
    table = predictions_frame(
        dataset.rows,
        by_row.pop("months").to_numpy(float),
        split["edges"],
        dataset.images.pixel_sha256,
        dataset.seen,
        protocol=split["protocol"] if dataset.own else "",
    )
    if "chronological_age" in dataset.table:
        ages = dataset.table.set_index("id")["chronological_age"]
        table = table.assign(chronological_age=table["id"].map(ages))
    return table.join(by_row)


def _describe(
    started: datetime, config: DictConfig, dataset: EvaluationSet, timings: list[dict[str, Any]]
) -> dict[str, Any]:
    """Return the run.json of an evaluation."""
    once = dataset.rows.drop_duplicates("id")
    hashes = {i: dataset.images.file_sha256[i] for i in once["id"]}
    times = {"started": format_time(started), "last_written": format_time(datetime.now())}
    return {
        "schema": SCHEMA,
        "seed": config.seed,
        "data": data_fingerprint(once, hashes),
        "config": OmegaConf.to_container(config, resolve=True),
        "sessions": [{**times, **describe_environment()}],
        "predictions": timings,
    }


def _checkpoint_name(checkpoint: Checkpoint | None) -> str:
    assert checkpoint is not None
    return str(shortest_path(checkpoint.path.resolve()))


def _title(checkpoints: Sequence[Checkpoint], dataset: EvaluationSet, augmentations: int) -> str:
    experiments = ", ".join(dict.fromkeys(c.metadata.experiment for c in checkpoints))
    ensemble = f"ensemble of {len(checkpoints)} checkpoints of " if len(checkpoints) > 1 else ""
    on = "its own validation images" if dataset.own else f"all of {dataset.spec.root.name}"
    views = f", mean over {1 + augmentations} views of each image" if augmentations else ""
    return f"Bone age: {ensemble}{experiments}, {on}{views}"


def _folder(config: DictConfig, path: Path, subset: str, started: datetime) -> Path:
    """Return the report's folder, empty or new: `out`, or one in the run's folder."""
    if config.out is not None:
        folder = expand_path(str(config.out))
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise BoneAgeError(
                f"out={folder} is not an empty folder. Nothing is overwritten: choose another."
            )
        return folder
    stamp = f"{subset}_{started:%Y-%m-%d_%H-%M-%S}"
    run = run_of(path)
    folder = Path(config.output_dir) / "evaluations" / stamp
    if (run / ".hydra").is_dir() and os.access(run, os.W_OK):
        folder = shortest_path(run / f"report_{stamp}")
    while folder.exists():  # another evaluation in the same second
        folder = folder.with_name(f"{folder.name}_")
    return folder
