"""The compare command: runs, or files of predictions."""

import logging
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from glob import glob
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from omegaconf import DictConfig, ListConfig

from boneage_pl.data.tables.validate import SEXES
from boneage_pl.errors import BoneAgeError
from boneage_pl.evaluation.breakdown import metrics_of
from boneage_pl.evaluation.comparison import (
    Table,
    config_differences,
    paired_tests,
    results_table,
    save_records,
)
from boneage_pl.evaluation.figures import learning_curves
from boneage_pl.evaluation.markdown import write_markdown
from boneage_pl.evaluation.paired_test import (
    REQUIRED_COLUMNS,
    holm_correction,
    paired_comparison,
    parse_numbers,
    read_predictions_csv,
)
from boneage_pl.evaluation.reference_results import curves_caption, published_stages
from boneage_pl.evaluation.run_results import RunResults, load_run_results
from boneage_pl.evaluation.templating import figure_to_png, render, with_interval
from boneage_pl.prediction.conformal import AGES, age_region
from boneage_pl.training.run_dir import unique_dir
from boneage_pl.training.runs import HYDRA_OVERRIDES, newest_run, shortest_path
from boneage_pl.utils.files import atomic_write, expand_path

log = logging.getLogger(__name__)

SUFFIXES = {"html": ".html", "markdown": ".md"}
BUILT_BY = "built by python -m boneage_pl.compare"  # in what may be overwritten


def compare_runs(config: DictConfig) -> Path:
    """Print the runs that `runs` names beside each other, write that as a page, and return its file.

    Raises:
        BoneAgeError: fewer than two runs, or one that cannot be read; see `save_records` and
            `write_markdown`.
    """
    names = [str(name) for name in (config.runs if isinstance(config.runs, ListConfig) else [config.runs])]
    outputs = Path(config.output_dir)
    folders = dict.fromkeys(shortest_path(f.resolve()) for name in names for f in _folders(name, outputs))
    if len(folders) < (2 if config.save_records is None and config.template is None else 1):
        raise BoneAgeError(f"runs={','.join(names)}: name at least two runs; this names {len(folders)}.")
    runs = [load_run_results(folder) for folder in folders]
    _make_names_unique(runs)
    target = target_of(config)
    with _open_target(target):
        if config.save_records is not None:
            for record in save_records(runs, expand_path(config.save_records)):
                log.info("%s", record)
        atomic_write(target, _build_page(runs, config, target))
    log.info("%s", target)
    return target


def write_page(target: Path, page: str) -> Path:
    """Write a page, say where it is, and return that.

    Raises:
        BoneAgeError: it cannot be written.
    """
    with _open_target(target):
        atomic_write(target, page)
    log.info("%s", target)
    return target


