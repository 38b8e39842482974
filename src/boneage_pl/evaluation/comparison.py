"""Tables and paired tests between runs, and their committed records."""

import json
import shutil
from collections.abc import Iterable
from itertools import combinations
from pathlib import Path
from typing import Any

import pandas as pd
from PIL import Image

from boneage_pl.errors import BoneAgeError
from boneage_pl.evaluation.paired_test import MIN_PAIRS, holm_correction, mismatched_ages, paired_comparison
from boneage_pl.evaluation.run_results import PAIRED_TESTS, RunResults
from boneage_pl.evaluation.templating import with_interval
from boneage_pl.training.run_dir import RESUMABLE_OPTIONS

_OWN = {"output_dir", "pretrained", "requires_ckpt_of", "suggested_next", *RESUMABLE_OPTIONS}
_OWN -= {"trainer.max_epochs", "data.root"}

Table = list[list[str]]  # its first row is the head


def results_table(runs: Iterable[RunResults]) -> Table:
    """Return a row for each run: how far off it is, when it was best, its time, and what came of it."""
    head = ["run", "best MAE, months", "epoch, from 0", "natural ages", "time", "device", "outcome"]
    return [head, *(_result_row(run) for run in runs)]


def _result_row(run: RunResults) -> list[str]:
    best = f"{run.best['epoch']} of {run.epochs}" if run.best else "–"
    minutes = "not recorded" if run.minutes is None else f"{run.minutes:.1f} min"
    return [
        run.name,
        with_interval(run.mae),
        best,
        with_interval(run.population_weighted_mae),
        minutes,
        run.device,
        run.state,
    ]


def config_differences(runs: list[RunResults]) -> Table:
    """Return a row for each choice in which the runs' configurations differ, and a column for each run."""
    keys = dict.fromkeys(key for run in runs for key in run.config)
    rows = [
        [key, *(str(run.config.get(key, "–")) for run in runs)]
        for key in keys
        if key not in _OWN and not key.endswith("._partial_")
    ]
    return [["choice", *(run.name for run in runs)], *(row for row in rows if len(set(row[1:])) > 1)]


def paired_tests(runs: Iterable[RunResults]) -> Table:
    """Return a row for each two runs: the difference of their MAE on the images that both validate on, and p.

    p is also adjusted for the number of tests (Holm); a test that cannot be made says why.
    """
    pairs = [(one, other, diff_options(one, other)) for one, other in combinations(runs, 2)]
    made = [test["p"] for _, _, test in pairs if test.get("p") is not None]
    adjusted = iter(holm_correction(made))
    head = ["runs", "difference of MAE, months", "p", "p (Holm)", "images"]
    return [head, *(_test(one, other, test, adjusted, len(made)) for one, other, test in pairs)]


def _test(one: RunResults, other: RunResults, test: dict[str, Any], adjusted: Any, made: int) -> list[str]:
    pair = f"{one.name} − {other.name}"
    if test.get("p") is None:
        return [pair, "–", "–", "–", test["why"]]
    images = f"{test['images']} ({'all of both' if test['all'] else 'shared'})"
    several = f"{next(adjusted):.4f}" if made > 1 else "–"
    return [pair, with_interval(test["difference"], sign="+"), f"{test['p']:.4f}", several, images]


def diff_options(one: RunResults, other: RunResults) -> dict[str, Any]:
    """Test two runs' absolute errors on the images that both validate on, and neither trained on.

    Returns:
        see `paired_comparison`; where there is no test `why`, in words, and `p` is `None` or missing.
    """
    for run in (one, other):
        if run.summary is None:
            return {"why": f"{run.name} is not finished"}
    mine, theirs = one.predictions, other.predictions
    if mine is None or theirs is None:
        return _shown_value(one, other)
    ages = (predictions.drop_duplicates("id").set_index("id")["bone_age"] for predictions in (mine, theirs))
    if mismatched_ages(*ages):
        return {"why": "their data show other children under the same ids"}
    test = paired_comparison(_exclude_seen(mine), _exclude_seen(theirs))
    if test["difference"] is not None:
        return test
    if test["images"] < MIN_PAIRS:
        few = f"only {test['images']}" if test["images"] else "no"
        return {**test, "why": f"{few} validation images in common"}
    return {**test, "why": "predictions that are not numbers"}


