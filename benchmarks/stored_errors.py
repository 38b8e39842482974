"""Answers about a held-out part, kept for everyone: their errors by the order of the ids; no id, age, image.

    python -m benchmarks.stored_errors keep outputs/…/predictions.csv docs/errors_test/v3.csv
    python -m benchmarks.stored_errors give docs/errors_test/v3.csv data/rsna100_parts/test v3.csv
    python -m benchmarks.stored_errors pair docs/errors_dev/v3.csv docs/errors_dev/*.csv

Whoever has the images has the ids and ages, and gets the answers back: a file for
`python -m boneage_pl.compare 'predictions=[v3.csv,mine.csv]'`. Errors of other images are refused. The
last tests kept errors against each other, which needs no image: each file's MAE less the first's, paired.
"""

import argparse
import hashlib
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmarks import markdown_table
from boneage_pl.data.tables.load import read_table
from boneage_pl.errors import BoneAgeError
from boneage_pl.evaluation.breakdown import to_json_numbers
from boneage_pl.evaluation.metrics import mean, with_intervals
from boneage_pl.evaluation.paired_test import MIN_PAIRS, holm_correction, paired_comparison
from boneage_pl.evaluation.templating import with_interval

DIGITS = 2  # months; of an error


def order_of(rows: pd.DataFrame) -> str:
    """Return what tells the ids of `id` and their order from any other: 16 hexadecimal digits."""
    return hashlib.sha256("\n".join(rows["id"]).encode()).hexdigest()[:16]


def keep(answers: Path, target: Path) -> None:
    """Write the errors of a report's predictions.csv, months, in the order of the ids."""
    rows = pd.read_csv(answers, dtype={"id": str}).drop_duplicates("id").sort_values("id")
    target.parent.mkdir(parents=True, exist_ok=True)
    errors = (f"{error:.{DIGITS}f}\n" for error in rows["error"])
    target.write_text(f"ids {order_of(rows)}\n" + "".join(errors), encoding="utf-8")


def read(kept: Path) -> tuple[str, NDArray[np.float64]]:
    """Return what tells the ids of kept errors and their order from any other, and the errors [N], months."""
    head, *errors = kept.read_text(encoding="utf-8").split("\n")[:-1]
    return head, np.array(errors, float)


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


def pair(first: Path, others: list[Path]) -> list[tuple[str, ...]]:
    """Return a row of words for each file: its MAE, months, and that less the first's, paired.

    The first two rows are the head and the first file's; p is Holm's, of as many tests as there are others.

    Raises:
        BoneAgeError: they are not of the same images, or of too few to say anything.
    """
    ids, against = read(first)
    rows, tests = [(first.stem, mae_of(against), "–", "–")], []
    for other in (file for file in others if file != first):
        its, errors = read(other)
        if its != ids:
            raise BoneAgeError(f"{other}: these errors are not of the images of {first}.")
        if len(errors) < MIN_PAIRS:
            raise BoneAgeError(f"{other}: of {len(errors)} images; fewer than {MIN_PAIRS} say nothing.")
        tests.append(paired_comparison(numbered(errors), numbered(against)))
        rows.append((other.stem, mae_of(errors), with_interval(tests[-1]["difference"], sign="+")))
    ps = [f"{p:.4f}" for p in holm_correction([test["p"] for test in tests])]
    head = ("errors", "MAE, months", f"less {first.stem}'s", "p, of several tests")
    return [head, rows[0], *((*row, p) for row, p in zip(rows[1:], ps, strict=True))]


def mae_of(errors: NDArray[np.float64]) -> str:
    """Return how far off they are, with its interval over images."""
    off = np.abs(errors)
    found = with_intervals(lambda w: {"mae": mean(off, w)}, np.arange(len(off)))
    return with_interval(to_json_numbers(*found["mae"]))


def numbered(errors: NDArray[np.float64]) -> pd.DataFrame:
    """Return errors by the order of their ids, which nobody need know to pair them."""
    return pd.DataFrame({"id": range(len(errors)), "error": errors})


def main() -> None:
    """Keep, give or pair."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    ways = parser.add_subparsers(dest="way", required=True)
    keeping = ways.add_parser("keep")
    for name in ("answers", "target"):
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
            markdown_table.show(*pair(**options))
        else:
            {"keep": keep, "give": give}[way](**options)
    except BoneAgeError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
