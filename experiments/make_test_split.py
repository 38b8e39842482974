"""Split a data set into a development set and a held-out test set.

    python -m experiments.make_test_split data/rsna100 data/rsna100_parts
    python -m experiments.make_test_split data/rsna512 data/rsna512_parts --as data/rsna100_parts

Writes the data sets `development/` and `test/` (15 % of the images, drawn at random), with links to the
images. Images of one patient, where the table has that column, and byte-identical files stay on one side. The
split depends on the seed alone; `--as` holds out the ids of an earlier split of the same children.
"""

import argparse
import hashlib
from pathlib import Path

import numpy as np
import pandas as pd

from boneage_pl.data.split import link_images
from boneage_pl.data.tables.load import read_table


def write_set(folder: Path, rows: pd.DataFrame) -> None:
    """Write a table (`id, bone_age, male, path`) as a data set that links its images."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    for i, path in zip(rows["id"], rows["path"], strict=True):
        link = folder / "images" / f"{i}{Path(path).suffix}"
        if not link.is_symlink():
            link.symlink_to(Path(path).resolve())
    csv = rows.rename(columns={"bone_age": "boneage"}).drop(columns="path")
    csv.to_csv(folder / "train.csv", index=False)


def held_out(units: pd.Series, share: float, seed: int) -> np.ndarray:
    """Return a mask [N] of the held-out rows: `share` of the distinct units."""
    codes, distinct = pd.factorize(units)
    chosen = np.random.default_rng(seed).permutation(len(distinct))[: round(share * len(distinct))]
    return np.isin(codes, chosen)


def main() -> None:
    """Split and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("root", type=Path, help="folder of the radiographs")
    parser.add_argument("folder", type=Path, help="output folder")
    parser.add_argument("--share", type=float, default=0.15, help="fraction of the images held out")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--as", type=Path, dest="like", help="earlier split whose test ids are held out")
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
