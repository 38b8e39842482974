"""The evaluate command."""

import json
import logging
import os
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd
from omegaconf import DictConfig, ListConfig, OmegaConf

from boneage_pl.data.images.resize import ReadPixels
from boneage_pl.errors import BoneAgeError
from boneage_pl.evaluation.breakdown import metrics_of, predictions_frame
from boneage_pl.evaluation.calibration import (
    LEVEL,
    add_intervals,
    coverage_by_level,
    measure_interval_coverage,
    measure_std,
)
from boneage_pl.evaluation.eval_data import EvaluationSet, select_evaluation_set
from boneage_pl.evaluation.figures import interval_coverage
from boneage_pl.evaluation.paired_test import compare_predictions, read_predictions_csv
from boneage_pl.evaluation.predictions import (
    UNCHANGED,
    CheckpointPredictions,
    ensemble_mean,
    predict_checkpoint,
)
from boneage_pl.evaluation.report import ReportContext, ReportSections, write_report
from boneage_pl.evaluation.robustness import measure_robustness, representative_image, robustness_figure
from boneage_pl.evaluation.templating import with_interval
from boneage_pl.prediction.conformal import calibrate
from boneage_pl.prediction.ensemble import TTATransform, parse_tta
from boneage_pl.training.checkpoint import Checkpoint, load_checkpoint
from boneage_pl.training.provenance import describe_evaluation, load_run_json
from boneage_pl.training.runs import find_checkpoint, find_checkpoints, run_of, shortest_path
from boneage_pl.utils.files import expand_path
from boneage_pl.utils.hardware import keep_freed_memory, on_gpu

log = logging.getLogger(__name__)

STD_QUARTERS = {"surest": "surest", "least_sure": "least sure"}


def evaluate_checkpoints(config: DictConfig) -> Path:
    """Ask the checkpoints that `ckpt` names, write the report, and return its folder.

    Raises:
        BoneAgeError: see `load_checkpoint`, `select_evaluation_set` and `read_predictions_csv`; a folder that
            is not empty.
    """
    started = datetime.now()
    if not on_gpu("auto"):
        keep_freed_memory()
    outputs = Path(config.output_dir)
    parse_tta(config.tta)  # refused before anything is loaded
    names = list(config.ckpt) if isinstance(config.ckpt, ListConfig) else [config.ckpt]
    if not names:
        raise BoneAgeError("ckpt=[]: name at least one checkpoint.")
    checkpoints = [load_checkpoint(path) for path in find_checkpoints(names, outputs)]
    file, rival = _load_rival(config, outputs)
    dataset = select_evaluation_set(config, checkpoints, [rival] if rival else [])
    theirs = (
        read_predictions_csv(file, dataset.rows) if file else None
    )  # what cannot be read is refused before asking
    folder = _folder(config, checkpoints[0].path, "validation" if dataset.own else "all", started)

    views = [parse_tta(config.tta, c.metadata) for c in checkpoints]
    every = [
        _predict(c, dataset, config, tta, stress=config.robustness)
        for c, tta in zip(checkpoints, views, strict=True)
    ]
    answers = _predictions_table(dataset, ensemble_mean(every), checkpoints[0])
    intervals = calibrate([c.metadata for c in checkpoints], LEVEL)
    answers = add_intervals(answers, intervals)
    further = ReportSections(coverage=measure_interval_coverage(answers), columns=["lower", "upper"])
    further.predicted_std = measure_std(answers)
    if further.coverage:
        by_level = coverage_by_level(answers, intervals)
        further.coverage["by_level"] = by_level
        further.figures["interval_coverage"] = interval_coverage(by_level)
    if len(every) > 1:
        _add_member_metrics(further, answers, [_checkpoint_name(c) for c in checkpoints], every)
    timings = [one.timing for one in every]
    if rival:
        other = _predict(rival, dataset, config, parse_tta(None, rival.metadata), stress=False)
        theirs, timings = other.months(), [*timings, other.timing]
    if theirs is not None:
        further.paired_comparison = compare_predictions(answers, str(file or _checkpoint_name(rival)), theirs)
    largest = max(dataset.stores, key=lambda frame: frame.size)
    if config.robustness:
        _add_robustness(further, answers, dataset.conditions(largest), every)

    first = checkpoints[0].metadata
    about = ReportContext(
        title=_title(checkpoints, dataset, max(map(len, views))),
        subset=dataset.describe,
        data=str(dataset.spec.root),
        checkpoints=[_checkpoint_name(c) for c in checkpoints],
        record=first,
        synthetic=dataset.synthetic,
        rows_seen_in_validation=dataset.rows_seen_in_validation,
        views=1 + max(map(len, views)),
        run=load_run_json(checkpoints[0].path),
        evaluation=describe_evaluation(started, config, dataset.rows, dataset.images.file_sha256, timings),
    )
    numbers, _ = write_report(folder, about, answers, dataset.stores[largest].read, further)
    (folder / "run.json").write_text(json.dumps(about.evaluation, indent=1) + "\n", encoding="utf-8")
    _log_metrics(about.title, numbers)
    log.info("report\n  %s", folder / "report.html")
    return folder


def _load_rival(config: DictConfig, outputs: Path) -> tuple[Path | None, Checkpoint | None]:
    """Return what `against` names: a file of answers, a checkpoint, or neither."""
    if config.compare_with is None:
        return None, None
    path = expand_path(str(config.compare_with))
    if path.suffix.lower() == ".csv":
        return path, None
    return None, load_checkpoint(find_checkpoint(str(config.compare_with), outputs, option="compare_with"))


