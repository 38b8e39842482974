"""Predictions of a held-out part, kept for everyone: errors by the order of the ids; no id, age or image.

    python -m experiments.stored_errors keep outputs/…/predictions.csv docs/errors_test/v3.csv
    python -m experiments.stored_errors give docs/errors_test/v3.csv data/rsna100_parts/test v3.csv
    python -m experiments.stored_errors pair docs/errors_dev/v3.csv docs/errors_dev/*.csv

Whoever has the images has the ids and ages, and gets the predictions back: a file for
`python -m boneage_pl.compare 'runs=[v3.csv,mine.csv]'`. Errors of other images are refused. The last
tests stored errors against the first file's, which needs no image; `a.csv+b.csv` are the errors of the mean
of both predictions, `a.csv,b.csv` those of two seeds, one after the other.
"""

import argparse
import hashlib
import re
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from boneage_pl.data.tables.load import read_table
from boneage_pl.errors import BoneAgeError
from boneage_pl.evaluation.breakdown import metrics_of
from boneage_pl.evaluation.comparison import paired_tests, results_table
from boneage_pl.evaluation.run_results import RunResults
from boneage_pl.evaluation.templating import Table, format_table

DIGITS = 2  # months; of an error


def order_of(rows: pd.DataFrame) -> str:
    """Return a fingerprint of the ids of `id` and their order: 16 hexadecimal digits."""
    return hashlib.sha256("\n".join(rows["id"]).encode()).hexdigest()[:16]


def keep(predictions: Path, target: Path) -> None:
    """Write the errors of a report's predictions.csv, months, in the order of the ids."""
    rows = pd.read_csv(predictions, dtype={"id": str}).drop_duplicates("id").sort_values("id")
    target.parent.mkdir(parents=True, exist_ok=True)
    errors = (f"{error:.{DIGITS}f}\n" for error in rows["error"])
    target.write_text(f"ids {order_of(rows)}\n" + "".join(errors), encoding="utf-8")


def read(kept: Path) -> tuple[str, NDArray[np.float64]]:
    """Return the fingerprint of the ids of kept errors and their order, and the errors [N], months.

    Raises:
        BoneAgeError: `kept` is several files, joined by `+`, and they are not of the same images.
    """
    if "," in str(kept):
        heads, seeds = zip(*map(read, map(Path, str(kept).split(","))), strict=True)
        return " ".join(heads), np.concatenate(seeds)
    parts = [Path(name).read_text(encoding="utf-8").split("\n")[:-1] for name in str(kept).split("+")]
    if len({head for head, *_ in parts}) > 1:
        raise BoneAgeError(f"{kept}: these errors are not of the same images.")
    return parts[0][0], np.mean([np.array(errors, float) for _, *errors in parts], axis=0)


def give(kept: Path, root: Path, target: Path) -> None:
    """Write `id, male, bone_age, predicted` of kept errors, by the table of the images that they are of.

    Raises:
        BoneAgeError: it has other ids.
    """
    head, errors = read(kept)
    rows = read_table(root).sort_values("id")[["id", "male", "bone_age"]]
    if head != f"ids {order_of(rows)}":
        raise BoneAgeError(f"{kept}: these errors are not of the images of {root}.")
    rows.assign(predicted=rows["bone_age"] + errors).to_csv(target, index=False)


def compare(first: Path, others: list[Path]) -> tuple[Table, Table]:
    """Return the errors of each file, and the paired tests of the others against the first.

    Raises:
        BoneAgeError: they are not of the same images.
    """
    ids, runs = read(first)[0], []
    for file in dict.fromkeys([first, *others]):
        its, errors = read(file)
        if its != ids:
            raise BoneAgeError(f"{file}: these errors are not of the images of {first}.")
        rows = pd.DataFrame({"id": range(len(errors)), "bone_age": 0.0, "predicted": errors, "error": errors})
        name = re.sub("[^+,]+", lambda part: Path(part[0]).stem, str(file))
        first_file = Path(re.split("[+,]", str(file))[0])
        runs.append(RunResults(first_file, name, predictions=rows, metrics={"overall": metrics_of(rows)}))
    return results_table(runs), paired_tests((run, runs[0]) for run in runs[1:])


def main() -> None:
    """Keep, give or pair."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    ways = parser.add_subparsers(dest="way", required=True)
    keeping = ways.add_parser("keep")
    for name in ("predictions", "target"):
        keeping.add_argument(name, type=Path)
    giving = ways.add_parser("give")
    for name in ("kept", "root", "target"):
        giving.add_argument(name, type=Path)
    pairing = ways.add_parser("pair")
    pairing.add_argument("first", type=Path)
    pairing.add_argument("others", type=Path, nargs="+")
    options = vars(parser.parse_args())
    try:
        way = options.pop("way")
        if way == "pair":
            for table in compare(**options):
                print(format_table(table, markdown=True), end="\n\n")
        else:
            {"keep": keep, "give": give}[way](**options)
    except BoneAgeError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
