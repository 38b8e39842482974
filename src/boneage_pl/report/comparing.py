"""The comparison that a user asks for: which runs, on the console, and as a page."""

import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig

from boneage_pl.errors import BoneAgeError
from boneage_pl.report.comparison import Table, config_differences, paired_tests, results_table
from boneage_pl.report.figures import learning_curves
from boneage_pl.report.html import figure_to_png, render
from boneage_pl.report.keeping import save_records
from boneage_pl.report.markdown import write_markdown
from boneage_pl.report.outcome import RunResults, load_run_results
from boneage_pl.training.published import curves_caption, published_stages
from boneage_pl.training.run_dir import unique_dir
from boneage_pl.training.runs import HYDRA_OVERRIDES, newest_run, shortest_path
from boneage_pl.utils.files import atomic_write, expand_path

log = logging.getLogger(__name__)

SUFFIXES = {"html": ".html", "markdown": ".md"}
PAGE_SUFFIXES = "built by python -m boneage_pl.compare"  # in what may be overwritten


def compare_runs(config: DictConfig) -> Path:
    """Print the runs that `runs` names beside each other, write that as a page, and return its file.

    Raises:
        BoneAgeError: fewer than two runs, or one that cannot be read; see `save_records` and
            `write_markdown`.
    """
    names = [str(name) for name in (config.runs if isinstance(config.runs, ListConfig) else [config.runs])]
    outputs = Path(config.outputs)
    folders = dict.fromkeys(shortest_path(f.resolve()) for name in names for f in _folders(name, outputs))
    if len(folders) < (2 if config.keep is None and config.template is None else 1):
        raise BoneAgeError(f"runs={','.join(names)}: name at least two runs; this names {len(folders)}.")
    runs = [load_run_results(folder) for folder in folders]
    _make_names_unique(runs)
    target = target_of(config)
    with _open_target(target):
        if config.keep is not None:
            for record in save_records(runs, expand_path(config.keep)):
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
    found = results_table(runs), config_differences(runs), paired_tests(runs)
    for table in (_transpose(found[0]), *(table for table in found[1:] if len(table) > 1)):
        log.info("%s\n", "\n".join(format_table(table)))
    if target.suffix == SUFFIXES["markdown"]:
        page = write_markdown(runs, expand_path(config.template) if config.template else None, target)
        source = f"; edit {Path(config.template).name}" if config.template else ""
        return f"<!-- {PAGE_SUFFIXES}{source} -->\n{page}"
    experiments = [run.experiment for run in runs]
    curves = learning_curves({run.name: run.history.rows for run in runs}, published_stages(experiments))
    parts: dict[str, Any] = dict(zip(("results", "differences", "tests"), found, strict=True))
    parts |= {"curves": figure_to_png(curves), "curves_caption": curves_caption(experiments)}
    return render("compare.html", title="Bone age: runs compared", built=PAGE_SUFFIXES, **parts)


def _folders(name: str, outputs: Path) -> list[Path]:
    path = expand_path(name)
    if path.is_dir():
        return [path]
    if run := newest_run(outputs, name):
        return [run]
    at = Path(path.anchor)
    found = sorted(p for p in at.glob(str(path.relative_to(at))) if _is_run(p)) if "*" in name else []
    if not found:
        raise BoneAgeError(
            f"runs={name}: no run's folder, no experiment with a run under {outputs}/, and no pattern that "
            "a run matches."
        )
    return found


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
        comparisons = Path(config.outputs) / "comparisons"
        return unique_dir(comparisons / f"{datetime.now():%Y-%m-%d_%H-%M-%S}") / f"compare{suffix}"
    target = expand_path(config.out)
    if target.suffix not in SUFFIXES.values():
        target = target / f"compare{suffix}"
    if target.suffix != suffix:
        raise BoneAgeError(f"out={config.out}: format={config.format} is written as {suffix}.")
    if target.exists() and PAGE_SUFFIXES not in target.read_text(encoding="utf-8", errors="replace")[:1000]:
        raise BoneAgeError(
            f"out={config.out} was not {PAGE_SUFFIXES}, and is not overwritten. Choose another."
        )
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
