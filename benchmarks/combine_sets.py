"""Combine data sets of the same children, at several resolutions for example, into one.

    python -m benchmarks.combine_sets data/rsna100 data/rsna512 data/rsna512 data/rsna_mixed

Writes a table and links to the images. An id that several of the sets have is one child, the `patient` of the
table, so that all of the child's images are on one side of a split. A set that is named twice weighs twice as
much in an epoch.
"""

import argparse
from pathlib import Path

import pandas as pd

from boneage_pl.data.tables.load import read_table


def combine(roots: list[Path], folder: Path) -> pd.DataFrame:
    """Write the combined data set, and return its table: `id, boneage, male, patient`."""
    (folder / "images").mkdir(parents=True)
    parts = []
    for number, root in enumerate(roots):
        table = read_table(root)
        ids = table["id"] if number == 0 else table["id"] + f"_{number}"
        for i, path in zip(ids, table["path"], strict=True):
            (folder / "images" / f"{i}{Path(path).suffix}").symlink_to(Path(path).resolve())
        parts.append(table.assign(id=ids, patient=table["id"]))
    combined = pd.concat(parts).rename(columns={"bone_age": "boneage"})[["id", "boneage", "male", "patient"]]
    combined.to_csv(folder / "train.csv", index=False)
    return combined


def main() -> None:
    """Combine and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("roots", type=Path, nargs="+", help="data sets")
    parser.add_argument("folder", type=Path, help="where to write; must not exist")
    options = parser.parse_args()
    table = combine(options.roots, options.folder)
    print(f"{options.folder}: {len(table)} images of {table['patient'].nunique()} children")


if __name__ == "__main__":
    main()
