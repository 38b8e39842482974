"""Metrics under image corruptions."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from boneage_pl.data.corruptions import CORRUPTIONS, RESAMPLING_CORRUPTIONS, Corruption
from boneage_pl.data.images.resize import Pixels, ReadPixels, Resampling
from boneage_pl.evaluation.breakdown import bootstrap
from boneage_pl.evaluation.metrics import Values, mean
from boneage_pl.evaluation.predictions import UNCHANGED
from boneage_pl.utils.plots import image_grid


def build_conditions(read: ReadPixels, resample: Callable[[Resampling], ReadPixels]) -> dict[str, ReadPixels]:
    """Return the conditions of a robustness test by name, the clean one first.

    Args:
        read: ids → images.
        resample: resampling filter → the same, decoded from the original files.
    """
    return {
        UNCHANGED: read,
        **{name: partial(_corrupt, read, change) for name, change in CORRUPTIONS.items()},
        **{name: resample(resampling) for name, resampling in RESAMPLING_CORRUPTIONS.items()},
    }


def _corrupt(read: ReadPixels, change: Corruption, ids: Sequence[str]) -> Pixels:
    return change(read(ids))


def measure_robustness(predictions: pd.DataFrame, months: Mapping[str, pd.Series]) -> list[dict[str, Any]]:
    """Return a row per condition, with 95 % intervals, see `bootstrap`.

    Args:
        predictions: see `predictions_frame`.
        months: predictions by condition, `clean` first, and by id.

    Returns:
        `name`; `mae`; `absolute_change` and `change`, the mean absolute and signed difference from the
        predictions for clean images.
    """
    true = predictions["bone_age"].to_numpy(float)
    clean = predictions["id"].map(months[UNCHANGED]).to_numpy(float)
    rows = []
    for name, of_id in months.items():
        predicted = predictions["id"].map(of_id).to_numpy(float)
        values = {
            "mae": np.abs(predicted - true),
            "absolute_change": np.abs(predicted - clean),
            "change": predicted - clean,
        }

        def means(weights: Values, values: dict[str, Values] = values) -> dict[str, Values]:
            return {key: mean(value, weights) for key, value in values.items()}

        rows.append({"name": name, **bootstrap(predictions, means)})
    return rows


def representative_image(predictions: pd.DataFrame, read: ReadPixels) -> str:
    """Return the id of an image with about the median error and high contrast."""
    ordered = predictions.drop_duplicates("image").sort_values(["error", "id"])["id"]
    middle = len(ordered) // 2
    ids = ordered.iloc[max(middle - 10, 0) : middle + 11].tolist()
    return str(ids[int(read(ids).std(axis=(1, 2)).argmax())])


def robustness_figure(
    i: str, conditions: Mapping[str, ReadPixels], months: Mapping[str, pd.Series]
) -> Figure:
    """Show one image in all conditions, with its predictions."""
    images = np.concatenate([read([i]) for read in conditions.values()])
    titles = [f"{name}\n{months[name][i]:.0f} months" for name in conditions]
    return image_grid(images, titles, columns=3)
