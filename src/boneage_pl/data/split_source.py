"""Splits that already exist: a run's split.csv, and the split stored in a checkpoint."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from boneage_pl.data.split import COLUMNS, assign_groups
from boneage_pl.data.store import Examined
from boneage_pl.errors import BoneageError


def read_split(path: Path, table: pd.DataFrame) -> pd.DataFrame:
    """Read a split.csv written by a run and check it against the table it is to be used with.

    Raises:
        BoneageError: not a split, ids that the table lacks, ages or sexes that differ from the table's.
    """
    try:
        split = pd.read_csv(path, dtype={"id": str}, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise BoneageError(f"data.split_file={path} cannot be read: {error}") from error
    if missing := [name for name in COLUMNS if name not in split]:
        raise BoneageError(f"data.split_file={path} is not a run's split.csv: it lacks {', '.join(missing)}.")
    if set(split["subset"]) != {"train", "validation"}:
        raise BoneageError(
            f"data.split_file={path}: subset must be train or validation, and both must occur."
        )
    known = _rows_of(split["id"], table, f"data.split_file={path}")
    wrong = split["id"][(known["bone_age"] != split["bone_age"]) | (known["male"] != split["male"])]
    if len(wrong):
        raise BoneageError(
            f"data.split_file={path} gives {wrong.nunique()} images another age or sex than the table does "
            f"(id {wrong.iloc[0]} first).\n"
            "It was made from other data: leave data.split_file out to draw a new split."
        )
    return split[COLUMNS]


def restore_split(record: dict[str, Any], table: pd.DataFrame) -> pd.DataFrame:
    """Rebuild, row by row, the split stored in a checkpoint (see `describe_split`).

    Raises:
        BoneageError: the table lacks some of its images.
    """
    parts = []
    for subset in ("train", "validation"):
        rows = _rows_of(pd.Series(record[subset]), table, "the split stored in ckpt=")
        parts.append(rows.assign(group=assign_groups(rows, record["edges"]), subset=subset))
    return pd.concat(parts, ignore_index=True)[COLUMNS]


def describe_split(
    split: pd.DataFrame,
    hashes: dict[str, str],
    contents: dict[str, str],
    origin: dict[str, Any] | None = None,
    **how: Any,
) -> dict[str, Any]:
    """Return a split as plain values: its rows' ids by subset, what tells their images, and `how`.

    Args:
        hashes: SHA-256 of each image's file, by id.
        contents: of its prepared pixels.
        origin: the split of the checkpoint that training starts from, which has been trained on too.
    """
    by_subset = {name: rows["id"].tolist() for name, rows in split.groupby("subset")}
    train = set(by_subset["train"])
    before = Known.trained(origin) if origin else Known(set(), set())
    return {
        **how,
        "train": by_subset["train"],
        "validation": by_subset["validation"],
        "hashes": hashes,
        "contents": {i: contents[i] for i in hashes},
        "before": {
            "ids": sorted(before.ids - train),
            "contents": sorted(before.contents - {of[i] for of in (hashes, contents) for i in train}),
        },
    }


@dataclass(frozen=True)
class Known:
    """Images that a checkpoint knows.

    Args:
        ids: of the images.
        contents: SHA-256 of their files and of their prepared pixels, as far as it has them.
    """

    ids: set[str]
    contents: set[str]

    @classmethod
    def side(cls, record: dict[str, Any], subset: str) -> "Known":
        """Return those of a subset of a checkpoint's split record; older ones have no prepared pixels."""
        ids = set(record[subset])
        tells = (record["hashes"], record.get("contents", {}))
        return cls(ids, {of[i] for of in tells for i in ids if i in of})

    @classmethod
    def trained(cls, record: dict[str, Any]) -> "Known":
        """Return those that its run and the runs that it started from were trained on."""
        run, before = cls.side(record, "train"), record.get("before", {"ids": [], "contents": []})
        return cls(run.ids.union(before["ids"]), run.contents.union(before["contents"]))

    def among(self, ids: Iterable[str], *tells: Mapping[str, str], by_id: bool = True) -> set[str]:
        """Return which of some images they are.

        Args:
            ids: of the images, in whatever data set.
            tells: SHA-256 there, by id, of their files or prepared pixels.
            by_id: whether an id is the same child there.
        """
        return {
            i for i in ids if (by_id and i in self.ids) or any(of.get(i) in self.contents for of in tells)
        }


def trained_on(ids: Iterable[str], record: dict[str, Any]) -> set[str]:
    """Return which images of a checkpoint's own split its run, or one it started from, was trained on."""
    hashes = record["hashes"]
    return Known.trained(record).among(ids, hashes, record.get("contents", hashes))


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


def check_unchanged(hashes: dict[str, str], stored: dict[str, str]) -> None:
    """Refuse images whose content differs from what a checkpoint's split was stored with, under the same ids.

    Raises:
        BoneageError: saying how many images and how to go on.
    """
    changed = [i for i in hashes if hashes[i] != stored[i]]
    if changed:
        raise BoneageError(
            f"{len(changed)} of the {len(hashes)} images in the checkpoint's split are not the files it was "
            f"trained with (id {', '.join(changed[:5])}{' …' if len(changed) > 5 else ''}).\n"
            "Use the same data.root; if these are other children, draw a split with data.new_split=true;\n"
            "or pass data.allow_overlap=true if they are the same radiographs, stored differently."
        )


def check_overlap(split: pd.DataFrame, images: Examined, origin: dict[str, Any]) -> None:
    """Refuse a split that validates on images the checkpoint was trained on, by id or by content.

    Raises:
        BoneageError: saying how many images and how to go on.
    """
    validation = split.loc[split["subset"] == "validation", "id"].unique()
    seen = sorted(Known.trained(origin).among(validation, images.hashes, images.contents))
    if seen:
        raise BoneageError(
            f"{len(seen)} of the {len(validation)} validation images were trained on by the checkpoint "
            f"(id {', '.join(seen[:5])}{' …' if len(seen) > 5 else ''}): their errors would flatter it.\n"
            "Leave data.split_file and data.new_split out to use the checkpoint's own split, or pass\n"
            "data.new_split=apart for one without them, or data.allow_overlap=true to see what they give."
        )


def _rows_of(ids: pd.Series, table: pd.DataFrame, source: str) -> pd.DataFrame:
    missing = sorted(set(ids) - set(table["id"]))
    if missing:
        raise BoneageError(
            f"{source} names {ids.nunique()} images; {len(missing)} of them are not in the table "
            f"(id {', '.join(missing[:5])}{' …' if len(missing) > 5 else ''}).\n"
            "It was made from other data: use that data.root, or draw a new split with data.new_split=true."
        )
    return table.set_index("id").loc[ids].reset_index()
