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
from boneage_pl.utils.plots import image_grid, literal

WIDTH = 5.2  # inches: 390 pixels of a phone at 75 per inch, so that 10 points are 10 pixels
# distinct in gray too, and by marker
SEXES = (("girls", False, "#e0813a", "o"), ("boys", True, "#1c4a80", "^"))
COLORS = color_sequences["tab10"]  # of runs
MARKERS = "os^Dv*PX"
FEW_POINTS = 6  # curves with fewer points get markers
OUTLIER_FACTOR = 5  # values above this multiple of the median, as in first epochs, are off the chart


def predicted_against_true(predictions: pd.DataFrame) -> Figure:
    """Plot predicted against true months by sex, with prediction intervals if there are any.

    Args:
        predictions: `male, bone_age, predicted`, optionally `lower, upper`.
    """
    figure = Figure(figsize=(WIDTH, WIDTH), layout="constrained")
    axes = figure.subplots()
    for sex, rows, style in _by_sex(predictions):
        axes.plot(rows["bone_age"], rows["predicted"], label=sex, **style)
        if "lower" in rows:
            ends = rows["lower"], rows["upper"]
            axes.vlines(rows["bone_age"], *ends, color=style["color"], lw=0.5, alpha=0.15, zorder=0)
    limit = max(predictions["bone_age"].max() * 1.05, 12)
    axes.plot([0, limit], [0, limit], color="0.4", lw=1)
    finite = predictions["predicted"][np.isfinite(predictions["predicted"])]
    highest = min(max(limit, finite.max() * 1.05), 2 * limit) if len(finite) else limit
    axes.set(xlim=(0, limit), ylim=(min(0, finite.min()) if len(finite) else 0, highest))
    axes.set(xlabel="bone age (months)", ylabel="predicted (months)")
    axes.set_title(_title(predictions), fontsize=10)
    axes.legend(loc="upper left")
    return figure


def bland_altman(predictions: pd.DataFrame) -> Figure:
    """Plot errors against the mean of both ages by sex, with bias and limits (Bland and Altman 1986)."""
    figure = Figure(figsize=(WIDTH, 6.6), layout="constrained")
    charts = figure.subplots(2, sharex=True, sharey=True)
    for axes, (sex, rows, style) in zip(charts, _by_sex(predictions), strict=True):
        axes.plot((rows["predicted"] + rows["bone_age"]) / 2, rows["error"], **style)
        bias, spread = rows["error"].mean(), NORMAL_95 * rows["error"].std()
        for at in (bias, bias - spread, bias + spread) if np.isfinite(spread) else ():
            axes.axhline(at, color="0.3", lw=1, ls="-" if at == bias else "--")
            outside = {"xycoords": ("axes fraction", "data"), "va": "center", "annotation_clip": False}
            axes.annotate(f" {at:+.1f}", (1, at), **outside)
        axes.set_ylabel("predicted − true (months)")
        axes.set_title(f"{sex}: bias {bias:+.2f}, limits of agreement ± {spread:.2f} months", fontsize=10)
    charts[1].set_xlabel("mean of true and predicted (months)")
    return figure


