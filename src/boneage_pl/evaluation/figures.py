"""Figures of a report."""

from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import color_sequences
from matplotlib.figure import Figure

from boneage_pl.data.images.resize import Pixels
from boneage_pl.evaluation.breakdown import bootstrap
from boneage_pl.evaluation.metrics import NORMAL_95, mean
from boneage_pl.evaluation.reference_results import published_curves
from boneage_pl.training.history import EpochMetrics
from boneage_pl.utils.plots import image_grid

GIRLS, BOYS = "#c44e52", "#4c72b0"
COLORS = color_sequences["tab10"]  # of runs
FEW_POINTS = 6  # of a curve: a line alone would not show them
OUTLIER_FACTOR = 5  # times the curves' median: above that, as first epochs may be, is outside of the chart


def predicted_against_true(answers: pd.DataFrame) -> Figure:
    """Plot predicted against true months by sex; `answers` has `male`, `bone_age` and `predicted`."""
    figure = Figure(figsize=(5, 5), layout="constrained")
    axes = figure.subplots()
    for sex, rows, color in _by_sex(answers):
        axes.plot(rows["bone_age"], rows["predicted"], "o", ms=2.5, alpha=0.4, color=color, label=sex)
    limit = max(answers["bone_age"].max() * 1.05, 12)
    axes.plot([0, limit], [0, limit], color="0.4", lw=1)
    finite = answers["predicted"][np.isfinite(answers["predicted"])]
    highest = min(max(limit, finite.max() * 1.05), 2 * limit) if len(finite) else limit
    axes.set(xlim=(0, limit), ylim=(min(0, finite.min()) if len(finite) else 0, highest))
    axes.set(xlabel="bone age (months)", ylabel="predicted (months)", title=_title(answers))
    axes.legend(loc="upper left")
    return figure


def bland_altman(answers: pd.DataFrame) -> Figure:
    """Plot the error against the mean of both ages, with bias and limits (Bland and Altman 1986)."""
    figure = Figure(figsize=(6.5, 4), layout="constrained")
    axes = figure.subplots()
    for sex, rows, color in _by_sex(answers):
        middle = (rows["predicted"] + rows["bone_age"]) / 2
        axes.plot(middle, rows["error"], "o", ms=2.5, alpha=0.4, color=color, label=sex)
    bias, spread = answers["error"].mean(), NORMAL_95 * answers["error"].std()
    if np.isfinite(spread):
        for at, words in ((bias, "bias"), (bias - spread, "lower limit"), (bias + spread, "upper limit")):
            axes.axhline(at, color="0.3", lw=1, ls="-" if words == "bias" else "--")
            axes.annotate(
                f"{words} {at:+.1f}",
                (1, at),
                xycoords=("axes fraction", "data"),
                ha="right",
                va="bottom",
                fontsize=8,
            )
    axes.set(xlabel="mean of true and predicted (months)", ylabel="predicted − true (months)")
    axes.set_title(f"bias {bias:+.2f}, 95 % limits of agreement ± {spread:.2f} months", fontsize=10)
    axes.legend(loc="upper left", fontsize=8)
    return figure


