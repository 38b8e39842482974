"""Divide a data set once, by image: a part to develop on and a part that no choice is made on.

    python -m experiments.make_test_split data/rsna100 data/rsna100_parts
    python -m experiments.make_test_split data/rsna512 data/rsna512_parts --as data/rsna100_parts

Writes `development/` and `test/` (15 % of the images, at the ages and sexes of the table), data sets of their
own that link the images. Images of a patient, where the table names one, stay on one side, and so do files
that are alike, byte for byte. The same seed always gives the same parts; `--as` holds out what other parts of
the same children do.
"""

import argparse
import hashlib
from pathlib import Path

import numpy as np
import pandas as pd

from boneage_pl.data.split import link_images
from boneage_pl.data.tables.load import read_table


def write_set(folder: Path, rows: pd.DataFrame) -> None:
    """Write a data set of the rows of a table (`id, bone_age, male, path`), with links to their images."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    for i, path in zip(rows["id"], rows["path"], strict=True):
        link = folder / "images" / f"{i}{Path(path).suffix}"
        if not link.is_symlink():
            link.symlink_to(Path(path).resolve())
    csv = rows.rename(columns={"bone_age": "boneage"}).drop(columns="path")
    csv.to_csv(folder / "train.csv", index=False)


def held_out(units: pd.Series, share: float, seed: int) -> np.ndarray:
    """Return which rows are held out, [N] of bool: `share` of the different units."""
    codes, different = pd.factorize(units)
    chosen = np.random.default_rng(seed).permutation(len(different))[: round(share * len(different))]
    return np.isin(codes, chosen)


def main() -> None:
    """Divide and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("root", type=Path, help="folder of the radiographs")
    parser.add_argument("folder", type=Path, help="where to write development/ and test/")
    parser.add_argument("--share", type=float, default=0.15, help="of the images held out")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--as", type=Path, dest="like", help="parts whose test/ has the ids to hold out")
    options = parser.parse_args()
    table = read_table(options.root).sort_values("id").reset_index(drop=True)
    contents = {
        i: hashlib.sha256(Path(path).read_bytes()).hexdigest()
        for i, path in zip(table["id"], table["path"], strict=True)
    }
    units = link_images(table, contents)
    out = held_out(units, options.share, options.seed)
    if options.like:
        theirs = read_table(options.like / "test")["id"]
        out = units.isin(units[table["id"].isin(theirs)]).to_numpy()
    for name, rows in (("development", table[~out]), ("test", table[out])):
        write_set(options.folder / name, rows)
        print(
            f"{options.folder / name}: {len(rows)} images, {rows['male'].mean():.0%} boys, "
            f"mean bone age {rows['bone_age'].mean():.1f} months"
        )


if __name__ == "__main__":
    main()
