"""Write a model card from a run's own files."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from boneage_pl import __version__
from boneage_pl.deploy.export_module import FORWARD_RULES
from boneage_pl.evaluation.breakdown import Population, compute_metrics
from boneage_pl.evaluation.calibration import LEVEL, add_intervals, measure_interval_coverage
from boneage_pl.evaluation.report import validation_predictions
from boneage_pl.evaluation.templating import environment
from boneage_pl.prediction.predictor import BoneAgePredictor
from boneage_pl.training.metadata import CheckpointMetadata
from boneage_pl.training.provenance import load_run_json
from boneage_pl.training.runs import run_of

# Keys that metrics.json of an evaluation must have.
_REPORTED = {"data", "overall", "robustness", "rows", "images", "views"}
_REPORTED |= {"rows_seen_in_training", "rows_seen_in_validation"}
# Groups of the configuration that the card shows.
_TRAINING = ("model", "loss", "transforms", "sampler", "optimizer", "scheduler")


def write_model_card(
    checkpoint: Path, model: BoneAgePredictor, level: float, precision: str = "float32"
) -> str:
    """Return the model card of a checkpoint, as Markdown with Hugging Face's front matter.

    Sections are those of Mitchell et al. (Model Cards, FAT* 2019), with what CLAIM 2024 (Tejani et al.,
    Radiology: Artificial Intelligence) requires of a report on imaging. Missing facts are marked
    as not recorded.

    Args:
        checkpoint: path of the file; run.json and reports are read from its run folder.
        model: the loaded checkpoint.
        level: coverage of the prediction intervals.
        precision: dtype of the exported weights.
    """
    (member,) = model.members
    record = member.metadata
    predictions = add_intervals(validation_predictions(record), model.intervals.at_level(LEVEL))
    numbers = compute_metrics(predictions, Population.from_split(record.split))
    reports = list(_reported_metrics(checkpoint))
    network = member.predictor.module.network
    return (
        environment("boneage_pl.deploy", escaped=False)
        .get_template("model_card.md")
        .render(
            record=record,
            front=_front_matter(record, numbers),
            numbers=numbers,
            coverage=measure_interval_coverage(predictions, model.intervals),
            run=load_run_json(checkpoint),
            robustness=next(
                (report["robustness"] for report in reports if _is_own(report) and report["robustness"]), []
            ),
            others=[report for report in reports if _is_unseen(report)],
            parameters=sum(value.numel() for value in network.parameters()),
            training=yaml.safe_dump({group: record.config[group] for group in _TRAINING}, sort_keys=False),
            resize=FORWARD_RULES[record.resize_spec.mode].format(side=record.resize_spec.size),
            data=Path(record.config["data"]["root"]).name,
            ood_detection=member.ood_detector is not None,
            intervals=model.intervals.table(),
            level=level,
            precision=precision,
            version=__version__,
        )
    )


def _front_matter(record: CheckpointMetadata, numbers: dict[str, Any]) -> str:
    """Return the front matter that Hugging Face's hub reads."""
    mae = numbers["overall"]["mae"]["value"]
    data = Path(record.config["data"]["root"]).name
    front: dict[str, Any] = {
        "library_name": "boneage_pl",
        "tags": ["bone-age", "radiology", "regression", "pytorch"],
        "model-index": [
            {
                "name": record.experiment,
                "results": [
                    {
                        "task": {"type": "image-regression", "name": "Skeletal age from a hand radiograph"},
                        "dataset": {"name": f"{data}, validation part", "type": data},
                        "metrics": [{"type": "mae", "name": "MAE in months", "value": mae}],
                    }
                ],
            }
        ],
    }
    if mae is None:  # the predictions are not finite
        del front["model-index"]
    return yaml.safe_dump(front, sort_keys=False).rstrip()


def _is_own(report: dict[str, Any]) -> bool:
    """Whether a report is of the validation images in one view, like the card's other numbers."""
    return bool(report["rows_seen_in_validation"] == report["rows"] and report["views"] == 1)


def _is_unseen(report: dict[str, Any]) -> bool:
    return not report["rows_seen_in_training"] and not report["rows_seen_in_validation"]


def _reported_metrics(checkpoint: Path) -> Iterator[dict[str, Any]]:
    """Yield the metrics.json of evaluations of this single checkpoint in its run folder, newest first."""
    files = run_of(checkpoint).glob("report_*/metrics.json")
    for file in sorted(files, key=lambda file: file.stat().st_mtime, reverse=True):
        try:
            metrics = json.loads(file.read_text(encoding="utf-8"))
            alone = (
                len(metrics["checkpoints"]) == 1 and Path(metrics["checkpoints"][0]).name == checkpoint.name
            )
            if alone and set(metrics) >= _REPORTED:
                yield {**metrics, "data": Path(metrics["data"]).name}
        except (OSError, ValueError, KeyError, TypeError):
            continue  # of another version or program
