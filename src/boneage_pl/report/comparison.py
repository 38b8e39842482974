"""Runs beside each other: what came of each, what differs between them, paired tests of each two."""

from collections.abc import Iterable
from itertools import combinations
from typing import Any

import pandas as pd

from boneage_pl.report.html import with_interval
from boneage_pl.report.outcome import RunResults
from boneage_pl.report.pairing import MIN_PAIRS, holm_correction, mismatched_ages, paired_comparison
from boneage_pl.training.run_dir import RESUMABLE_OPTIONS

_OWN = {"outputs", "pretrained", "starts_from", "next_experiment", *RESUMABLE_OPTIONS}
_OWN -= {"trainer.max_epochs", "data.root"}

Table = list[list[str]]  # its first row is the head


def results_table(runs: Iterable[RunResults]) -> Table:
    """Return a row for each run: how far off it is, when it was best, its time, and what came of it."""
    head = ["run", "best MAE, months", "epoch", "natural ages", "time", "device", "outcome"]
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
    head = ["runs", "difference of MAE, months", "p", "p, of several tests", "images"]
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
    ages = (answers.drop_duplicates("id").set_index("id")["bone_age"] for answers in (mine, theirs))
    if mismatched_ages(*ages):
        return {"why": "their data show other children under the same ids"}
    found = paired_comparison(_exclude_seen(mine), _exclude_seen(theirs))
    if found["difference"] is not None:
        return found
    if found["images"] < MIN_PAIRS:
        few = f"only {found['images']}" if found["images"] else "no"
        return {**found, "why": f"{few} validation images in common"}
    return {**found, "why": "answers that are not numbers"}


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
    return {"why": "records keep no answers by id, and these two were not recorded together"}


def _exclude_seen(answers: pd.DataFrame) -> pd.DataFrame:
    return answers[~answers["seen_in_training"].astype(bool)]