def error_by_age(predictions: pd.DataFrame) -> Figure:
    """Plot the mean absolute error by year of age and sex, with 95 % bootstrap intervals, see `bootstrap`."""
    figure = Figure(figsize=(WIDTH, 4), layout="constrained")
    axes = figure.subplots()
    for shift, (sex, rows, style) in zip((-0.1, 0.1), _by_sex(predictions), strict=True):
        error = (rows["predicted"] - rows["bone_age"]).abs()
        year = (rows["bone_age"] // 12).astype(int)
        by_year = error.groupby(year).mean()
        color = style["color"]
        axes.plot(by_year.index + 0.5, by_year, f"{style['marker']}-", ms=4, color=color, label=sex)
        for at in by_year.index:
            part = error[year == at].to_numpy(float)
            interval = bootstrap(rows[year == at], lambda w, part=part: {"mae": mean(part, w)}, count=500)  # type: ignore[misc]
            ends = np.array([interval["mae"]["low"], interval["mae"]["high"]], float)
            axes.vlines(at + 0.5 + shift, *ends, color=color, lw=1, alpha=0.6)
    axes.set(xlabel="bone age (years)", ylabel="mean absolute error (months)", ylim=(0, None))
    axes.set_title(_title(predictions), fontsize=10)
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


def error_by_chronological_age(predictions: pd.DataFrame) -> Figure:
    """Plot errors against chronological age by sex, with the mean by year."""
    figure = Figure(figsize=(WIDTH, 4), layout="constrained")
    axes = figure.subplots()
    for sex, rows, style in _by_sex(predictions.dropna(subset=["chronological_age"])):
        axes.plot(rows["chronological_age"] / 12, rows["error"], label=sex, **{**style, "alpha": 0.3})
        by_year = rows.groupby(rows["chronological_age"] // 12)["error"].mean()
        axes.plot(by_year.index + 0.5, by_year, f"{style['marker']}-", ms=5, color=style["color"])
    axes.axhline(0, color="0.4", lw=1)
    axes.set(xlabel="chronological age (years)", ylabel="predicted − true (months)")
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


def interval_coverage(by_level: list[dict[str, float]]) -> Figure:
    """Plot the coverage of prediction intervals against their level, see `coverage_by_level`."""
    figure = Figure(figsize=(WIDTH, 4.2), layout="constrained")
    axes = figure.subplots()
    levels = [row["level"] for row in by_level]
    for sex, _, color, marker in SEXES:
        axes.plot(levels, [row[sex] for row in by_level], f"{marker}-", ms=4, color=color, label=sex)
    axes.plot([0, 1], [0, 1], color="0.4", lw=1)
    axes.set(xlim=(levels[0] - 0.05, 1), ylim=(levels[0] - 0.1, 1), xlabel="level of the interval")
    axes.set(ylabel="share of ages inside")
    axes.grid(alpha=0.3)
    axes.legend(loc="upper left")
    return figure


def groups_heat_map(by_group: list[dict[str, Any]], edges: list[float]) -> Figure:
    """Plot the MAE of the groups by sex and age; see `compute_metrics` for `by_group`."""
    mae = [part["mae"]["value"] if part["rows"] else None for part in by_group]
    values = np.array(mae, float).reshape(2, -1).T
    figure = Figure(figsize=(WIDTH, 1 + 0.35 * len(values)), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(values, cmap="YlOrRd", aspect="auto", vmin=0)
    dark = 0.7 * (np.nanmax(values) if np.isfinite(values).any() else 0)
    for (row, column), value in np.ndenumerate(values):
        text = f"{value:.1f}" if np.isfinite(value) else "–"
        axes.text(column, row, text, ha="center", va="center", color="w" if value > dark else "k")
    axes.set_xticks([0, 1], ["girls", "boys"])
    axes.set_yticks(range(len(values)), [f"{low / 12:.0f}–{high / 12:.0f}" for low, high in pairwise(edges)])
    axes.set_ylabel("bone age (years)")
    axes.set_title("mean absolute error (months)", fontsize=10)
    figure.colorbar(image, ax=axes, shrink=0.9)
    return figure


def learning_curves(runs: dict[str, list[EpochMetrics]], published: Iterable[str] = ()) -> Figure:
    """Plot training and validation MAE by epoch of one or more runs, with published epochs as dots.

    A single run has one chart; several runs have one for validation and one for training.

    Args:
        runs: rows of metrics.csv by run name.
        published: stages of the published experiment to show.
    """
    separate = len(runs) > 1
    figure = Figure(figsize=(WIDTH, 7.5 if separate else 4.5), layout="constrained")
    charts = figure.subplots(2, sharex=True, sharey=True) if separate else [figure.subplots()]
    sides = [("val_mae", "validation", "-", "o"), ("train_mae", "training", "-" if separate else ":", "^")]
    plotted: list[float] = []
    for axes, (key, subset, line, marker) in zip([*charts, *charts][:2], sides, strict=True):
        for number, (name, rows) in enumerate(runs.items()):
            points = {row["epoch"]: row[key] for row in rows if row[key] is not None}
            dots = "." if len(points) < FEW_POINTS else ""
            style = {"ls": line, "color": COLORS[number % len(COLORS)], "marker": dots}
            label = literal(name if separate else f"{name}, {subset}")
            axes.plot([*points], [*points.values()], label=label, **style)
            plotted += [value for value in points.values() if np.isfinite(value)]
        for name, shade in zip(published, ("0.1", "0.45", "0.75"), strict=False):
            points = {epoch: of[key == "val_mae"] for epoch, of in published_curves()[name].items()}
            label = f"published {name}" + ("" if separate else f", {subset}")
            axes.plot([*points], [*points.values()], marker, ms=4, color=shade, label=label)
            plotted += points.values()
        axes.set(xlabel="epoch", ylabel="mean absolute error (months)", title=subset if separate else None)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
    highest = OUTLIER_FACTOR * np.median(plotted or [0])
    near = [value for value in plotted if value <= highest]
    charts[0].set_ylim(0, 1.1 * max(near, default=0) or 1)
    handles, labels = charts[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, fontsize=9)
    return figure


def error_by_part(metrics: dict[str, dict[str, Any]]) -> Figure:
    """Plot the MAE of several models with 95 % intervals: overall, by sex and by age.

    Args:
        metrics: by model name, see `metrics_by_part`; empty ones are skipped.
    """
    rows = {
        name: [{"name": "all", **part["overall"]}, *part.get("by_sex", []), *part.get("by_age", [])]
        for name, part in metrics.items()
        if "overall" in part
    }
    parts = list(dict.fromkeys(row["name"] for model_rows in rows.values() for row in model_rows))
    figure = Figure(figsize=(WIDTH, 1.5 + 0.14 * len(parts) * (1 + len(rows))), layout="constrained")
    axes = figure.subplots()
    for number, (name, model_rows) in enumerate(rows.items()):
        available = [row for row in model_rows if row.get("mae") and row["mae"]["value"] is not None]
        places = [parts.index(row["name"]) + (number + 0.5) / (len(rows) + 0.5) for row in available]
        color, marker = COLORS[number % len(COLORS)], MARKERS[number % len(MARKERS)]
        values = [row["mae"]["value"] for row in available]
        axes.plot(values, places, ls="", ms=5, label=literal(name), color=color, marker=marker)
        ends = np.array([[row["mae"]["low"], row["mae"]["high"]] for row in available], float).reshape(-1, 2)
        axes.hlines(places, *ends.T, color=color, lw=1.2)
    axes.set_yticks(np.arange(len(parts)) + 0.5, parts)
    axes.set(ylim=(len(parts), 0), xlim=(0, None), xlabel="mean absolute error (months)")
    for line in range(1, len(parts)):
        axes.axhline(line, color="0.85", lw=0.8)
    axes.grid(axis="x", alpha=0.3)
    axes.tick_params(axis="y", length=0)
    if rows:
        figure.legend(loc="outside lower center", ncols=2, fontsize=9)
    return figure


def worst_cases(predictions: pd.DataFrame, pixels: Pixels) -> Figure:
    """Show images with their true and predicted ages.

    Args:
        predictions: `id, male, bone_age, predicted`, a row per image.
        pixels: uint8 [B, H, W].
    """
    titles = [
        f"{row.id}: {'boy' if row.male else 'girl'}\ntrue {row.bone_age:.0f}, predicted {row.predicted:.0f}"
        for row in predictions.itertuples()
    ]
    return image_grid(pixels, titles, columns=3)


def _by_sex(predictions: pd.DataFrame) -> list[tuple[str, pd.DataFrame, dict[str, Any]]]:
    """Return name, rows and marker style for each sex."""
    male = predictions["male"].astype(bool)
    style = {"ls": "", "ms": 3.5, "alpha": 0.5}
    return [
        (sex, predictions[male == boys], {**style, "color": color, "marker": marker})
        for sex, boys, color, marker in SEXES
    ]


def _title(predictions: pd.DataFrame) -> str:
    mae = (predictions["predicted"] - predictions["bone_age"]).abs().mean(skipna=False)
    return f"MAE {mae:.2f} months, {len(predictions)} rows"
