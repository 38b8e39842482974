"""Read and write splits, and detect leakage between them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from boneage_pl.data.cache.store import ImageIndex
from boneage_pl.data.groups import assign_groups
from boneage_pl.data.split import COLUMNS
from boneage_pl.errors import BoneAgeError


def read_split(path: Path, table: pd.DataFrame) -> pd.DataFrame:
    """Read a split.csv written by a run and check it against the table it is to be used with.

    Raises:
        BoneAgeError: not a split, ids that the table lacks, ages or sexes that differ from the table's.
    """
    try:
        split = pd.read_csv(path, dtype={"id": str}, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise BoneAgeError(f"data.split_file={path} cannot be read: {error}") from error
    if missing := [name for name in COLUMNS if name not in split]:
        raise BoneAgeError(f"data.split_file={path} is not a run's split.csv: it lacks {', '.join(missing)}.")
    if set(split["subset"]) != {"train", "validation"}:
        raise BoneAgeError(
            f"data.split_file={path}: subset must be train or validation, and both must occur."
        )
    known = _match_rows(split["id"], table, f"data.split_file={path}")
    wrong = split["id"][(known["bone_age"] != split["bone_age"]) | (known["male"] != split["male"])]
    if len(wrong):
        raise BoneAgeError(
            f"data.split_file={path} gives {wrong.nunique()} images another age or sex than the table does "
            f"(id {wrong.iloc[0]} first).\n"
            "It was made from other data: leave data.split_file out to draw a new split."
        )
    return split[COLUMNS]


def split_from_dict(record: dict[str, Any], table: pd.DataFrame) -> pd.DataFrame:
    """Rebuild, row by row, the split stored in a checkpoint (see `split_to_dict`).

    Raises:
        BoneAgeError: the table lacks some of its images.
    """
    parts = []
    for subset in ("train", "validation"):
        rows = _match_rows(pd.Series(record[subset]), table, "the split stored in ckpt=")
        parts.append(rows.assign(group=assign_groups(rows, record["edges"]), subset=subset))
    return pd.concat(parts, ignore_index=True)[COLUMNS]


def split_to_dict(
    split: pd.DataFrame,
    hashes: dict[str, str],
    contents: dict[str, str],
    origin: dict[str, Any] | None = None,
    **how: Any,
) -> dict[str, Any]:
    """Return a split as plain values: its rows' ids by subset, what identifies their images, and `how`.

    Args:
        hashes: SHA-256 of each image's file, by id.
        contents: of its prepared pixels.
        origin: the split of the checkpoint that training starts from, which has been trained on too.
    """
    by_subset = {name: rows["id"].tolist() for name, rows in split.groupby("subset")}
    train = set(by_subset["train"])
    before = SeenImages.training_images(origin) if origin else SeenImages(set(), set())
    return {
        **how,
        "train": by_subset["train"],
        "validation": by_subset["validation"],
        "file_sha256": hashes,
        "pixel_sha256": {i: contents[i] for i in hashes},
        "inherited_training_images": {
            "ids": sorted(before.ids - train),
            "sha256": sorted(before.sha256 - {of[i] for of in (hashes, contents) for i in train}),
        },
    }


@dataclass(frozen=True)
class SeenImages:
    """Images of one side of a checkpoint's split.

    Args:
        ids: of the images.
        sha256: of their files and of their prepared pixels, as far as it has them.
    """

    ids: set[str]
    sha256: set[str]

    @classmethod
    def from_side(cls, record: dict[str, Any], subset: str) -> "SeenImages":
        """Return those of a subset of a checkpoint's split record."""
        ids = set(record[subset])
        digests = (record["file_sha256"], record.get("pixel_sha256", {}))
        return cls(ids, {of[i] for of in digests for i in ids if i in of})

    @classmethod
    def training_images(cls, record: dict[str, Any]) -> "SeenImages":
        """Return those that its run and the runs that it started from were trained on."""
        run = cls.from_side(record, "train")
        inherited = record.get("inherited_training_images", {"ids": [], "sha256": []})
        return cls(run.ids.union(inherited["ids"]), run.sha256.union(inherited["sha256"]))

    def overlap(self, ids: Iterable[str], *digests: Mapping[str, str], by_id: bool = True) -> set[str]:
        """Return which of some images they are.

        Args:
            ids: of the images, in whatever data set.
            digests: SHA-256 there, by id, of their files or prepared pixels.
            by_id: whether an id is the same child there.
        """
        return {
            i for i in ids if (by_id and i in self.ids) or any(of.get(i) in self.sha256 for of in digests)
        }


def training_rows(ids: Iterable[str], record: dict[str, Any]) -> set[str]:
    """Return which images of a checkpoint's own split its run, or one it started from, was trained on."""
    hashes = record["file_sha256"]
    return SeenImages.training_images(record).overlap(ids, hashes, record.get("pixel_sha256", hashes))


def describe_population(table: pd.DataFrame, split: pd.DataFrame, edges: list[float]) -> dict[str, Any]:
    """Return, as plain values, images of the table by group, and the training rows' median ages in months."""
    train = split[split["subset"] == "train"]
    male = train["male"].astype(bool)
    counts = np.bincount(assign_groups(table, edges), minlength=2 * (len(edges) - 1))
    medians = {"all": train, "girls": train[~male], "boys": train[male]}
    return {
        "counts": [int(n) for n in counts],
        "medians": {name: float(rows["bone_age"].median()) for name, rows in medians.items()},
    }


def check_images_unchanged(hashes: dict[str, str], stored: dict[str, str]) -> None:
    """Refuse images whose content differs from what a checkpoint's split was stored with, under the same ids.

    Raises:
        BoneAgeError: saying how many images and how to go on.
    """
    changed = [i for i in hashes if hashes[i] != stored[i]]
    if changed:
        raise BoneAgeError(
            f"{len(changed)} of the {len(hashes)} images in the checkpoint's split are not the files it was "
            f"trained with (id {', '.join(changed[:5])}{' …' if len(changed) > 5 else ''}).\n"
            "Use the same data.root; if these are other children, draw a split with data.split_from=new;\n"
            "or pass data.allow_leakage=true if they are the same radiographs, stored differently."
        )


def check_no_leakage(split: pd.DataFrame, images: ImageIndex, origin: dict[str, Any]) -> None:
    """Refuse a split that validates on images the checkpoint was trained on, by id or by content.

    Raises:
        BoneAgeError: saying how many images and how to go on.
    """
    validation = split.loc[split["subset"] == "validation", "id"].unique()
    seen = sorted(
        SeenImages.training_images(origin).overlap(validation, images.file_sha256, images.pixel_sha256)
    )
    if seen:
        raise BoneAgeError(
            f"{len(seen)} of the {len(validation)} validation images were trained on by the checkpoint "
            f"(id {', '.join(seen[:5])}{' …' if len(seen) > 5 else ''}): their errors would flatter it.\n"
            "Leave data.split_file and data.split_from out to use the checkpoint's own split, or pass\n"
            "data.split_from=new_keep_train for one without them, or data.allow_leakage=true."
        )


def _match_rows(ids: pd.Series, table: pd.DataFrame, source: str) -> pd.DataFrame:
    missing = sorted(set(ids) - set(table["id"]))
    if missing:
        raise BoneAgeError(
            f"{source} names {ids.nunique()} images; {len(missing)} of them are not in the table "
            f"(id {', '.join(missing[:5])}{' …' if len(missing) > 5 else ''}).\n"
            "It was made from other data: use that data.root, or draw a new split with data.split_from=new."
        )
    return table.set_index("id").loc[ids].reset_index()
