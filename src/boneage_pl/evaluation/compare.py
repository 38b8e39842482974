"""The compare command: runs, records and files of predictions beside each other."""

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
BUILT_BY = "built by python -m boneage_pl.compare"  # in what may be overwritten


def compare_runs(config: DictConfig) -> Path:
    """Print what `runs` names beside each other, write that as a page, and return its file.

    Raises:
        BoneAgeError: fewer than two, or one that cannot be read; see `add_known_ages` and `save_records`.
    """
    names, outputs = as_list(config.runs), Path(config.output_dir)
    paths = dict.fromkeys(shortest_path(p.resolve()) for name in names for p in _find(name, outputs))
    if len(paths) < (2 if config.save_records is None else 1):
        raise BoneAgeError(f"runs={','.join(names)}: name at least two; this names {len(paths)}.")
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
    """Return the folders and files that a name means: a path, an experiment's newest run, or a pattern."""
    path = expand_path(name)
    if path.exists():
        return [path]
    if run := newest_run(outputs, name):
        return [run]
    found = map(Path, sorted(glob(str(path), recursive=True)))  # noqa: PTH207 — of any path, absolute or not
    if not (runs := [path for path in found if path.suffix == ".csv" or _is_run(path)]):
        raise BoneAgeError(
            f"runs={name}: no run's folder, no file, no experiment with a run under {outputs}/, and no "
            "pattern that a run or a .csv matches."
        )
    return runs


def _is_run(folder: Path) -> bool:
    return any((folder / name).is_file() for name in ("metrics.csv", HYDRA_OVERRIDES))


def _make_names_unique(runs: list[RunResults]) -> None:
    """Call files that would have one name by their folders, and what is still alike by whole paths."""
    for file_names in (True, False):
        times = Counter(run.name for run in runs)
        for run in runs:
            if times[run.name] > 1 and (run.path.is_file() or not file_names):
                run.name = run.path.parent.name if file_names else str(run.path)


def _target(config: DictConfig) -> Path:
    """Return the page's file, in a folder that is there."""
    if (suffix := SUFFIXES.get(config.format)) is None:
        raise BoneAgeError(f"format={config.format}: there are {', '.join(SUFFIXES)}.")
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


@contextmanager
def _removed_if_empty(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise BoneAgeError(f"{error.filename or target} cannot be written: {error.strerror}.") from error
    finally:
        with suppress(OSError):  # it is not empty
            target.parent.rmdir()


def _write_page(runs: list[RunResults], target: Path) -> None:
    """Print the tables, and write the page that has them; of a Markdown page the figures lie beside it."""
    pairs = list(combinations(runs, 2))
    tables = {
        "results": results_table(runs),
        "tests": paired_tests(pairs),
        "tests_by_part": paired_tests_by_part(pairs),
        "differences": config_differences(runs),
    }
    turned = [list(column) for column in zip(*tables["results"], strict=True)]  # a terminal is narrow
    for table in {**tables, "results": turned}.values():
        if len(table) > 1:
            log.info("%s\n", format_table(table))
    experiments = [run.experiment for run in runs]
    drawn = {"errors": error_by_part({run.name: run.metrics for run in runs})}
    if curves := {run.name: run.history.rows for run in runs if run.history.rows}:
        drawn["curves"] = learning_curves(curves, published_stages(experiments))
    figures = {name: figure_to_png(figure) for name, figure in drawn.items()}
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
