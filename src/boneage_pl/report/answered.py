"""Files of answers about the same radiographs beside each other, whoever has answered."""

import logging
from collections.abc import Iterator, Mapping
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from omegaconf import DictConfig, ListConfig

from boneage_pl.data.rows import sexes
from boneage_pl.errors import BoneageError
from boneage_pl.machine.home import path_of
from boneage_pl.reading.intervals import AGES
from boneage_pl.report.against import NEEDED, numbers, read_answers
from boneage_pl.report.comparing import BUILT, target_of, told, written
from boneage_pl.report.comparison import Table
from boneage_pl.report.html import render, with_interval
from boneage_pl.report.measures import age_band, statistics_of
from boneage_pl.report.pairing import holm, paired

log = logging.getLogger(__name__)

STATISTICS = ("mae", "bias", "rmse")


def compare_answers(config: DictConfig) -> Path:
    """Print how far off the answers of several files are on the images that all of them have, and write it.

    Returns:
        The page.

    Raises:
        BoneageError: fewer than two files, one that cannot be read (see `read_answers`), none with bone ages,
            or no image that all have; options of a comparison of runs.
    """
    named = config.answers if isinstance(config.answers, ListConfig) else [config.answers]
    paths = list(dict.fromkeys(path_of(str(name)) for name in named))
    if len(paths) < 2:
        raise BoneageError(f"answers={','.join(map(str, paths))}: name at least two files.")
    if config.format != "html" or config.template is not None or config.keep is not None:
        raise BoneageError("answers=: format=, template= and keep= are of runs.")
    asked = _ages(paths)
    months = {path: read_answers(path, asked, option="answers") for path in paths}
    shared = set(asked["id"]).intersection(*(of_one.index for of_one in months.values()))
    if not shared:
        raise BoneageError("answers=: there is no image that all of these files have.")
    rows = asked[asked["id"].isin(shared)]
    answers = {_name(path, paths): _answered(rows, of_one) for path, of_one in months.items()}
    tables = beside(answers), by_part(answers)
    target = target_of(config)
    for table in tables:
        log.info("%s\n", "\n".join(told(table)))
    page = render(
        "answers.html",
        title="Bone age: answers compared",
        built=BUILT,
        files={_name(path, paths): str(path) for path in paths},
        images=len(rows),
        results=tables[0],
        tests=tables[1],
    )
    return written(target, page)


def beside(answers: Mapping[str, pd.DataFrame]) -> Table:
    """Return a row for each file: its MAE, bias and root mean squared error in months, with intervals."""
    found = {name: statistics_of(rows) for name, rows in answers.items()}
    cells = {
        name: [with_interval(of_one[key], sign="+" if key == "bias" else "") for key in STATISTICS]
        for name, of_one in found.items()
    }
    return [["answers", "MAE, months", "bias", "RMSE"], *([name, *row] for name, row in cells.items())]


def by_part(answers: Mapping[str, pd.DataFrame]) -> Table:
    """Return a row for each two files and each part of the images: the difference of their MAE, and p.

    p is also adjusted for the number of parts (Holm).
    """
    table: Table = [["answers", "of", "images", "difference of MAE, months", "p", "p, of several tests"]]
    for (one, these), (other, those) in combinations(answers.items(), 2):
        found = {part: paired(these[mask], those[mask]) for part, mask in _parts(these)}
        made = [test["p"] for test in found.values() if test["p"] is not None]
        adjusted = iter(holm(made))
        for part, test in found.items():
            known = test["p"] is not None
            p = [f"{test['p']:.4f}", f"{next(adjusted):.4f}"] if known else ["–", "–"]
            difference = with_interval(test["difference"], sign="+") if known else "–"
            table.append([f"{one} − {other}", part, str(test["images"]), difference, *p])
    return table


def _parts(rows: pd.DataFrame) -> Iterator[tuple[str, Any]]:
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
        BoneageError: none has, or an age or sex in it is none.
    """
    for path in paths:
        try:
            table = pd.read_csv(path, dtype={"id": str, "male": str})
        except (OSError, ValueError):
            continue  # `read_answers` says what is wrong with it
        if {*NEEDED, "bone_age"} <= set(table):
            known = table[["id"]].assign(bone_age=numbers(table, "bone_age", f"answers={path}"))
            if "male" in table:
                known["male"] = sexes(table["male"])
                if known["male"].isna().any():
                    first = known["id"][known["male"].isna()].iloc[0]
                    raise BoneageError(f"answers={path}: male says no sex for {first}; it is True or False.")
            return known.drop_duplicates("id").sort_values("id").reset_index(drop=True)
    raise BoneageError(
        "answers=: none of these files has bone ages beside the answers (id, predicted, bone_age), as the "
        "predictions.csv of\nan evaluation has."
    )


def _answered(rows: pd.DataFrame, months: pd.Series) -> pd.DataFrame:
    predicted = rows["id"].map(months)
    return rows.assign(predicted=predicted, error=predicted - rows["bone_age"], image=rows["id"])


def _name(path: Path, among: list[Path]) -> str:
    """Return the shortest name that tells a file among others: reports' files are all called alike."""
    names = [path.stem, path.parent.name, f"{path.parent.name}/{path.name}", str(path)]
    others = [other for other in among if other != path]
    same = [[o.stem, o.parent.name, f"{o.parent.name}/{o.name}", str(o)] for o in others]
    return next(name for at, name in enumerate(names) if name and all(of[at] != name for of in same))
