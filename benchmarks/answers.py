"""Answers about a held-out part, kept for everyone: their errors by the order of the ids; no id, age, image.

    python -m benchmarks.answers keep outputs/…/predictions.csv docs/test_part/v3.csv
    python -m benchmarks.answers give docs/test_part/v3.csv data/rsna100_parts/test v3.csv

Whoever has the images has the ids and ages, and gets the answers back: a file for
`python -m boneage_pl.compare 'answers=[v3.csv,mine.csv]'`. Errors of other images are refused.
"""

import argparse
import hashlib
import sys
from pathlib import Path

import pandas as pd

from boneage_pl.data.table import read_table
from boneage_pl.errors import BoneageError

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


def give(kept: Path, root: Path, target: Path) -> None:
    """Write `id, male, bone_age, predicted` of kept errors, by the table of the images that they are of.

    Raises:
        BoneageError: it has other ids.
    """
    head, *errors = kept.read_text(encoding="utf-8").split("\n")[:-1]
    rows = read_table(root).sort_values("id")[["id", "male", "bone_age"]]
    if head != f"ids {order_of(rows)}":
        raise BoneageError(f"{kept}: these errors are not of the images of {root}.")
    rows.assign(predicted=rows["bone_age"] + [float(error) for error in errors]).to_csv(target, index=False)


def main() -> None:
    """Keep or give."""
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
    options = vars(parser.parse_args())
    try:
        {"keep": keep, "give": give}[options.pop("way")](**options)
    except BoneageError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
