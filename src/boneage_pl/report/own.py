"""The validation report that every training ends with."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from boneage_pl.data.datamodule import BoneAgeDataModule
from boneage_pl.data.split_record import training_rows
from boneage_pl.report.coverage import measure_std
from boneage_pl.report.measures import predictions_frame
from boneage_pl.report.writer import ReportContext, ReportSections, write_report
from boneage_pl.training.checkpoint import load_checkpoint
from boneage_pl.training.history import MetricsHistory
from boneage_pl.training.metadata import CheckpointMetadata
from boneage_pl.training.runs import BEST


def write_training_report(
    run: Path, data: BoneAgeDataModule, history: MetricsHistory, ran: dict[str, Any]
) -> dict[str, bytes]:
    """Write the report of a run's best checkpoint on its own validation images; return its PNG figures."""
    best = load_checkpoint(run / BEST)
    table = validation_predictions(best.metadata)
    about = ReportContext(
        title=f"Bone age: {best.metadata.experiment}, best of {len(history.rows)} epochs",
        subset="the validation images of its own run",
        data=str(data.root),
        checkpoints=[str(best.path)],
        record=replace(best.metadata, epochs=history.rows),
        synthetic=best.metadata.synthetic,
        num_selection_rows=len(table),
        balanced=best.metadata.balanced,
        run=ran,
    )
    return write_report(
        run / "report", about, table, data.read, ReportSections(predicted_std=measure_std(table))
    )[1]


def validation_predictions(record: CheckpointMetadata) -> pd.DataFrame:
    """Return a checkpoint's predictions of its own validation rows, see `predictions_frame`.

    With a column `spread`, months, if its loss predicts a standard deviation.
    """
    answers, split = record.validation, record.split
    contents = split.get("pixel_sha256", split["file_sha256"])
    seen = training_rows(answers["id"], split)
    rows = pd.DataFrame({name: answers[name] for name in ("id", "male", "bone_age")})
    table = predictions_frame(rows, answers["predicted"], split["edges"], contents, seen)
    return table.assign(spread=answers["spread"]) if "spread" in answers else table