def _predict(
    checkpoint: Checkpoint,
    dataset: EvaluationSet,
    config: DictConfig,
    views: Sequence[TTATransform],
    *,
    stress: bool,
) -> CheckpointPredictions:
    checkpoint.release()  # `load` reads it again, and two copies need not be held
    typed = OmegaConf.to_container(config, resolve=False)
    frame = checkpoint.metadata.resize_spec
    ways = dataset.conditions(frame) if stress else {UNCHANGED: dataset.stores[frame].read}
    return predict_checkpoint(checkpoint.path, dataset.rows, ways, config.data.batch_size, typed, views)


def _add_member_metrics(
    further: ReportSections, answers: pd.DataFrame, names: list[str], every: list[CheckpointPredictions]
) -> None:
    """Add each member's statistics, and its answers as a column."""
    for number, (name, one) in enumerate(zip(names, every, strict=True), 1):
        column = f"predicted_{number}"
        answers[column] = answers["id"].map(one.months())
        alone = answers.assign(predicted=answers[column], error=answers[column] - answers["bone_age"])
        further.members.append({"name": name, **metrics_of(alone)})
        further.columns.append(column)


def _add_robustness(
    further: ReportSections,
    answers: pd.DataFrame,
    ways: dict[str, ReadPixels],
    every: list[CheckpointPredictions],
) -> None:
    """Add the table of the stress test, all its answers, and a sheet of one hand."""
    months = {way: ensemble_mean(every, way)["months"] for way in ways}
    further.robustness = measure_robustness(answers, months)
    further.figures["robustness"] = robustness_figure(
        representative_image(answers, ways[UNCHANGED]), ways, months
    )
    further.tables["robustness.csv"] = pd.DataFrame(months).rename_axis("id").reset_index()


def _predictions_table(dataset: EvaluationSet, batch: pd.DataFrame, checkpoint: Checkpoint) -> pd.DataFrame:
    """Return the answers, see `predictions_frame`; with a column `spread`, months, where all have one."""
    by_row = batch.loc[dataset.rows["id"]].reset_index(drop=True)
    edges = checkpoint.metadata.split["edges"]
    predicted = by_row.pop("months").to_numpy(float)
    table = predictions_frame(
        dataset.rows,
        predicted,
        edges,
        dataset.images.pixel_sha256,
        dataset.seen,
        protocol=checkpoint.metadata.split["protocol"] if dataset.own else "",
    )
    return table.join(by_row)


def _checkpoint_name(checkpoint: Checkpoint | None) -> str:
    assert checkpoint is not None
    return str(shortest_path(checkpoint.path.resolve()))


def _log_metrics(title: str, numbers: dict[str, Any]) -> None:
    mae, rows, images = with_interval(numbers["overall"]["mae"]), numbers["rows"], numbers["images"]
    log.info("%s\n  MAE %s months, 95 %% interval over images; %d rows, %d images", title, mae, rows, images)
    if numbers["population_weighted"]:
        log.info(
            "  %s at the source table's ages and sexes", with_interval(numbers["population_weighted"]["mae"])
        )
    for beside in (*numbers["members"], *numbers["baselines"]):
        log.info("  %s %s", with_interval(beside["mae"]), beside["name"])
    if coverage := numbers["coverage"]:
        whole = coverage["parts"][0]
        named = f"{coverage['level']:.0%} intervals, {whole['width']:.1f} months wide"
        log.info("  %.1f %% of the ages are inside their %s", 100 * whole["covered"]["value"], named)
    if spread := numbers["predicted_std"]:
        maes = [f"{with_interval(spread[part])} in its {name} quarter" for part, name in STD_QUARTERS.items()]
        log.info("  its own spread is %.1f months on average; MAE %s", spread["mean"], ", ".join(maes))
    if against := numbers["paired_comparison"]:
        difference = with_interval(against["difference"], sign="+")
        tested = "" if against["p"] is None else f", p = {against['p']:.4f}"
        log.info("  %s from that of %s, %d images%s", difference, against["name"], against["images"], tested)
    width = max((len(row["name"]) for row in numbers["robustness"]), default=0)
    for row in numbers["robustness"]:
        words = [with_interval(row[key]) for key in ("mae", "absolute_change")]
        log.info("  %-*s  MAE %s, the answer moves by %s", width, row["name"], *words)


def _title(checkpoints: Sequence[Checkpoint], dataset: EvaluationSet, views: int) -> str:
    experiments = ", ".join(dict.fromkeys(c.metadata.experiment for c in checkpoints))
    several = f"the mean of {len(checkpoints)} checkpoints of " if len(checkpoints) > 1 else ""
    on = "its own validation images" if dataset.own else f"all of {dataset.spec.root.name}"
    looked = f", mean over {1 + views} views of each image" if views else ""
    return f"Bone age: {several}{experiments}, {on}{looked}"


def _folder(config: DictConfig, path: Path, subset: str, started: datetime) -> Path:
    """Return the report's folder, in which nothing lies: `out`, or a new one beside the run's own report."""
    if config.out is not None:
        folder = expand_path(str(config.out))
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise BoneAgeError(f"out={folder} holds something already, and nothing is written over.")
        return folder
    stamp = f"{subset}_{started:%Y-%m-%d_%H-%M-%S}"
    run = run_of(path)
    beside = (run / ".hydra").is_dir() and os.access(run, os.W_OK)
    folder = (
        shortest_path(run / f"report_{stamp}") if beside else Path(config.output_dir) / "evaluations" / stamp
    )
    while folder.exists():  # another evaluation of this second
        folder = folder.with_name(f"{folder.name}_")
    return folder
