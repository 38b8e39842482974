"""Tables that compare runs and other models, with paired tests."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import pandas as pd

from boneage_pl.evaluation.paired_test import MIN_PAIRS, holm_correction, mismatched_ages, paired_comparison
from boneage_pl.evaluation.run_results import RunResults
from boneage_pl.evaluation.templating import Table, with_interval
from boneage_pl.prediction.conformal import AGES, age_region
from boneage_pl.training.run_dir import RESUMABLE_OPTIONS

_OWN = {"output_dir", "pretrained", "requires_ckpt_of", "suggested_next", *RESUMABLE_OPTIONS}
_OWN -= {"trainer.max_epochs", "data.root"}

Pairs = Iterable[tuple[RunResults, RunResults]]


def results_table(runs: Iterable[RunResults]) -> Table:
    """Return a row per run: errors in months, best epoch, time and outcome, without empty columns."""
    head = ["run", "images", "MAE, months", "bias", "natural ages", "epoch, from 0", "time", "device"]
    table = [[*head, "outcome"], *map(_result_row, runs)]
    filled = [any(cell != "–" for cell in column[1:]) for column in zip(*table, strict=True)]
    return [[cell for cell, keep in zip(row, filled, strict=True) if keep] for row in table]


def _result_row(run: RunResults) -> list[str]:
    weighted = run.metrics.get("population_weighted") or {}
    images = run.metrics.get("images")
    return [
        run.name,
        f"{images:,}" if images else "–",
        with_interval(run.mae),
        with_interval(run.metrics.get("overall", {}).get("bias"), sign="+"),
        with_interval(weighted.get("mae")),
        f"{run.best['epoch']} of {run.epochs}" if run.best else "–",
        "–" if run.minutes is None else f"{run.minutes:.1f} min",
        run.device or "–",
        run.state,
    ]


def config_differences(runs: Iterable[RunResults]) -> Table:
    """Return a row per option in which the configurations differ, with a column per run."""
    configured = [run for run in runs if run.config]
    keys = dict.fromkeys(key for run in configured for key in run.config)
    rows = [
        [key, *(str(run.config.get(key, "–")) for run in configured)]
        for key in keys
        if key not in _OWN and not key.endswith("._partial_")
    ]
    return [["option", *(run.name for run in configured)], *(row for row in rows if len(set(row[1:])) > 1)]


def paired_tests(pairs: Pairs) -> Table:
    """Return a row per pair: difference of the MAE on shared images, p and p adjusted by Holm.

    Without a test, the row has the reason.
    """
    return _test_table(
        ["runs"], [([f"{one.name} − {other.name}"], compare_pair(one, other)) for one, other in pairs]
    )


def paired_tests_by_part(pairs: Pairs) -> Table:
    """Return `paired_tests` for girls, boys and age ranges, for pairs with predictions."""
    tests = []
    for one, other in pairs:
        if one.predictions is None or other.predictions is None:
            continue
        for part, rows in _parts(one.predictions):
            test = compare_pair(one, other, set(one.predictions["id"][rows]))
            if test.get("p") is not None:
                tests.append(([f"{one.name} − {other.name}", part], test))
    return _test_table(["runs", "part"], tests)


def _test_table(head: list[str], tests: Sequence[tuple[list[str], dict[str, Any]]]) -> Table:
    p_values = [test["p"] for _, test in tests if test.get("p") is not None]
    adjusted = iter(holm_correction(p_values))
    table: Table = [[*head, "difference of MAE, months", "p", "p (Holm)", "images"]]
    for names, test in tests:
        if test.get("p") is None:
            table.append([*names, "–", "–", "–", test["why"]])
            continue
        p_holm = f"{next(adjusted):.4f}" if len(p_values) > 1 else "–"
        images = f"{test['images']} ({'all' if test['all'] else 'shared'})"
        table.append(
            [*names, with_interval(test["difference"], sign="+"), f"{test['p']:.4f}", p_holm, images]
        )
    return table


def compare_pair(one: RunResults, other: RunResults, ids: set[str] | None = None) -> dict[str, Any]:
    """Test the absolute errors of two runs on shared images that are not training images of either.

    Args:
        one, other: the runs.
        ids: images to compare on; `None` for all.

    Returns:
        see `paired_comparison`; without a test, `why` is the reason, and `p` is `None` or missing.
    """
    for run in (one, other):
        if not run.finished:
            return {"why": f"{run.name} is not finished"}
    first, second = one.predictions, other.predictions
    if first is None or second is None:
        return _recorded_test(one, other)
    if len(mismatched_ages(first, second)):
        return {"why": "equal ids have different ages: other children"}
    test = paired_comparison(_select(first, ids), _select(second, ids))
    if test["difference"] is not None:
        return test
    if test["images"] < MIN_PAIRS:
        return {**test, "why": f"{test['images'] or 'no'} shared images; {MIN_PAIRS} are needed"}
    return {**test, "why": "some predictions are not finite"}


def _recorded_test(one: RunResults, other: RunResults) -> dict[str, Any]:
    """Return the test stored with the record of one of them."""
    if other.name in one.paired_tests:
        return dict(one.paired_tests[other.name])
    if one.name in other.paired_tests:
        test = dict(other.paired_tests[one.name])
        if test.get("difference"):
            value, low, high = (test["difference"][key] for key in ("value", "low", "high"))
            test["difference"] = {"value": -value, "low": -high, "high": -low}
        return test
    return {"why": "records have no predictions, and these two were not recorded together"}


def _select(predictions: pd.DataFrame, ids: set[str] | None) -> pd.DataFrame:
    if "seen_in_training" in predictions:
        predictions = predictions[~predictions["seen_in_training"].astype(bool)]
    return predictions if ids is None else predictions[predictions["id"].isin(ids)]


def _parts(predictions: pd.DataFrame) -> Iterator[tuple[str, Any]]:
    """Yield name and row mask of parts of the images: by sex if known, and by age."""
    if "male" in predictions:
        male = predictions["male"].to_numpy(bool)
        yield from (("girls", ~male), ("boys", male))
    region = age_region(predictions["bone_age"])
    yield from ((name, region == at) for at, (name, _) in enumerate(AGES))
