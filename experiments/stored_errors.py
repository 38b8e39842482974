"""Store the errors of a validation or test set in the repository, without ids, ages or images.

    python -m experiments.stored_errors store outputs/…/predictions.csv docs/errors_test/v3.csv
    python -m experiments.stored_errors restore docs/errors_test/v3.csv data/rsna100_parts/test v3.csv
    python -m experiments.stored_errors compare docs/errors_dev/v3.csv docs/errors_dev/*.csv

Errors are in the order of the ids, of which a hash is stored. With the table of the same images, `restore`
computes the predictions again, for `python -m boneage_pl.compare 'runs=[v3.csv,mine.csv]'`. `compare` runs
paired tests against the first file and needs no images; `a.csv+b.csv` is the mean of two models' predictions,
`a.csv,b.csv` concatenates the images of two seeds.
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

DIGITS = 2  # decimals of an error in months


def hash_ids(rows: pd.DataFrame) -> str:
    """Return a hash of the column `id` and its order: 16 hexadecimal digits."""
    return hashlib.sha256("\n".join(rows["id"]).encode()).hexdigest()[:16]


def store(predictions: Path, target: Path) -> None:
    """Write the errors of a report's predictions.csv in months, ordered by id."""
    rows = pd.read_csv(predictions, dtype={"id": str}).drop_duplicates("id").sort_values("id")
    target.parent.mkdir(parents=True, exist_ok=True)
    errors = (f"{error:.{DIGITS}f}\n" for error in rows["error"])
    target.write_text(f"ids {hash_ids(rows)}\n" + "".join(errors), encoding="utf-8")


def read(stored: Path) -> tuple[str, NDArray[np.float64]]:
    """Return the hash of the ids and the errors [N] in months of stored errors.

    Raises:
        BoneAgeError: files joined by `+` contain errors of different images.
    """
    if "," in str(stored):
        heads, seeds = zip(*map(read, map(Path, str(stored).split(","))), strict=True)
        return " ".join(heads), np.concatenate(seeds)
    parts = [Path(name).read_text(encoding="utf-8").split("\n")[:-1] for name in str(stored).split("+")]
    if len({head for head, *_ in parts}) > 1:
        raise BoneAgeError(f"{stored}: these errors are not of the same images.")
    return parts[0][0], np.mean([np.array(errors, float) for _, *errors in parts], axis=0)


def restore(stored: Path, root: Path, target: Path) -> None:
    """Write `id, male, bone_age, predicted` from stored errors and the table of their images.

    Raises:
        BoneAgeError: the table has other ids.
    """
    head, errors = read(stored)
    rows = read_table(root).sort_values("id")[["id", "male", "bone_age"]]
    if head != f"ids {hash_ids(rows)}":
        raise BoneAgeError(f"{stored}: these errors are not of the images of {root}.")
    rows.assign(predicted=rows["bone_age"] + errors).to_csv(target, index=False)


def compare(first: Path, others: list[Path]) -> tuple[Table, Table]:
    """Return the MAE of each file, and the paired tests of the others against the first.

    Raises:
        BoneAgeError: the files contain errors of different images.
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
    """Store, restore or compare."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    arguments = {
        "store": ("predictions", "target"),
        "restore": ("stored", "root", "target"),
        "compare": ("first",),
    }
    for command, names in arguments.items():
        added = commands.add_parser(command)
        for name in names:
            added.add_argument(name, type=Path)
    added.add_argument("others", type=Path, nargs="+")
    options = vars(parser.parse_args())
    try:
        command = options.pop("command")
        if command == "compare":
            for table in compare(**options):
                print(format_table(table, markdown=True), end="\n\n")
        else:
            {"store": store, "restore": restore}[command](**options)
    except BoneAgeError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
