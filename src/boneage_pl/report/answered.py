"""Files of answers about the same radiographs beside each other, whoever has answered."""

import logging
from collections.abc import Iterator, Mapping
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from omegaconf import DictConfig, ListConfig

from boneage_pl.data.tables.validate import parse_sexes
from boneage_pl.errors import BoneAgeError
from boneage_pl.reading.intervals import AGES
from boneage_pl.report.against import REQUIRED_COLUMNS, parse_numbers, read_predictions_csv
from boneage_pl.report.comparing import PAGE_SUFFIXES, format_table, target_of, write_page
from boneage_pl.report.comparison import Table
from boneage_pl.report.html import render, with_interval
from boneage_pl.report.measures import age_band, metrics_of
from boneage_pl.report.pairing import holm_correction, paired_comparison
from boneage_pl.utils.files import expand_path

log = logging.getLogger(__name__)

STATISTICS = ("mae", "bias", "rmse")


def compare_prediction_files(config: DictConfig) -> Path:
    """Print how far off the answers of several files are on the images that all of them have, and write it.

    Returns:
        The page.

    Raises:
        BoneAgeError: fewer than two files, one that cannot be read (see `read_predictions_csv`), none with
            bone ages, or no image that all have; options of a comparison of runs.
    """
    named = config.answers if isinstance(config.answers, ListConfig) else [config.answers]
    paths = list(dict.fromkeys(expand_path(str(name)) for name in named))
    if len(paths) < 2:
        raise BoneAgeError(f"answers={','.join(map(str, paths))}: name at least two files.")
    if config.format != "html" or config.template is not None or config.keep is not None:
        raise BoneAgeError("answers=: format=, template= and keep= are of runs.")
    table = _ages(paths)
    months = {path: read_predictions_csv(path, table, option="answers") for path in paths}
    shared = set(table["id"]).intersection(*(of_one.index for of_one in months.values()))
    if not shared:
        raise BoneAgeError("answers=: there is no image that all of these files have.")
    rows = table[table["id"].isin(shared)]
    answers = {_short_name(path, paths): _with_predictions(rows, of_one) for path, of_one in months.items()}
    tables = metrics_side_by_side(answers), paired_tests_by_subgroup(answers)
    target = target_of(config)
    for shown in tables:
        log.info("%s\n", "\n".join(format_table(shown)))
    page = render(
        "answers.html",
        title="Bone age: answers compared",
        built=PAGE_SUFFIXES,
        files={_short_name(path, paths): str(path) for path in paths},
        images=len(rows),
        results=tables[0],
        tests=tables[1],
    )
    return write_page(target, page)


def metrics_side_by_side(answers: Mapping[str, pd.DataFrame]) -> Table:
    """Return a row for each file: its MAE, bias and root mean squared error in months, with intervals."""
    found = {name: metrics_of(rows) for name, rows in answers.items()}
    cells = {
        name: [with_interval(of_one[key], sign="+" if key == "bias" else "") for key in STATISTICS]
        for name, of_one in found.items()
    }
    return [["answers", "MAE, months", "bias", "RMSE"], *([name, *row] for name, row in cells.items())]


def paired_tests_by_subgroup(answers: Mapping[str, pd.DataFrame]) -> Table:
    """Return a row for each two files and each part of the images: the difference of their MAE, and p.

    p is also adjusted for the number of parts (Holm).
    """
    table: Table = [["answers", "of", "images", "difference of MAE, months", "p", "p, of several tests"]]
    for (one, these), (other, those) in combinations(answers.items(), 2):
        found = {part: paired_comparison(these[mask], those[mask]) for part, mask in _subgroups(these)}
        made = [test["p"] for test in found.values() if test["p"] is not None]
        adjusted = iter(holm_correction(made))
        for part, test in found.items():
            known = test["p"] is not None
            p = [f"{test['p']:.4f}", f"{next(adjusted):.4f}"] if known else ["–", "–"]
            difference = with_interval(test["difference"], sign="+") if known else "–"
            table.append([f"{one} − {other}", part, str(test["images"]), difference, *p])
    return table


def _subgroups(rows: pd.DataFrame) -> Iterator[tuple[str, Any]]:
    """Yield parts of the images by name: all, by sex where it is known, by age, by both."""
    sexes = {"girls": ~rows["male"].astype(bool), "boys": rows["male"].astype(bool)} if "male" in rows else {}
    bands = {name: age_band(rows) == at for at, (name, _) in enumerate(AGES)}
    yield "all", np.ones(len(rows), dtype=bool)
    yield from sexes.items()
    yield from bands.items()
    for sex, of_sex in sexes.items():
        yield from ((f"{sex} {age}", of_sex.to_numpy() & of_age) for age, of_age in bands.items())


def _ages(paths: list[Path]) -> pd.DataFrame:
    """Return `id, bone_age`, and `male` where it is there, of the first file that has bone ages.

    Raises:
        BoneAgeError: none has, or an age or sex in it is none.
    """
    for path in paths:
        try:
            table = pd.read_csv(path, dtype={"id": str, "male": str})
        except (OSError, ValueError):
            continue  # `read_predictions_csv` says what is wrong with it
        if {*REQUIRED_COLUMNS, "bone_age"} <= set(table):
            known = table[["id"]].assign(bone_age=parse_numbers(table, "bone_age", f"answers={path}"))
            if "male" in table:
                known["male"] = parse_sexes(table["male"])
                if known["male"].isna().any():
                    first = known["id"][known["male"].isna()].iloc[0]
                    raise BoneAgeError(f"answers={path}: male says no sex for {first}; it is True or False.")
            return known.drop_duplicates("id").sort_values("id").reset_index(drop=True)
    raise BoneAgeError(
        "answers=: none of these files has bone ages beside the answers (id, predicted, bone_age), as the "
        "predictions.csv of\nan evaluation has."
    )


def _with_predictions(rows: pd.DataFrame, months: pd.Series) -> pd.DataFrame:
    predicted = rows["id"].map(months)
    return rows.assign(predicted=predicted, error=predicted - rows["bone_age"], image=rows["id"])


def _short_name(path: Path, among: list[Path]) -> str:
    """Return the shortest name that tells a file among others: reports' files are all called alike."""
    names = [path.stem, path.parent.name, f"{path.parent.name}/{path.name}", str(path)]
    others = [other for other in among if other != path]
    same = [[o.stem, o.parent.name, f"{o.parent.name}/{o.name}", str(o)] for o in others]
    return next(name for at, name in enumerate(names) if name and all(of[at] != name for of in same))