@contextmanager
def _open_target(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise BoneAgeError(f"{error.filename or target} cannot be written: {error.strerror}.") from error
    finally:
        with suppress(OSError):  # nothing was written into it
            target.parent.rmdir()


def _build_page(runs: list[RunResults], config: DictConfig, target: Path) -> str:
    """Print the tables, and return the page that has them."""
    tables = results_table(runs), config_differences(runs), paired_tests(runs)
    for table in (_transpose(tables[0]), *(table for table in tables[1:] if len(table) > 1)):
        log.info("%s\n", "\n".join(format_table(table)))
    if target.suffix == SUFFIXES["markdown"]:
        page = write_markdown(runs, expand_path(config.template) if config.template else None, target)
        source = f"; edit {Path(config.template).name}" if config.template else ""
        return f"<!-- {BUILT_BY}{source} -->\n{page}"
    experiments = [run.experiment for run in runs]
    curves = learning_curves({run.name: run.history.rows for run in runs}, published_stages(experiments))
    parts: dict[str, Any] = dict(zip(("results", "differences", "tests"), tables, strict=True))
    parts |= {"curves": figure_to_png(curves), "curves_caption": curves_caption(experiments)}
    return render("compare.html", title="Bone age: runs compared", built=BUILT_BY, **parts)


def _folders(name: str, outputs: Path) -> list[Path]:
    path = expand_path(name)
    if path.is_dir():
        return [path]
    if run := newest_run(outputs, name):
        return [run]
    found = sorted(glob(str(path), recursive=True))  # noqa: PTH207 — of any path, absolute or not
    folders = [folder for folder in map(Path, found) if _is_run(folder)]
    if not folders:
        raise BoneAgeError(
            f"runs={name}: no run's folder, no experiment with a run under {outputs}/, and no pattern that "
            "a run matches."
        )
    return folders


def _is_run(folder: Path) -> bool:
    return any((folder / name).is_file() for name in ("metrics.csv", HYDRA_OVERRIDES))


def _make_names_unique(runs: list[RunResults]) -> None:
    """Call runs that would have one name by their whole paths."""
    times = Counter(run.name for run in runs)
    for run in runs:
        if times[run.name] > 1:
            run.name = str(run.folder)


def target_of(config: DictConfig) -> Path:
    """Return the page's file, in a folder that is there."""
    if (suffix := SUFFIXES.get(config.format)) is None:
        raise BoneAgeError(f"format={config.format}: there are {', '.join(SUFFIXES)}.")
    if config.template is not None and suffix != SUFFIXES["markdown"]:
        raise BoneAgeError("template= is of a Markdown page: add format=markdown.")
    if config.out is None:
        comparisons = Path(config.output_dir) / "comparisons"
        return unique_dir(comparisons / f"{datetime.now():%Y-%m-%d_%H-%M-%S}") / f"compare{suffix}"
    target = expand_path(config.out)
    if target.suffix not in SUFFIXES.values():
        target = target / f"compare{suffix}"
    if target.suffix != suffix:
        raise BoneAgeError(f"out={config.out}: format={config.format} is written as {suffix}.")
    if target.exists() and BUILT_BY not in target.read_text(encoding="utf-8", errors="replace")[:1000]:
        raise BoneAgeError(f"out={config.out} was not {BUILT_BY}, and is not overwritten. Choose another.")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BoneAgeError(f"out={config.out} cannot be written: {error.strerror}.") from error
    return target


def _transpose(table: Table) -> Table:
    """Return a table with its columns as rows: a terminal is narrow, and runs are few."""
    return [list(column) for column in zip(*table, strict=True)]


def format_table(table: Table) -> list[str]:
    """Return a table's lines for a terminal."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in table]


STATISTICS = ("mae", "bias", "rmse")


def compare_prediction_files(config: DictConfig) -> Path:
    """Compare files of predictions on the images that all of them have; print it, and write a page.

    Returns:
        The page.

    Raises:
        BoneAgeError: fewer than two files, one that cannot be read (see `read_predictions_csv`), none with
            bone ages, or no image that all have; options of a comparison of runs.
    """
    named = config.predictions if isinstance(config.predictions, ListConfig) else [config.predictions]
    paths = list(dict.fromkeys(expand_path(str(name)) for name in named))
    if len(paths) < 2:
        raise BoneAgeError(f"predictions={','.join(map(str, paths))}: name at least two files.")
    if config.format != "html" or config.template is not None or config.save_records is not None:
        raise BoneAgeError("predictions=: format=, template= and save_records= are for runs.")
    table = _ages(paths)
    months = {path: read_predictions_csv(path, table, option="predictions") for path in paths}
    shared = set(table["id"]).intersection(*(of_one.index for of_one in months.values()))
    if not shared:
        raise BoneAgeError("predictions=: there is no image that all of these files have.")
    rows = table[table["id"].isin(shared)]
    predictions = {
        _short_name(path, paths): _with_predictions(rows, of_one) for path, of_one in months.items()
    }
    tables = metrics_side_by_side(predictions), paired_tests_by_subgroup(predictions)
    target = target_of(config)
    for shown in tables:
        log.info("%s\n", "\n".join(format_table(shown)))
    page = render(
        "predictions.html",
        title="Bone age: predictions compared",
        built=BUILT_BY,
        files={_short_name(path, paths): str(path) for path in paths},
        images=len(rows),
        results=tables[0],
        tests=tables[1],
    )
    return write_page(target, page)


def metrics_side_by_side(predictions: Mapping[str, pd.DataFrame]) -> Table:
    """Return a row for each file: its MAE, bias and root mean squared error in months, with intervals."""
    metrics = {name: metrics_of(rows) for name, rows in predictions.items()}
    cells = {
        name: [with_interval(of_one[key], sign="+" if key == "bias" else "") for key in STATISTICS]
        for name, of_one in metrics.items()
    }
    return [["predictions", "MAE, months", "bias", "RMSE"], *([name, *row] for name, row in cells.items())]


def paired_tests_by_subgroup(predictions: Mapping[str, pd.DataFrame]) -> Table:
    """Return a row for each two files and each part of the images: the difference of their MAE, and p.

    p is also adjusted for all tests of the table (Holm).
    """
    tests = [
        (f"{one} − {other}", part, paired_comparison(these[mask], those[mask]))
        for (one, these), (other, those) in combinations(predictions.items(), 2)
        for part, mask in _subgroups(these)
    ]
    adjusted = iter(holm_correction([test["p"] for *_, test in tests if test["p"] is not None]))
    table: Table = [["predictions", "of", "images", "difference of MAE, months", "p", "p (Holm)"]]
    for pair, part, test in tests:
        known = test["p"] is not None
        p = [f"{test['p']:.4f}", f"{next(adjusted):.4f}"] if known else ["–", "–"]
        difference = with_interval(test["difference"], sign="+") if known else "–"
        table.append([pair, part, str(test["images"]), difference, *p])
    return table


def _subgroups(rows: pd.DataFrame) -> Iterator[tuple[str, Any]]:
    """Yield parts of the images by name: all, by sex where it is known, by age, by both."""
    sexes = {"girls": ~rows["male"].astype(bool), "boys": rows["male"].astype(bool)} if "male" in rows else {}
    bands = {name: age_region(rows["bone_age"]) == at for at, (name, _) in enumerate(AGES)}
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
            known = table[["id"]].assign(bone_age=parse_numbers(table, "bone_age", f"predictions={path}"))
            if "male" in table:
                known["male"] = table["male"].str.casefold().map(SEXES)
                if known["male"].isna().any():
                    first = known["id"][known["male"].isna()].iloc[0]
                    raise BoneAgeError(
                        f"predictions={path}: male says no sex for {first}; it is True or False."
                    )
            return known.drop_duplicates("id").sort_values("id").reset_index(drop=True)
    raise BoneAgeError(
        "predictions=: no file has bone ages beside the predictions (id, predicted, bone_age), as the "
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
