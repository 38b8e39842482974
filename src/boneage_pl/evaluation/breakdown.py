"""Metrics overall, by sex, age and group; the numbers of metrics.json."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from boneage_pl.data.groups import assign_groups, group_name
from boneage_pl.evaluation.metrics import Values, agreement, mean, with_intervals
from boneage_pl.prediction.conformal import AGES, age_region

SCHEMA = 3  # of metrics.json; increment when a key changes its meaning
BOOTSTRAP_DRAWS = 2000


@dataclass
class Population:
    """Age and sex distribution of a checkpoint's training data.

    Args:
        edges: edges of the age groups, months.
        counts: number of images of the source table in each group by sex and age.
        medians: median age of the training rows in months: `all`, `girls`, `boys`.
    """

    edges: list[float]
    counts: list[int]
    medians: dict[str, float]

    @classmethod
    def from_split(cls, record: dict[str, Any]) -> "Population":
        """Read the population from a split record."""
        return cls(record["edges"], record["population"]["counts"], record["population"]["medians"])


def predictions_frame(
    rows: pd.DataFrame,
    predicted: list[float] | NDArray[np.float64],
    edges: list[float],
    contents: dict[str, str],
    seen: set[str],
    *,
    protocol: str = "",
) -> pd.DataFrame:
    """Return the rows of predictions.csv with the image and the stratum of each.

    Args:
        rows: `id, male, bone_age` of the evaluated images.
        predicted: months.
        edges: edges of the age groups, months.
        contents: content hash by id; ids with equal content are one image.
        seen: ids of training images.
        protocol: split protocol if the rows are its validation rows; else empty.

    Returns:
        `id, male, bone_age, predicted, error, group, seen_in_training`; `image`, the number of the distinct
        image; `stratum`, within which a fixed number of rows was drawn: the group by sex and age for a
        `disjoint` split, the age for a `published` one.
    """
    table = rows[["id", "male", "bone_age"]].reset_index(drop=True).copy()
    table["male"] = table["male"].astype(bool)
    table["predicted"] = np.asarray(predicted, dtype=float)
    table["error"] = table["predicted"] - table["bone_age"]
    table["group"] = assign_groups(table, edges)
    table["seen_in_training"] = table["id"].isin(seen)
    table["image"] = pd.factorize(table["id"].map(lambda i: contents.get(i, i)))[0]
    strata = {"disjoint": table["group"], "published": table["group"] % (len(edges) - 1)}
    table["stratum"] = strata.get(protocol, 0)
    return table


def compute_metrics(predictions: pd.DataFrame, population: Population) -> dict[str, Any]:
    """Return all numbers of the report as plain values, with 95 % intervals, see `bootstrap`.

    Args:
        predictions: see `predictions_frame`.
        population: of the training data. For balanced rows, statistics weighted to its ages and sexes are
            added.
    """
    weights = population_weights(predictions, population) if predictions["stratum"].any() else None
    groups = [group_name(g, population.edges) for g in range(len(population.counts))]
    return {
        "schema": SCHEMA,
        "unit": "months",
        "rows": len(predictions),
        "images": int(predictions["image"].nunique()),
        "rows_seen_in_training": int(predictions["seen_in_training"].sum()),
        "finite": bool(np.isfinite(predictions["predicted"]).all()),
        "bootstrap": {
            "draws": BOOTSTRAP_DRAWS,
            "of": "images within groups" if predictions["stratum"].any() else "images",
            "interval": "95 %, percentile",
            "seed": 0,
        },
        **metrics_by_part(predictions),
        "population_weighted": None if weights is None else metrics_of(predictions, weights),
        "by_group": _by(predictions, predictions["group"], groups),
        "baselines": _baselines(predictions, population),
    }


def metrics_by_part(predictions: pd.DataFrame) -> dict[str, Any]:
    """Return the metrics `overall`, `by_sex` if known, and `by_age`, see `metrics_of`.

    Args:
        predictions: `id, bone_age, predicted`, optionally `male, image, stratum`, see `predictions_frame`.
    """
    return {
        "overall": metrics_of(predictions),
        "by_sex": _by(predictions, predictions["male"], ["girls", "boys"]) if "male" in predictions else [],
        "by_age": _by(predictions, age_region(predictions["bone_age"]), [name for name, _ in AGES]),
    }


def image_numbers(predictions: pd.DataFrame) -> NDArray[np.int64]:
    """Return the image number of each row, from 0: by content if known, else by id."""
    return pd.factorize(predictions["image" if "image" in predictions else "id"])[0]


def bootstrap(
    predictions: pd.DataFrame,
    statistic: Callable[[Values], dict[str, Values]],
    base: Values | None = None,
    count: int = BOOTSTRAP_DRAWS,
) -> dict[str, dict[str, float | None]]:
    """Return statistics of a `predictions_frame` with 95 % intervals, as JSON values.

    Images are resampled, within strata if rows were drawn by stratum; see `with_intervals`.
    """
    images = image_numbers(predictions)
    stratum = predictions.get("stratum")
    strata = None if stratum is None or not stratum.any() else stratum.to_numpy()
    intervals = with_intervals(statistic, images, base=base, strata=strata, count=count)
    return {name: to_json_numbers(*values) for name, values in intervals.items()}


def metrics_of(predictions: pd.DataFrame, base: Values | None = None) -> dict[str, dict[str, float | None]]:
    """Return all statistics of `agreement` for a `predictions_frame`, see `bootstrap`."""
    true, predicted = (predictions[name].to_numpy(float) for name in ("bone_age", "predicted"))
    return bootstrap(predictions, lambda w: agreement(true, predicted, w), base)


def population_weights(predictions: pd.DataFrame, population: Population) -> Values | None:
    """Return row weights that give each group by sex and age its share of the source table.

    Post-stratification (Holt and Smith, JRSS A 1979). `None` if a group of the table has no row here, so its
    error is unknown.
    """
    natural = np.array(population.counts, float)
    here = np.bincount(predictions["group"], minlength=len(natural)).astype(float)
    if ((natural > 0) & (here == 0)).any():
        return None
    ratio = np.divide(natural / natural.sum(), here / here.sum(), out=np.zeros_like(natural), where=here > 0)
    return ratio[predictions["group"].to_numpy()]


def to_json_numbers(value: float, low: float, high: float) -> dict[str, float | None]:
    """Return a value and the bounds of its interval; non-finite numbers become `None`."""
    return {
        key: float(number) if np.isfinite(number) else None
        for key, number in (("value", value), ("low", low), ("high", high))
    }


def _by(predictions: pd.DataFrame, key: ArrayLike, names: list[str]) -> list[dict[str, Any]]:
    """Return rows, images and statistics of each part; `key` is the part's number, from 0."""
    part = np.asarray(key, int)
    parts = []
    for at, name in enumerate(names):
        rows = predictions[part == at]
        numbers = {"name": name, "rows": len(rows), "images": len(set(image_numbers(rows)))}
        parts.append({**numbers, **(metrics_of(rows) if len(rows) else {})})
    return parts


def _baselines(predictions: pd.DataFrame, population: Population) -> list[dict[str, Any]]:
    medians = population.medians
    of_sex = predictions["male"].map({False: medians["girls"], True: medians["boys"]})
    predictors = {
        "constant predictor": (pd.Series(medians["all"], predictions.index), f"{medians['all']:.1f} months"),
        "sex-median predictor": (
            of_sex,
            ", ".join(
                f"{medians[s]:.1f} months for {s}" for s in ("girls", "boys") if np.isfinite(medians[s])
            ),
        ),
    }
    baselines = []
    for name, (months, what) in predictors.items():
        error = (months - predictions["bone_age"]).abs().to_numpy(float)
        metrics = bootstrap(predictions, lambda w, e=error: {"mae": mean(e, w)})  # type: ignore[misc]
        baselines.append({"name": name, "what": what, **metrics})
    return baselines
