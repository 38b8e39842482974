"""What a model makes of pictures that are not perfect (after Santomartino et al. 2024)."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from boneage_pl.data.frame import Pixels, Resampling
from boneage_pl.data.perturbed import CHANGES, RESAMPLED, Change
from boneage_pl.report.answers import CLEAN, Read
from boneage_pl.report.measures import DRAWS, plain
from boneage_pl.report.statistics import Values, mean, with_intervals
from boneage_pl.run.sheet import contact_sheet


def ways_of(read: Read, redone: Callable[[Resampling], Read]) -> dict[str, Read]:
    """Return the ways that pictures are shown in a stress test, by name, the clean one first.

    Args:
        read: ids → pictures.
        redone: the same from the original files, resampled otherwise.
    """
    return {
        CLEAN: read,
        **{name: partial(_changed, read, change) for name, change in CHANGES.items()},
        **{name: redone(resampling) for name, resampling in RESAMPLED.items()},
    }


def _changed(read: Read, change: Change, ids: Sequence[str]) -> Pixels:
    return np.stack([change(picture) for picture in read(ids)])


def measure_stress(answers: pd.DataFrame, months: Mapping[str, pd.Series]) -> list[dict[str, Any]]:
    """Return a row for each way that the pictures were shown, with 95 % intervals over images.

    Args:
        answers: see `answers_table`.
        months: the answers by way of showing, `clean` first, and by id.

    Returns:
        `name`; `mae` of the answers; `absolute_change`, how far they are on average from those for the clean
        images, and `change`, the same with its sign.
    """
    true = answers["bone_age"].to_numpy(float)
    clean = answers["id"].map(months[CLEAN]).to_numpy(float)
    images = answers["image"].to_numpy()
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

        found = with_intervals(means, images, count=DRAWS)
        rows.append({"name": name, **{key: plain(*value) for key, value in found.items()}})
    return rows


def typical(answers: pd.DataFrame, read: Read) -> str:
    """Return the id of an image to show: about the median error, and the most contrast."""
    ordered = answers.drop_duplicates("image").sort_values(["error", "id"])["id"]
    middle = len(ordered) // 2
    ids = ordered.iloc[max(middle - 10, 0) : middle + 11].tolist()
    return str(ids[int(read(ids).std(axis=(1, 2)).argmax())])


def stress_sheet(i: str, ways: Mapping[str, Read], months: Mapping[str, pd.Series]) -> Figure:
    """Show one image in all ways, with the answers for its id."""
    pictures = np.concatenate([read([i]) for read in ways.values()])
    return contact_sheet(pictures, [f"{name}\n{months[name][i]:.0f} months" for name in ways], columns=5)
