"""Fill the marked tables of docs/RESULTS_REPRODUCTION.md from the records: `make reproduction`.

    python -m experiments.fill_tables docs/RESULTS_REPRODUCTION.md

The function NAME below writes the text between `<!-- table: NAME RECORD ... -->` and `<!-- end -->`; paths of
records are relative to the page. The rest of the page is edited by hand.
"""

import json
import re
import sys
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

from boneage_pl.evaluation.comparison import paired_tests, results_table
from boneage_pl.evaluation.figures import learning_curves
from boneage_pl.evaluation.reference_results import (
    BEST_PUBLISHED,
    PUBLISHED_ON_TEST,
    published_curves,
    published_stages,
)
from boneage_pl.evaluation.run_results import RunResults, load_results
from boneage_pl.evaluation.templating import Table, figure_to_png, format_table, with_interval

MARK = re.compile(r"(<!-- table: (.*?) -->\n).*?(<!-- end -->)", re.DOTALL)
DPI = 100  # of figures


def results(*records: Path) -> Table:
    """Return the runs' MAE, epochs and times."""
    return results_table(map(load_results, records))


def tests(*records: Path) -> Table:
    """Return the paired tests of all pairs of runs."""
    return paired_tests(combinations(map(load_results, records), 2))


def summary(*records: Path) -> Table:
    """Return the published MAE beside that of v1, v2 and lr_0.1_failure."""
    test = dict(zip(("value", "low", "high"), PUBLISHED_ON_TEST, strict=True))
    runs = [load_results(record) for record in records]
    data, failure = runs[0].run["data"], runs[-1].summary or {}
    here = f"{data['images']:,} of 100 px at {runs[0].config['data.image_size']} px, disjoint validation"
    return [
        ["", "images", "MAE, months"],
        ["published v2, its own validation rows", "500 px, partly trained on", f"{BEST_PUBLISHED}"],
        [
            "**published v2, the challenge's test set**",
            "200, ages by six readings",
            f"**{with_interval(test)}**",
        ],
        *([f"{run.experiment} here, from random weights", here, with_interval(run.mae)] for run in runs),
        ["constant predictor", "the same", f"{failure['constant_mae']:.2f}"],
    ]


def epochs(*records: Path) -> Table:
    """Return single epochs of the published runs beside those of v1, v2 and lr_0.1_failure."""
    v1, v2, failure = map(load_results, records)
    published = published_curves()

    def row(name: str, stage: str, epoch: int, here: str, note: str = "") -> list[str]:
        return [name, f"{published[stage][epoch][1]:.2f}{note}", here]

    def at(run: RunResults, epoch: int) -> str:
        return f"{run.history.rows[epoch]['val_mae']:.2f}"

    def best(run: RunResults) -> str:
        assert run.best is not None
        return f"{with_interval(run.mae)} (epoch {run.best['epoch']})"

    return [
        ["validation MAE, months", "published", "here"],
        row("v1, epoch 0", "v1", 0, at(v1, 0)),
        row("v1, epoch 3", "v1", 3, at(v1, 3)),
        row("v1, best of 30", "v1", 29, best(v1), " or less"),
        row("the stage between, best of 17", "v1_low_rate", 14, "–", " (epoch 14)"),
        row("v2, epoch 0", "v2", 0, at(v2, 0)),
        row("v2, best of 40", "v2", 34, best(v2), " (epoch 34)"),
        ["v1 at 0.1", "56.5 at the end", best(failure)],
    ]


def demo(record: Path) -> Table:
    """Return the results of `experiments.demo`."""
    rows = [[f"{row['seed']}", f"{row['v1']:.2f}", f"{row['v2']:.2f}"] for row in _json(record)["seeds"]]
    return [["seed", "v1", "v2"], *rows]


def leak_audit(record: Path) -> Table:
    """Return the results of `experiments.leak_audit`."""

    def part(of: dict[str, Any]) -> str:
        return f"{of['mae']:.2f} ({of['rows']:,} rows)" if of["rows"] else "–"

    rows = [
        [
            row["protocol"],
            row["run"],
            with_interval(row["own"]),
            part(row["trained_on"]),
            part(row["not_trained_on"]),
            with_interval(row["aside"]),
            f"{row['gap']:+.2f}",
        ]
        for row in _json(record)["rows"]
    ]
    return [["protocol", "run", "own validation", "of it trained on", "not", "held out", "gap"], *rows]


TABLES: dict[str, Callable[..., Table]] = {
    make.__name__: make for make in (results, tests, summary, epochs, demo, leak_audit)
}


def fill(text: str, folder: Path) -> str:
    """Return a page's text with its tables filled in; write its figures into its folder."""

    def content(mark: re.Match[str]) -> str:
        name, *files = mark[2].split()
        if name == "curves":
            target, *records = files
            runs = [load_results(folder / record) for record in records]
            stages = published_stages([run.experiment for run in runs] + ["v1_low_rate"] * ("v2" in target))
            figure = learning_curves({run.name: run.history.rows for run in runs}, stages)
            (folder / target).write_bytes(figure_to_png(figure, DPI))
            made = f"![Training and validation error by epoch]({target})"
        else:
            made = format_table(TABLES[name](*(folder / file for file in files)), markdown=True)
        return f"{mark[1]}{made}\n{mark[3]}"

    return MARK.sub(content, text)


def _json(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8"))


if __name__ == "__main__":
    for page in map(Path, sys.argv[1:]):
        page.write_text(fill(page.read_text(encoding="utf-8"), page.parent), encoding="utf-8")
