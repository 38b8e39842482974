"""What a report says in numbers: the content of metrics.json, from a table of answers."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from boneage_pl.data.split import assign_groups, group_name
from boneage_pl.report.literature import REFERENCES
from boneage_pl.report.statistics import Values, agreement, mean, with_intervals

SCHEMA = 1  # of metrics.json: raise it when a key changes its meaning
DRAWS = 2000
COLUMNS = ["id", "male", "bone_age", "predicted", "error", "group", "seen_in_training"]


@dataclass
class Population:
    """The data that a checkpoint was trained on, as far as a report needs it.

    Args:
        edges: of the age groups, months.
        counts: images of the whole source table in each of the groups by sex and age.
        medians: median age in months of the training rows: `all`, `girls`, `boys`.
    """

    edges: list[float]
    counts: list[int]
    medians: dict[str, float]

    @classmethod
    def of(cls, record: dict[str, Any]) -> "Population | None":
        """Read it from a checkpoint's split record; `None` in those of before there was one."""
        if "population" not in record:
            return None
        return cls(record["edges"], record["population"]["counts"], record["population"]["medians"])


def answers_table(
    rows: pd.DataFrame,
    predicted: list[float] | NDArray[np.float64],
    edges: list[float],
    hashes: dict[str, str],
    seen: set[str],
) -> pd.DataFrame:
    """Return the rows of predictions.csv, and which image each shows.

    Args:
        rows: `id, male, bone_age` of what was asked.
        predicted: months.
        edges: of the age groups.
        hashes: SHA-256 of each image by id: two ids with one content are one image.
        seen: ids that the checkpoint was trained on.

    Returns:
        `COLUMNS`, and `image`: a number for each different image.
    """
    table = rows[["id", "male", "bone_age"]].reset_index(drop=True).copy()
    table["male"] = table["male"].astype(bool)
    table["predicted"] = np.asarray(predicted, dtype=float)
    table["error"] = table["predicted"] - table["bone_age"]
    table["group"] = assign_groups(table, edges)
    table["seen_in_training"] = table["id"].isin(seen)
    table["image"] = pd.factorize(table["id"].map(lambda i: hashes.get(i, i)))[0]
    return table


def measure(answers: pd.DataFrame, edges: list[float], population: Population | None) -> dict[str, Any]:
    """Return every number of the report as plain values; an interval is 95 %, over images."""
    true, predicted = (answers[name].to_numpy(float) for name in ("bone_age", "predicted"))
    images = answers["image"].to_numpy()
    finite = bool(np.isfinite(predicted).all())
    weights = natural_weights(answers, population) if population else None
    return {
        "schema": SCHEMA,
        "unit": "months",
        "rows": len(answers),
        "images": int(answers["image"].nunique()),
        "rows_seen_in_training": int(answers["seen_in_training"].sum()),
        "finite": finite,
        "bootstrap": {"draws": DRAWS, "of": "images", "interval": "95 %, percentile", "seed": 0},
        "overall": _agreement(true, predicted, images),
        "natural": _agreement(true, predicted, images, weights) if weights is not None else None,
        "by_sex": _by(answers, answers["male"].astype(int), ["girls", "boys"]),
        "by_age": _by(answers, answers["group"] % (len(edges) - 1), _age_names(edges)),
        "by_group": _by(answers, answers["group"], [group_name(g, edges) for g in range(2 * len(edges) - 2)]),
        "baselines": _baselines(answers, population) if population else [],
        "references": [dict(reference) for reference in REFERENCES],
    }


def natural_weights(answers: pd.DataFrame, population: Population) -> Values | None:
    """Return row weights that give each group by sex and age its share of the source table.

    Post-stratification (Holt and Smith, JRSS A 1979). `None` where a group of the table has no row here: the
    answer for its children is not known.
    """
    natural = np.array(population.counts, float)
    here = np.bincount(answers["group"], minlength=len(natural)).astype(float)
    if ((natural > 0) & (here == 0)).any():
        return None
    ratio = np.divide(natural / natural.sum(), here / here.sum(), out=np.zeros_like(natural), where=here > 0)
    return ratio[answers["group"].to_numpy()]


def _agreement(
    true: Values, predicted: Values, images: NDArray[np.int64], base: Values | None = None
) -> dict[str, dict[str, float | None]]:
    found = with_intervals(lambda w: agreement(true, predicted, w), images, base=base, count=DRAWS)
    return {name: _plain(*values) for name, values in found.items()}


def _plain(value: float, low: float, high: float) -> dict[str, float | None]:
    """JSON has no NaN or infinity: null."""
    return {
        key: float(number) if np.isfinite(number) else None
        for key, number in (("value", value), ("low", low), ("high", high))
    }


def _by(answers: pd.DataFrame, key: pd.Series, names: list[str]) -> list[dict[str, Any]]:
    """Return rows, images, MAE and bias of each part of the answers; `key` numbers the parts from 0."""
    part = key.to_numpy(int)
    error = answers["error"].to_numpy(float)

    def means(weights: Values) -> dict[str, Values]:
        found = {}
        with np.errstate(divide="ignore", invalid="ignore"):
            for n, rows in enumerate(there):
                some = weights[:, rows]
                found[f"mae {n}"] = some @ np.abs(error[rows]) / some.sum(1)
                found[f"bias {n}"] = some @ error[rows] / some.sum(1)
        return found

    there = [np.flatnonzero(part == n) for n in range(len(names))]

    found = with_intervals(means, answers["image"].to_numpy(), count=DRAWS)
    return [
        {
            "name": name,
            "rows": int((part == at).sum()),
            "images": int(answers.loc[part == at, "image"].nunique()),
            "mae": _plain(*found[f"mae {at}"]),
            "bias": _plain(*found[f"bias {at}"]),
        }
        for at, name in enumerate(names)
    ]


def _age_names(edges: list[float]) -> list[str]:
    return [f"{low:.1f} to {high:.1f} months" for low, high in pairwise(edges)]


def _baselines(answers: pd.DataFrame, population: Population) -> list[dict[str, Any]]:
    medians = population.medians
    of_sex = answers["male"].map({False: medians["girls"], True: medians["boys"]})
    predictors = {
        "constant predictor": (pd.Series(medians["all"], answers.index), f"{medians['all']:.1f} months"),
        "sex-median predictor": (
            of_sex,
            ", ".join(
                f"{medians[s]:.1f} months for {s}" for s in ("girls", "boys") if np.isfinite(medians[s])
            ),
        ),
    }
    images = answers["image"].to_numpy()
    baselines = []
    for name, (months, what) in predictors.items():
        error = (months - answers["bone_age"]).abs().to_numpy(float)
        found = with_intervals(lambda w, e=error: {"mae": mean(e, w)}, images, count=DRAWS)  # type: ignore[misc]
        baselines.append({"name": name, "what": what, "mae": _plain(*found["mae"])})
    return baselines
