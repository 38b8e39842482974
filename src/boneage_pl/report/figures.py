"""Figures, as matplotlib objects: whoever asks for one decides where it goes."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from boneage_pl.batch import Batch
from boneage_pl.data.transforms import unnormalise

GIRLS, BOYS = "#c44e52", "#4c72b0"


def sample_grid(batch: Batch) -> Figure:
    """Draw a batch in a 4-column grid with ages and sexes; `image` [B, 3, H, W] ImageNet-normalised."""
    rows = -(-len(batch["image"]) // 4)
    figure = Figure(figsize=(8, 2.2 * rows), layout="constrained")
    places = np.ravel(figure.subplots(rows, 4))
    for axes, image, male, months in zip(
        places, batch["image"], batch["male"], batch["bone_age"], strict=False
    ):
        axes.imshow(unnormalise(image).permute(1, 2, 0).numpy())
        axes.set_title(f"{'boy' if male > 0.5 else 'girl'}, {float(months):.0f} months", fontsize=9)
    for axes in figure.axes:
        axes.axis("off")
    return figure


def predicted_against_true(answers: pd.DataFrame) -> Figure:
    """Plot predicted against true months by sex; `answers` has `male`, `bone_age` and `predicted`."""
    figure = Figure(figsize=(5, 5), layout="constrained")
    axes = figure.subplots()
    for sex, rows, colour in _by_sex(answers):
        axes.plot(rows["bone_age"], rows["predicted"], "o", ms=2.5, alpha=0.4, color=colour, label=sex)
    limit = max(answers["bone_age"].max() * 1.05, 12)
    axes.plot([0, limit], [0, limit], color="0.4", lw=1)
    finite = answers["predicted"][np.isfinite(answers["predicted"])]
    highest = min(max(limit, finite.max() * 1.05), 2 * limit) if len(finite) else limit
    axes.set(xlim=(0, limit), ylim=(min(0, finite.min()) if len(finite) else 0, highest))
    axes.set(xlabel="bone age (months)", ylabel="predicted (months)", title=_title(answers))
    axes.legend(loc="upper left")
    return figure


def error_by_age(answers: pd.DataFrame) -> Figure:
    """Plot the mean absolute error by year of age and sex; `answers` as for `predicted_against_true`."""
    figure = Figure(figsize=(6.5, 4), layout="constrained")
    axes = figure.subplots()
    for sex, rows, colour in _by_sex(answers):
        error = (rows["predicted"] - rows["bone_age"]).abs()
        by_year = error.groupby((rows["bone_age"] // 12).astype(int)).mean()
        axes.plot(by_year.index + 0.5, by_year, "o-", ms=4, color=colour, label=sex)
    axes.set(xlabel="bone age (years)", ylabel="mean absolute error (months)", title=_title(answers))
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


def _by_sex(answers: pd.DataFrame) -> list[tuple[str, pd.DataFrame, str]]:
    male = answers["male"].astype(bool)
    return [("girls", answers[~male], GIRLS), ("boys", answers[male], BOYS)]


def _title(answers: pd.DataFrame) -> str:
    mae = (answers["predicted"] - answers["bone_age"]).abs().mean(skipna=False)
    return f"validation MAE {mae:.2f} months, {len(answers)} samples"
