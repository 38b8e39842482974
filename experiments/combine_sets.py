"""Combine data sets of the same children, for example at several resolutions, into one.

    python -m experiments.combine_sets data/rsna100 data/rsna512 data/rsna512 data/rsna_mixed

Writes a table and links to the images. Rows with the same id in several sets have the same `patient`, so that
a split never separates them. A set that is given twice is drawn twice per epoch.
"""

import argparse
from pathlib import Path

import pandas as pd

from boneage_pl.data.tables.load import read_table
from experiments.make_test_split import write_set


def combine(roots: list[Path]) -> pd.DataFrame:
    """Return the rows of all sets, with unique ids: `id, bone_age, male, patient, path`."""
    tables = [read_table(root) for root in roots]
    return pd.concat(
        table.assign(patient=table["id"], id=table["id"] + (f"_{number}" if number else ""))
        for number, table in enumerate(tables)
    )


def main() -> None:
    """Combine and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("roots", type=Path, nargs="+", help="data sets")
    parser.add_argument("folder", type=Path, help="output folder; must not exist")
    options = parser.parse_args()
    if options.folder.exists():
        parser.error(f"{options.folder} exists already")
    table = combine(options.roots)
    write_set(options.folder, table)
    print(f"{options.folder}: {len(table)} images of {table['patient'].nunique()} children")


if __name__ == "__main__":
    main()
