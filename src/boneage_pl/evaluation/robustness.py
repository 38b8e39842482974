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


def build_conditions(read: ReadPixels, redone: Callable[[Resampling], ReadPixels]) -> dict[str, ReadPixels]:
    """Return the ways that pictures are shown in a stress test, by name, the clean one first.

    Args:
        read: ids → pictures.
        redone: the same from the original files, resampled otherwise.
    """
    return {
        UNCHANGED: read,
        **{name: partial(_corrupt, read, change) for name, change in CORRUPTIONS.items()},
        **{name: redone(resampling) for name, resampling in RESAMPLING_CORRUPTIONS.items()},
    }


def _corrupt(read: ReadPixels, change: Corruption, ids: Sequence[str]) -> Pixels:
    return change(read(ids))


def measure_robustness(answers: pd.DataFrame, months: Mapping[str, pd.Series]) -> list[dict[str, Any]]:
    """Return a row for each way that the pictures were shown, with 95 % intervals over images.

    Args:
        answers: see `predictions_frame`.
        months: the answers by way of showing, `clean` first, and by id.

    Returns:
        `name`; `mae` of the answers; `absolute_change`, how far they are on average from those for the clean
        images, and `change`, the same with its sign.
    """
    true = answers["bone_age"].to_numpy(float)
    clean = answers["id"].map(months[UNCHANGED]).to_numpy(float)
    rows = []
    for name, of_id in months.items():
        predicted = answers["id"].map(of_id).to_numpy(float)
        values = {
            "mae": np.abs(predicted - true),
            "absolute_change": np.abs(predicted - clean),
            "change": predicted - clean,
        }

        def means(weights: Values, values: dict[str, Values] = values) -> dict[str, Values]:
            return {key: mean(value, weights) for key, value in values.items()}

        rows.append({"name": name, **bootstrap(answers, means)})
    return rows


def representative_image(answers: pd.DataFrame, read: ReadPixels) -> str:
    """Return the id of an image to show: about the median error, and the most contrast."""
    ordered = answers.drop_duplicates("image").sort_values(["error", "id"])["id"]
    middle = len(ordered) // 2
    ids = ordered.iloc[max(middle - 10, 0) : middle + 11].tolist()
    return str(ids[int(read(ids).std(axis=(1, 2)).argmax())])


def robustness_figure(i: str, ways: Mapping[str, ReadPixels], months: Mapping[str, pd.Series]) -> Figure:
    """Show one image in all ways, with the answers for its id."""
    pictures = np.concatenate([read([i]) for read in ways.values()])
    return image_grid(pictures, [f"{name}\n{months[name][i]:.0f} months" for name in ways], columns=5)