def error_by_age(answers: pd.DataFrame) -> Figure:
    """Plot the mean absolute error by year of age and sex, with 95 % bootstrap intervals over images."""
    figure = Figure(figsize=(6.5, 4), layout="constrained")
    axes = figure.subplots()
    for shift, (sex, rows, color) in zip((-0.1, 0.1), _by_sex(answers), strict=True):
        error = (rows["predicted"] - rows["bone_age"]).abs()
        year = (rows["bone_age"] // 12).astype(int)
        by_year = error.groupby(year).mean()
        axes.plot(by_year.index + 0.5, by_year, "o-", ms=4, color=color, label=sex)
        for at in by_year.index:
            part = error[year == at].to_numpy(float)
            found = bootstrap(rows[year == at], lambda w, part=part: {"mae": mean(part, w)}, count=500)  # type: ignore[misc]
            ends = np.array([found["mae"]["low"], found["mae"]["high"]], float)
            axes.vlines(at + 0.5 + shift, *ends, color=color, lw=1, alpha=0.6)
    axes.set(xlabel="bone age (years)", ylabel="mean absolute error (months)", title=_title(answers))
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


def groups_heat_map(by_group: list[dict[str, Any]], edges: list[float]) -> Figure:
    """Show the mean absolute error of the groups by sex and age; `by_group` as `measure` gives it."""
    bins = len(edges) - 1
    mae = [part["mae"]["value"] if part["rows"] else None for part in by_group]
    values = np.array(mae, float).reshape(2, bins)
    figure = Figure(figsize=(8, 2.4), layout="constrained")
    axes = figure.subplots()
    shown = axes.imshow(values, cmap="YlOrRd", aspect="auto", vmin=0)
    middle = np.nanmax(values) / 2 if np.isfinite(values).any() else 0
    for (row, column), value in np.ndenumerate(values):
        words = f"{value:.1f}" if np.isfinite(value) else "–"
        axes.text(
            column,
            row,
            words,
            ha="center",
            va="center",
            fontsize=8,
            color="w" if value > 1.4 * middle else "k",
        )
    axes.set_yticks([0, 1], ["girls", "boys"])
    axes.set_xticks(
        range(bins), [f"{low / 12:.0f}–{high / 12:.0f}" for low, high in pairwise(edges)], fontsize=8
    )
    axes.set_xlabel("bone age (years)")
    axes.set_title("mean absolute error (months) of the groups by sex and age", fontsize=10)
    figure.colorbar(shown, ax=axes, shrink=0.9)
    return figure


def learning_curves(runs: dict[str, list[EpochMetrics]], published: Iterable[str] = ()) -> Figure:
    """Plot training and validation MAE by epoch of one or more runs, with published epochs as dots.

    One run's two curves share a chart; those of several have one for validation and one for training.

    Args:
        runs: rows of metrics.csv by the run's name.
        published: stages of the published experiment to show.
    """
    apart = len(runs) > 1
    figure = Figure(figsize=(10, 4.2) if apart else (6.5, 4.5), layout="constrained")
    charts = figure.subplots(1, 2, sharey=True) if apart else [figure.subplots()]
    sides = [("val_mae", "validation", "-", "o"), ("train_mae", "training", "-" if apart else ":", "^")]
    shown: list[float] = []
    for axes, (key, words, line, marker) in zip([*charts, *charts][:2], sides, strict=True):
        for number, (name, rows) in enumerate(runs.items()):
            points = {row["epoch"]: row[key] for row in rows if row[key] is not None}
            dots = "." if len(points) < FEW_POINTS else ""
            style = {"ls": line, "color": COLORS[number % len(COLORS)], "marker": dots}
            axes.plot(*_smooth_curve(points), label=name if apart else f"{name}, {words}", **style)
            shown += [value for value in points.values() if np.isfinite(value)]
        for name, shade in zip(published, ("0.1", "0.45", "0.75"), strict=False):
            points = {epoch: of[key == "val_mae"] for epoch, of in published_curves()[name].items()}
            label = f"published {name}" + ("" if apart else f", {words}")
            axes.plot(*_smooth_curve(points), marker, ms=4, color=shade, label=label)
            shown += points.values()
        axes.set(xlabel="epoch", title=words if apart else None)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
    near = [value for value in shown if value <= OUTLIER_FACTOR * np.median(shown)]
    charts[0].set(ylabel="mean absolute error (months)", ylim=(0, 1.1 * max(near, default=0) or 1))
    handles, labels = charts[0].get_legend_handles_labels()
    columns = 3 if apart else 2
    figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), columns), fontsize=8)
    return figure


def _smooth_curve(points: dict[int, float]) -> tuple[list[int], list[float]]:
    return list(points), list(points.values())


def worst_cases(answers: pd.DataFrame, pixels: Pixels) -> Figure:
    """Show images with their true and predicted ages.

    Args:
        answers: as many rows as there are images, `id, male, bone_age, predicted`.
        pixels: uint8 [B, H, W].
    """
    titles = [
        f"{row.id}: {'boy' if row.male else 'girl'}\ntrue {row.bone_age:.0f}, predicted {row.predicted:.0f}"
        for row in answers.itertuples()
    ]
    return image_grid(pixels, titles)


def _by_sex(answers: pd.DataFrame) -> list[tuple[str, pd.DataFrame, str]]:
    male = answers["male"].astype(bool)
    return [("girls", answers[~male], GIRLS), ("boys", answers[male], BOYS)]


def _title(answers: pd.DataFrame) -> str:
    mae = (answers["predicted"] - answers["bone_age"]).abs().mean(skipna=False)
    return f"MAE {mae:.2f} months, {len(answers)} samples"
