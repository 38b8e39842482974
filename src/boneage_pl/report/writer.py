"""Write a report: predictions.csv, metrics.json, figures and report.html."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from matplotlib.figure import Figure

from boneage_pl.data.frame import Pixels
from boneage_pl.report.figures import (
    bland_altman,
    error_by_age,
    groups_heat_map,
    learning_curves,
    predicted_against_true,
    worst_cases,
)
from boneage_pl.report.measures import COLUMNS, Population, measure
from boneage_pl.report.page import (
    cards,
    folded,
    listed,
    page,
    picture,
    png,
    section,
    table,
    text,
    with_interval,
)
from boneage_pl.run.published import PUBLISHED
from boneage_pl.run.record import Record

WORST = 12
PUBLISHED_SIZE = 500  # pixels

_NAMES = {
    "mae": "mean absolute error (MAE, MAD)",
    "rmse": "root mean squared error",
    "median_absolute_error": "median absolute error",
    "bias": "mean error (bias; + is older)",
    "error_sd": "standard deviation of the error",
    "loa_low": "95 % limits of agreement, lower",
    "loa_high": "95 % limits of agreement, upper",
    "r2": "R²",
    "pearson_r": "Pearson r",
    "concordance": "concordance correlation (Lin)",
    "icc": "ICC(2,1)",
    "within_6": "within 6 months",
    "within_12": "within 12 months",
    "within_24": "within 24 months",
}


@dataclass
class About:
    """What a report is about.

    Args:
        title: of the page.
        subset: the rows that were asked, in words: "the run's own validation images".
        data: folder of the images.
        checkpoints: files that answered; several are averaged.
        record: of the first checkpoint.
        chose_epoch: whether these rows also chose the checkpoint's epoch.
        balanced: whether these rows were drawn alike from every group by sex and age.
        run: the content of run.json, where there is one.
    """

    title: str
    subset: str
    data: str
    checkpoints: list[str]
    record: Record
    chose_epoch: bool
    balanced: bool
    run: dict[str, Any] = field(default_factory=dict)


def write_report(
    folder: Path,
    about: About,
    answers: pd.DataFrame,
    read: Callable[[Sequence[str]], Pixels],
) -> dict[str, bytes]:
    """Write a report into `folder` and return its figures by name, as PNG files.

    Args:
        answers: as `answers_table` makes it.
        read: ids → uint8 [B, H, W], for the worst cases.
    """
    split = about.record.split
    numbers = measure(answers, split["edges"], Population.of(split))
    folder.mkdir(parents=True, exist_ok=True)
    answers[COLUMNS].to_csv(folder / "predictions.csv", index=False)
    about_numbers = {"subset": about.subset, "data": about.data, "checkpoints": about.checkpoints}
    (folder / "metrics.json").write_text(json.dumps({**about_numbers, **numbers}, indent=1) + "\n")
    images = {name: png(figure) for name, figure in _figures(about, answers, numbers, read).items()}
    for name, image in images.items():
        (folder / f"{name}.png").write_bytes(image)
    (folder / "report.html").write_text(_page(about, numbers, images), encoding="utf-8")
    return images


def _figures(
    about: About, answers: pd.DataFrame, numbers: dict[str, Any], read: Callable[[Sequence[str]], Pixels]
) -> dict[str, Figure]:
    worst = answers.assign(size=answers["error"].abs()).sort_values(
        "size", ascending=False, na_position="first"
    )
    worst = worst.drop_duplicates("image").head(WORST)
    epochs = about.record.epochs or []
    name = about.record.experiment
    known = (name,) if name in PUBLISHED else ()
    return {
        "predicted_against_true": predicted_against_true(answers),
        "bland_altman": bland_altman(answers),
        "error_by_age": error_by_age(answers),
        "groups": groups_heat_map(numbers["by_group"], about.record.split["edges"]),
        **({"learning_curves": learning_curves({name: epochs}, known)} if epochs else {}),
        "worst_cases": worst_cases(worst, read(worst["id"].tolist())),
    }


_CAPTIONS = {
    "predicted_against_true": "Predicted against true bone age; on the line the two are equal.",
    "bland_altman": "Error against the mean of both ages, with bias and 95 % limits of agreement.",
    "error_by_age": "Mean absolute error by year of age and sex; the bars are 95 % intervals over images.",
    "groups": "Mean absolute error of each group by sex and age.",
    "learning_curves": "Training and validation error by epoch; dots are the published points.",
    "worst_cases": "The images with the largest errors, as the network saw them.",
}


def caveats(about: About, numbers: dict[str, Any]) -> list[str]:
    """Return what a reader must know before quoting the numbers: only what applies."""
    record = about.record
    said = []
    if not numbers["finite"]:
        said.append("The model gave answers that are not numbers: the figures below leave out what they can.")
    if numbers["rows_seen_in_training"]:
        share = numbers["rows_seen_in_training"] / numbers["rows"]
        said.append(
            f"The model was trained on images that {share:.1%} of these rows show. Their errors flatter it: "
            "this is not an estimate of its error on new images."
        )
    if about.chose_epoch:
        said.append(
            "These images also chose the epoch that is reported, so the error is a little too low: an "
            "estimate for new images needs images that nothing was chosen on."
        )
    if about.balanced:
        natural = numbers["natural"]
        beside = (
            f" At the source table's ages and sexes it is {with_interval(natural['mae'])} months."
            if natural
            else ""
        )
        said.append(
            "Every group by sex and age counts alike here, as in the published validation set; among real "
            f"patients some ages are far more frequent than others.{beside}"
        )
    if numbers["images"] < numbers["rows"]:
        said.append(
            f"{numbers['rows']} rows show {numbers['images']} different images: small groups are repeated. "
            "The intervals draw images, not rows, so the repeats do not narrow them."
        )
    if record.image_size != PUBLISHED_SIZE:
        said.append(
            f"Images were {record.image_size} pixels wide and high; the published ones {PUBLISHED_SIZE}."
        )
    if "phantom" in about.data:
        said.append("These are synthetic radiographs: the numbers say nothing about real hands.")
    said.append("A research result. Not a medical device.")
    return said


def _page(about: About, numbers: dict[str, Any], images: dict[str, bytes]) -> str:
    overall, natural = numbers["overall"], numbers["natural"]
    lead = text(
        f"{about.record.experiment} reads hand radiographs and says how old the bones are. Asked about "
        f"{about.subset} in {about.data}, its answers were off by {with_interval(overall['mae'])} months on "
        "average (in brackets the 95 % interval over images)."
    )
    heads = [
        (f"{_number(overall['mae'])}", "months mean absolute error"),
        (f"{_number(overall['bias'], '+')}", "months bias"),
        (_percent(overall["within_12"]), "within 12 months"),
        (f"{numbers['images']}", f"images, {numbers['rows']} rows"),
    ]
    if natural:
        heads.insert(1, (_number(natural["mae"]), "months MAE at natural ages and sexes"))
    return page(
        about.title,
        lead,
        [
            cards(heads),
            listed(caveats(about, numbers), "caveats"),
            section("Beside other figures", *_beside(numbers)),
            section("All statistics", _statistics(overall, natural)),
            section(
                "Figures",
                *(picture(images[name], _CAPTIONS[name]) for name in images if name != "worst_cases"),
            ),
            section("By sex and age", _parts(numbers["by_sex"] + numbers["by_age"])),
            section("The groups by sex and age", _parts(numbers["by_group"])),
            section("Worst cases", picture(images["worst_cases"], _CAPTIONS["worst_cases"])),
            section("What was trained on what", *_how(about)),
        ],
    )


def _number(value: dict[str, Any], sign: str = "") -> str:
    return "–" if value["value"] is None else f"{value['value']:{sign}.2f}"


def _percent(value: dict[str, Any]) -> str:
    return "–" if value["value"] is None else f"{value['value']:.0%}"


def _beside(numbers: dict[str, Any]) -> list[str]:
    rows = [["this model", with_interval(numbers["overall"]["mae"]), "the rows of this report"]]
    rows += [
        [b["name"], with_interval(b["mae"]), f"{b['what']}; the rows of this report"]
        for b in numbers["baselines"]
    ]
    rows += [
        [r["name"], str(r["mae"]), f"not the same test: {r['on']} ({r['source']})"]
        for r in numbers["references"]
    ]
    return [table(["", "MAE, months", "measured on"], rows, [1])]


def _statistics(overall: dict[str, Any], natural: dict[str, Any] | None) -> str:
    head = ["", "these rows", *(["natural ages and sexes"] if natural else [])]
    rows = [[_NAMES[key], *(_shown(key, part[key]) for part in (overall, natural) if part)] for key in _NAMES]
    return table(head, rows, [1, 2]) + text(
        "Months where they have a unit; in brackets 95 % intervals.", "quiet"
    )


def _shown(key: str, value: dict[str, Any]) -> str:
    if key.startswith("within"):
        return with_interval({k: v and 100 * v for k, v in value.items()}, 1) + " %"
    return with_interval(value, 3 if key in ("r2", "pearson_r", "concordance", "icc") else 2)


def _parts(parts: list[dict[str, Any]]) -> str:
    rows = [
        [
            p["name"],
            str(p["images"]),
            str(p["rows"]),
            with_interval(p["mae"]),
            with_interval(p["bias"], sign="+"),
        ]
        for p in parts
        if p["rows"]
    ]
    return table(["", "images", "rows", "MAE", "bias"], rows, [1, 2, 3, 4])


def _how(about: About) -> list[str]:
    record, split = about.record, about.record.split
    config = record.config
    rows = [
        ["checkpoints", ", ".join(about.checkpoints)],
        ["experiment", record.experiment],
        [
            "trained on",
            f"{len(split['train'])} rows of {len(set(split['train']))} images in {config['data']['root']}",
        ],
        ["validated on", f"{len(split['validation'])} rows of {len(set(split['validation']))} images"],
        ["split", split["protocol"]],
        ["images", f"{record.image_size} × {record.image_size} pixels"],
        [
            "epochs",
            f"{len(record.epochs or [])} trained; this checkpoint is of epoch {record.epoch}",
        ],
        [
            "optimizer",
            f"{config['optimizer'].get('_target_', '')}, learning rate {config['optimizer'].get('lr', '')}",
        ],
        ["arithmetic", record.precision],
        ["seed", str(config["seed"])],
    ]
    if start := record.start:
        rows.append(["started from", f"{start.ckpt} ({start.experiment}, {start.val_mae:.2f} months)"])
    parts = [table(["", ""], rows)]
    if about.run:
        parts.append(_environment(about.run))
        parts.append(folded("run.json", json.dumps(about.run, indent=1)))
    parts.append(folded("the whole configuration", yaml.safe_dump(config, sort_keys=False)))
    return parts


def _environment(run: dict[str, Any]) -> str:
    session = run["sessions"][-1]
    hardware, data = session["hardware"], run["data"]
    seconds = sum(row["seconds"] for row in run["epochs"])
    commit = session["git"]
    rows = [
        [
            "data",
            f"{data['images']} images; SHA-256 of table {data['table_sha256'][:12]}, "
            f"of images {data['images_sha256'][:12]}",
        ],
        ["hardware", ", ".join(hardware["gpus"]) or f"{hardware['processor']}, {hardware['cores']} cores"],
        ["training time", f"{seconds / 60:.1f} minutes in {len(run['sessions'])} session(s)"],
        ["code", f"boneage_pl {session['boneage_pl']}" + (_commit(commit) if commit else "")],
        ["packages", ", ".join(f"{name} {v}" for name, v in session["packages"].items() if v)],
    ]
    return table(["", ""], rows)


def _commit(git: dict[str, Any]) -> str:
    return f", commit {git['commit'][:12]}" + (" with changes" if git["dirty"] else "")
