"""The compare command, for runs, records and files of predictions."""

import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from glob import glob
from itertools import combinations
from pathlib import Path

from omegaconf import DictConfig

from boneage_pl.cli.overrides import as_list
from boneage_pl.errors import BoneAgeError
from boneage_pl.evaluation.comparison import (
    config_differences,
    paired_tests,
    paired_tests_by_part,
    results_table,
)
from boneage_pl.evaluation.figures import error_by_part, learning_curves
from boneage_pl.evaluation.records import save_records
from boneage_pl.evaluation.reference_results import curves_caption, published_stages
from boneage_pl.evaluation.run_results import RunResults, add_known_ages, load_results
from boneage_pl.evaluation.templating import environment, figure_to_png, format_table
from boneage_pl.training.run_dir import unique_dir
from boneage_pl.training.runs import HYDRA_OVERRIDES, newest_run, shortest_path
from boneage_pl.utils.files import atomic_write, expand_path

log = logging.getLogger(__name__)

SUFFIXES = {"html": ".html", "markdown": ".md"}
BUILT_BY = "built by python -m boneage_pl.compare"  # marks pages that may be overwritten


def compare_runs(config: DictConfig) -> Path:
    """Compare what `runs` names on the console and as a page, and return the page's path.

    Raises:
        BoneAgeError: fewer than two, or an unreadable one; see `add_known_ages` and `save_records`.
    """
    names, outputs = as_list(config.runs), Path(config.output_dir)
    paths = dict.fromkeys(shortest_path(p.resolve()) for name in names for p in _find(name, outputs))
    if len(paths) < (2 if config.save_records is None else 1):
        raise BoneAgeError(f"runs={','.join(names)}: at least two are needed, got {len(paths)}.")
    runs = [load_results(path) for path in paths]
    _make_names_unique(runs)
    add_known_ages(runs)
    target = _target(config)
    with _removed_if_empty(target):
        if config.save_records is not None:
            for record in save_records(runs, expand_path(config.save_records)):
                log.info("%s", record)
        _write_page(runs, target)
    log.info("%s", target)
    return target


def _find(name: str, outputs: Path) -> list[Path]:
    """Return the folders and files of a name: a path, an experiment (its newest run), or a pattern."""
    path = expand_path(name)
    if path.exists():
        return [path]
    if run := newest_run(outputs, name):
        return [run]
    matches = map(Path, sorted(glob(str(path), recursive=True)))  # noqa: PTH207 — absolute patterns too
    if not (runs := [path for path in matches if path.suffix == ".csv" or _is_run(path)]):
        raise BoneAgeError(
            f"runs={name}: not a run folder, a file, an experiment with a run under {outputs}/, or a pattern "
            "that matches runs or .csv files."
        )
    return runs


def _is_run(folder: Path) -> bool:
    return any((folder / name).is_file() for name in ("metrics.csv", HYDRA_OVERRIDES))


def _make_names_unique(runs: list[RunResults]) -> None:
    """Make names unique: first name files by their folders, then everything by its path."""
    for by_folder in (True, False):
        counts = Counter(run.name for run in runs)
        for run in runs:
            if counts[run.name] > 1 and (run.path.is_file() or not by_folder):
                run.name = run.path.parent.name if by_folder else str(run.path)


def _target(config: DictConfig) -> Path:
    """Return the page's path, in an existing folder."""
    if (suffix := SUFFIXES.get(config.format)) is None:
        raise BoneAgeError(f"format={config.format}: there are {', '.join(SUFFIXES)}.")
    if config.out is None:
        comparisons = Path(config.output_dir) / "comparisons"
        return unique_dir(comparisons / f"{datetime.now():%Y-%m-%d_%H-%M-%S}") / f"compare{suffix}"
    target = expand_path(config.out)
    if target.suffix not in SUFFIXES.values():
        target = target / f"compare{suffix}"
    if target.suffix != suffix:
        raise BoneAgeError(f"out={config.out}: format={config.format} needs the suffix {suffix}.")
    if target.exists() and BUILT_BY not in target.read_text(encoding="utf-8", errors="replace")[:1000]:
        raise BoneAgeError(f"out={config.out} was not {BUILT_BY} and is not overwritten. Choose another.")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BoneAgeError(f"out={config.out} cannot be written: {error.strerror}.") from error
    return target


@contextmanager
def _removed_if_empty(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise BoneAgeError(f"{error.filename or target} cannot be written: {error.strerror}.") from error
    finally:
        with suppress(OSError):  # not empty
            target.parent.rmdir()


def _write_page(runs: list[RunResults], target: Path) -> None:
    """Print the tables and write the page; figures of a Markdown page are separate files."""
    pairs = list(combinations(runs, 2))
    tables = {
        "results": results_table(runs),
        "tests": paired_tests(pairs),
        "tests_by_part": paired_tests_by_part(pairs),
        "differences": config_differences(runs),
    }
    transposed = [list(column) for column in zip(*tables["results"], strict=True)]  # fits a terminal
    for table in {**tables, "results": transposed}.values():
        if len(table) > 1:
            log.info("%s\n", format_table(table))
    experiments = [run.experiment for run in runs]
    charts = {"errors": error_by_part({run.name: run.metrics for run in runs})}
    if curves := {run.name: run.history.rows for run in runs if run.history.rows}:
        charts["curves"] = learning_curves(curves, published_stages(experiments))
    figures = {name: figure_to_png(figure) for name, figure in charts.items()}
    html = target.suffix == SUFFIXES["html"]
    page = environment("boneage_pl.evaluation", escaped=html).get_template(f"compare{target.suffix}")
    text = page.render(
        title=f"Bone age: {len(runs)} models compared",
        built=BUILT_BY,
        **tables,
        figures=figures if html else {name: f"{target.stem}_{name}.png" for name in figures},
        curves_caption=curves_caption(experiments),
        paths={run.name: str(run.path) for run in runs},
    )
    for name, figure in figures.items() if not html else ():
        atomic_write(target.with_name(f"{target.stem}_{name}.png"), figure)
    atomic_write(target, text)
