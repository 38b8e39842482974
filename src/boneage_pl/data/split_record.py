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
    """Read a run's split.csv and check it against a table.

    Raises:
        BoneAgeError: not a split, missing ids, or ages or sexes that differ from the table's.
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
            f"data.split_file={path} has {wrong.nunique()} images with another age or sex than the table "
            f"(first id {wrong.iloc[0]}).\n"
            "It is from other data: leave data.split_file out to draw a new split."
        )
    return split[COLUMNS]


def split_from_dict(record: dict[str, Any], table: pd.DataFrame) -> pd.DataFrame:
    """Rebuild, row by row, the split stored in a checkpoint (see `split_to_dict`).

    Raises:
        BoneAgeError: images that are missing in the table.
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
    """Return a split as plain values: ids by subset, image hashes, and the options `how`.

    Args:
        hashes: SHA-256 of the image files, by id.
        contents: SHA-256 of the cached pixels, by id.
        origin: split of the initial checkpoint, whose training images are inherited.
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
    """Images of a subset of a checkpoint's split.

    Args:
        ids: of the images.
        sha256: of their files and cached pixels, as far as known.
    """

    ids: set[str]
    sha256: set[str]

    @classmethod
    def from_side(cls, record: dict[str, Any], subset: str) -> "SeenImages":
        """Return the images of a subset of a split record."""
        ids = set(record[subset])
        return cls(ids, {record[of][i] for of in ("file_sha256", "pixel_sha256") for i in ids})

    @classmethod
    def training_images(cls, record: dict[str, Any]) -> "SeenImages":
        """Return the training images of a run and of the runs it was warm-started from."""
        run = cls.from_side(record, "train")
        inherited = record["inherited_training_images"]
        return cls(run.ids.union(inherited["ids"]), run.sha256.union(inherited["sha256"]))

    def overlap(self, ids: Iterable[str], *digests: Mapping[str, str], by_id: bool = True) -> set[str]:
        """Return the ids that are among these images.

        Args:
            ids: of images in any data set.
            digests: SHA-256 of their files or cached pixels, by id.
            by_id: whether equal ids mean the same image.
        """
        return {
            i
            for i in ids
            if (by_id and i in self.ids) or any(digest.get(i) in self.sha256 for digest in digests)
        }


def training_rows(ids: Iterable[str], record: dict[str, Any]) -> set[str]:
    """Return the ids that are training images of a run or of the runs it was warm-started from."""
    return SeenImages.training_images(record).overlap(ids, record["file_sha256"], record["pixel_sha256"])


def describe_population(table: pd.DataFrame, split: pd.DataFrame, edges: list[float]) -> dict[str, Any]:
    """Return the number of images per group, and median ages of the training rows in months."""
    train = split[split["subset"] == "train"]
    male = train["male"].astype(bool)
    counts = np.bincount(assign_groups(table, edges), minlength=2 * (len(edges) - 1))
    medians = {"all": train, "girls": train[~male], "boys": train[male]}
    return {
        "counts": [int(n) for n in counts],
        "medians": {name: float(rows["bone_age"].median()) for name, rows in medians.items()},
    }


def check_images_unchanged(hashes: dict[str, str], stored: dict[str, str]) -> None:
    """Reject images whose content has changed since the checkpoint's split was stored.

    Raises:
        BoneAgeError: with the number of images and the options.
    """
    changed = [i for i in hashes if hashes[i] != stored[i]]
    if changed:
        raise BoneAgeError(
            f"{len(changed)} of the {len(hashes)} images of the checkpoint's split have changed since the "
            f"training (id {', '.join(changed[:5])}{' …' if len(changed) > 5 else ''}).\n"
            "Use the same data.root. For other children, draw a split with data.split_from=new; for the\n"
            "same radiographs in other files, pass data.allow_leakage=true."
        )


def check_no_leakage(split: pd.DataFrame, images: ImageIndex, origin: dict[str, Any]) -> None:
    """Reject a split that validates on training images of the checkpoint, by id or content.

    Raises:
        BoneAgeError: with the number of images and the options.
    """
    validation = split.loc[split["subset"] == "validation", "id"].unique()
    seen = sorted(
        SeenImages.training_images(origin).overlap(validation, images.file_sha256, images.pixel_sha256)
    )
    if seen:
        raise BoneAgeError(
            f"{len(seen)} of the {len(validation)} validation images are training images of the checkpoint "
            f"(id {', '.join(seen[:5])}{' …' if len(seen) > 5 else ''}), so the MAE would be optimistic.\n"
            "Leave data.split_file and data.split_from out to use the checkpoint's split, or pass\n"
            "data.split_from=new_keep_train for a new one without leakage, or data.allow_leakage=true."
        )


def _match_rows(ids: pd.Series, table: pd.DataFrame, source: str) -> pd.DataFrame:
    missing = sorted(set(ids) - set(table["id"]))
    if missing:
        raise BoneAgeError(
            f"{source} has {ids.nunique()} images, of which {len(missing)} are not in the table "
            f"(id {', '.join(missing[:5])}{' …' if len(missing) > 5 else ''}).\n"
            "It is from other data: use their data.root, or draw a new split with data.split_from=new."
        )
    return table.set_index("id").loc[ids].reset_index()
