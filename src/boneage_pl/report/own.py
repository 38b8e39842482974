"""The validation report that every training ends with."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from boneage_pl.data.datamodule import BoneAgeData
from boneage_pl.data.split_source import trained_on
from boneage_pl.report.coverage import measure_spread
from boneage_pl.report.measures import answers_table
from boneage_pl.report.writer import About, Further, write_report
from boneage_pl.run.checkpoint import load_checkpoint
from boneage_pl.run.history import History
from boneage_pl.run.record import Record
from boneage_pl.run.runs import BEST


def report_best(run: Path, data: BoneAgeData, history: History, ran: dict[str, Any]) -> dict[str, bytes]:
    """Write the report of a run's best checkpoint on its own validation images; return its PNG figures."""
    best = load_checkpoint(run / BEST)
    table = own_answers(best.record)
    about = About(
        title=f"Bone age: {best.record.experiment}, best of {len(history.rows)} epochs",
        subset="the validation images of its own run",
        data=str(data.root),
        checkpoints=[str(best.path)],
        record=replace(best.record, epochs=history.rows),
        synthetic=best.record.synthetic,
        chose_epoch=len(table),
        balanced=best.record.balanced,
        run=ran,
    )
    return write_report(run / "report", about, table, data.read, Further(spread=measure_spread(table)))[1]


def own_answers(record: Record) -> pd.DataFrame:
    """Return a checkpoint's predictions of its own validation rows, see `answers_table`.

    With a column `spread`, months, if its loss predicts a standard deviation.
    """
    answers, split = record.validation, record.split
    contents = split.get("contents", split["hashes"])
    seen = trained_on(answers["id"], split)
    rows = pd.DataFrame({name: answers[name] for name in ("id", "male", "bone_age")})
    table = answers_table(rows, answers["predicted"], split["edges"], contents, seen)
    return table.assign(spread=answers["spread"]) if "spread" in answers else table
