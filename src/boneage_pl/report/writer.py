"""Write a report: predictions.csv, metrics.json, figures and report.html."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from matplotlib.figure import Figure

from boneage_pl.data.images.resize import Pixels
from boneage_pl.report.figures import (
    bland_altman,
    error_by_age,
    groups_heat_map,
    learning_curves,
    predicted_against_true,
    worst_cases,
)
from boneage_pl.report.html import figure_to_png, render
from boneage_pl.report.literature import REPRODUCED, TEST, VALIDATION, identify_test_set
from boneage_pl.report.measures import PREDICTION_COLUMNS, Population, compute_metrics
from boneage_pl.training.metadata import CheckpointMetadata
from boneage_pl.training.published import curves_caption, published_stages

WORST = 12
PUBLISHED_SIZE = 500  # pixels


@dataclass
class ReportContext:
    """What a report is about.

    Args:
        title: of the page.
        subset: the rows that were asked, in words: "the run's own validation images".
        data: folder of the images.
        checkpoints: files that answered; several are averaged.
        record: of the first checkpoint.
        synthetic: whether the radiographs were drawn.
        num_selection_rows: how many rows show images that also chose the checkpoint's epoch.
        balanced: whether these rows were drawn alike from every group by sex and age.
        run: the content of the training's run.json, where there is one.
        evaluation: that of the evaluation's; empty where a training writes its own report.
    """

    title: str
    subset: str
    data: str
    checkpoints: list[str]
    record: CheckpointMetadata
    synthetic: bool
    num_selection_rows: int
    balanced: bool
    run: dict[str, Any] = field(default_factory=dict)
    evaluation: dict[str, Any] = field(default_factory=dict)


@dataclass
class ReportSections:
    """What an evaluation may have found out beside the answers.

    Args:
        members: of several checkpoints, each one's `name` and statistics.
        paired_comparison: the comparison with another model, see `pairing.paired`, with `name`, `this` and
            `other`.
        robustness: a row for each change of the pictures, see `stress.measure_stress`.
        figures: more figures by name.
        coverage: of the answers' intervals, see `coverage.measure_coverage`.
        predicted_std: what the model's own doubts tell, see `coverage.measure_spread`.
        columns: more columns of predictions.csv.
        tables: more tables by file name.
    """

    members: list[dict[str, Any]] = field(default_factory=list)
    paired_comparison: dict[str, Any] | None = None
    robustness: list[dict[str, Any]] = field(default_factory=list)
    figures: dict[str, Figure] = field(default_factory=dict)
    coverage: dict[str, Any] | None = None
    predicted_std: dict[str, Any] | None = None
    columns: list[str] = field(default_factory=list)
    tables: dict[str, pd.DataFrame] = field(default_factory=dict)


def write_report(
    folder: Path,
    about: ReportContext,
    answers: pd.DataFrame,
    read: Callable[[Sequence[str]], Pixels],
    further: ReportSections | None = None,
) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Write a report into `folder`; return its numbers, and its figures by name as PNG files.

    Args:
        answers: as `answers_table` makes it.
        read: ids → uint8 [B, H, W], for the worst cases.
        further: what else has been found out.
    """
    more = further or ReportSections()
    split = about.record.split
    known = {*split["train"], *split["validation"]}
    standing = identify_test_set(set(answers["id"]), known.__contains__)
    numbers = {
        "subset": about.subset,
        "data": about.data,
        "checkpoints": about.checkpoints,
        **compute_metrics(answers, split["edges"], Population.of(split), balanced=about.balanced),
        "yardstick": standing.name if standing else None,
        "members": more.members,
        "against": more.paired_comparison,
        "stress": more.robustness,
        "coverage": more.coverage,
        "spread": more.predicted_std,
    }
    figures = {**_figures(about, answers, numbers, read), **more.figures}
    images = {name: figure_to_png(figure) for name, figure in figures.items()}
    page = render(
        "report.html",
        title=about.title,
        about=about,
        numbers=numbers,
        images=images,
        standing=standing,
        yardsticks=(TEST, VALIDATION),
        reproduced=REPRODUCED,
        curves_caption=curves_caption([about.record.experiment]),
        published_size=PUBLISHED_SIZE,
        configuration=yaml.safe_dump(about.record.config, sort_keys=False),
    )
    folder.mkdir(parents=True, exist_ok=True)
    columns = [*PREDICTION_COLUMNS, *more.columns, *(["spread"] if more.predicted_std else [])]
    tables = {"predictions.csv": answers[columns], **more.tables}
    for name, table in tables.items():
        table.to_csv(folder / name, index=False)
    (folder / "metrics.json").write_text(json.dumps(numbers, indent=1) + "\n", encoding="utf-8")
    for name, image in images.items():
        (folder / f"{name}.png").write_bytes(image)
    (folder / "report.html").write_text(page, encoding="utf-8")
    return numbers, images


def _figures(
    about: ReportContext,
    answers: pd.DataFrame,
    numbers: dict[str, Any],
    read: Callable[[Sequence[str]], Pixels],
) -> dict[str, Figure]:
    worst = answers.assign(size=answers["error"].abs()).sort_values(
        "size", ascending=False, na_position="first"
    )
    worst = worst.drop_duplicates("image").head(WORST)
    epochs = about.record.epochs or []
    name = about.record.experiment
    return {
        "predicted_against_true": predicted_against_true(answers),
        "bland_altman": bland_altman(answers),
        "error_by_age": error_by_age(answers),
        "groups": groups_heat_map(numbers["by_group"], about.record.split["edges"]),
        **({"learning_curves": learning_curves({name: epochs}, published_stages([name]))} if epochs else {}),
        "worst_cases": worst_cases(worst, read(worst["id"].tolist())),
    }
