"""Whether the intervals hold what they promise: the share of true ages inside, by sex and age."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from boneage_pl.reading.intervals import AGES, intervals_of
from boneage_pl.report.measures import DRAWS, age_band, plain
from boneage_pl.report.statistics import mean, with_intervals
from boneage_pl.run.record import Record

LEVEL = 0.9


def with_ends(answers: pd.DataFrame, records: Sequence[Record]) -> pd.DataFrame:
    """Return answers with the columns `low` and `high`, the ends of each interval as `predict` gives them.

    Args:
        answers: see `answers_table`.
        records: of the checkpoints that answered.
    """
    intervals = intervals_of(records, LEVEL)
    widths = [
        np.nan if not np.isfinite(months) else intervals.half_width(months, male=male)
        for months, male in zip(answers["predicted"].tolist(), answers["male"].tolist(), strict=True)
    ]
    half = np.array(widths, float)
    return answers.assign(low=(answers["predicted"] - half).clip(lower=0), high=answers["predicted"] + half)


def measure_coverage(answers: pd.DataFrame, *, own: bool) -> dict[str, Any] | None:
    """Return the share of ages inside their intervals, and how wide these are; `None` where there are none.

    Args:
        answers: see `with_ends`.
        own: whether these are the very images that set the intervals.
    """
    known = answers[answers["high"].notna()]
    if known.empty:
        return None
    parts = [("all", np.ones(len(known), dtype=bool))]
    parts += [(name, (known["male"] == male).to_numpy()) for name, male in (("girls", False), ("boys", True))]
    parts += [(name, age_band(known) == at) for at, (name, _) in enumerate(AGES)]
    rows = [_part(name, known[mask]) for name, mask in parts if mask.any()]
    return {"level": LEVEL, "own": own, "parts": rows}


def _part(name: str, rows: pd.DataFrame) -> dict[str, Any]:
    inside = rows["bone_age"].between(rows["low"], rows["high"]).to_numpy().astype(np.float64)
    images = pd.factorize(rows["image"])[0]
    found = with_intervals(lambda w: {"covered": mean(inside, w)}, images, count=DRAWS)
    return {
        "name": name,
        "images": int(rows["image"].nunique()),
        "covered": plain(*found["covered"]),
        "width": float((rows["high"] - rows["low"]).mean()),
    }