def _shown_value(one: RunResults, other: RunResults) -> dict[str, Any]:
    """Return the test that was made when a record of one of them was kept."""
    if other.name in one.paired_tests:
        return dict(one.paired_tests[other.name])
    if one.name in other.paired_tests:
        test = dict(other.paired_tests[one.name])
        if test.get("difference"):
            value, low, high = (test["difference"][key] for key in ("value", "low", "high"))
            test["difference"] = {"value": -value, "low": -high, "high": -low}
        return test
    return {"why": "records keep no predictions by id, and these two were not recorded together"}


def _exclude_seen(predictions: pd.DataFrame) -> pd.DataFrame:
    return predictions[~predictions["seen_in_training"].astype(bool)]


# What is of a run's report; its worst cases show radiographs, its predictions and its page name them.
FIGURES = ("predicted_against_true", "bland_altman", "error_by_age", "groups", "learning_curves")
FILES = {
    ".hydra/config.yaml": "config.yaml",
    "metrics.csv": "metrics.csv",
    "run.json": "run.json",
    "report/metrics.json": "metrics.json",
    "report/summary.json": "summary.json",
}
MAX_FILE_BYTES = 300_000  # bytes


def save_records(runs: list[RunResults], folder: Path) -> list[Path]:
    """Write a record of each run, with its tests against the others, into a folder of its name; return these.

    A record has the configuration, the epochs, versions, hardware and times, the report's numbers and the
    figures that show no radiograph: no image, no id, no weights. One that is there is replaced; its tests
    against runs that are not among these stay.

    Raises:
        BoneAgeError: a run is not finished, or is a record itself; two would have one name.
    """
    names = {run.name: run.name.replace("/", "_") for run in runs}
    for run in runs:
        if run.summary is None:
            raise BoneAgeError(f"save_records={folder}: {run.folder} is not finished ({run.state}).")
        if run.predictions is None:
            raise BoneAgeError(
                f"save_records={folder}: {run.folder} is a record already. Name the run's folder."
            )
    if len(set(names.values())) < len(names):
        raise BoneAgeError(f"save_records={folder}: two of the runs would have one name.")
    return [
        _save_record(run, [other for other in runs if other is not run], folder / names[run.name])
        for run in runs
    ]


def _save_record(run: RunResults, others: list[RunResults], target: Path) -> Path:
    before = target / PAIRED_TESTS
    tests = json.loads(before.read_text(encoding="utf-8")) if before.is_file() else {}
    tests |= {other.name.replace("/", "_"): diff_options(run, other) for other in others}
    new = target.with_name(f".{target.name}.new")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    for source, name in FILES.items():
        if (run.folder / source).is_file():
            shutil.copyfile(run.folder / source, new / name)
    for name in FIGURES:
        figure = run.folder / "report" / f"{name}.png"
        if figure.is_file():
            with Image.open(figure) as image:  # 64 colors draw these as well, in a third of the bytes
                image.convert("RGB").quantize(64).save(new / figure.name, optimize=True)
    if tests:
        text = json.dumps(dict(sorted(tests.items())), indent=1)
        (new / PAIRED_TESTS).write_text(text + "\n", encoding="utf-8")
    if (size := sum(file.stat().st_size for file in new.iterdir())) > MAX_FILE_BYTES:
        raise BoneAgeError(f"{new} has {size} bytes, more than the {MAX_FILE_BYTES} of a record.")
    shutil.rmtree(target, ignore_errors=True)
    new.rename(target)
    return target
