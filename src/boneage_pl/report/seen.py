"""Which images checkpoints were trained on or validated with, and whether these are asked."""

import logging
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from boneage_pl.data.cache.store import ImageCache
from boneage_pl.data.images.resize import ResizeSpec
from boneage_pl.data.split_record import SeenImages
from boneage_pl.data.tables.validate import format_list
from boneage_pl.errors import BoneAgeError
from boneage_pl.training.checkpoint import Checkpoint

log = logging.getLogger(__name__)


def find_training_overlap(
    checkpoints: Sequence[Checkpoint],
    rows: pd.DataFrame,
    stores: dict[ResizeSpec, ImageCache],
    *,
    by_id: bool,
) -> dict[Path, set[str]]:
    """Return, by checkpoint, the ids of images that it was trained on."""
    found = {}
    for checkpoint in checkpoints:
        images = stores[checkpoint.metadata.resize_spec].images
        trained = SeenImages.training_images(checkpoint.metadata.split)
        found[checkpoint.path] = trained.overlap(
            rows["id"], images.file_sha256, images.pixel_sha256, by_id=by_id
        )
    return found


def count_selection_overlap(
    checkpoints: Sequence[Checkpoint],
    rows: pd.DataFrame,
    stores: dict[ResizeSpec, ImageCache],
    *,
    by_id: bool,
) -> int:
    """Return how many rows show images that validated a checkpoint, and so chose the epoch it is of."""
    found = set()
    for checkpoint in checkpoints:
        images = stores[checkpoint.metadata.resize_spec].images
        validated = SeenImages.from_side(checkpoint.metadata.split, "validation")
        found |= validated.overlap(rows["id"], images.file_sha256, images.pixel_sha256, by_id=by_id)
    return int(rows["id"].isin(found).sum())


def apply_leakage_policy(
    choice: str, rows: pd.DataFrame, seen: dict[Path, set[str]], every: set[str]
) -> pd.DataFrame:
    """Return the rows that are asked: all where none was trained on or these are allowed.

    Args:
        choice: what `seen` says.
        rows: that could be asked.
        seen: ids that were trained on, by checkpoint.
        every: those of all.
    """
    if not every or choice == "allow":
        return rows
    if choice == "drop":
        rows = rows[~rows["id"].isin(every)].reset_index(drop=True)
        log.info("%d images that were trained on are left out", len(every))
        if rows.empty:
            raise BoneAgeError("Nothing is left: every image was trained on.")
        return rows
    trained = ", ".join(str(path) for path, ids in seen.items() if ids)
    same = (
        "\nIf they are other children under the same ids: seen=content, which looks at the pictures alone."
        if choice == "refuse"
        else ""
    )
    raise BoneAgeError(
        f"{len(every)} of the {rows['id'].nunique()} images were trained on by {trained} "
        f"(id {format_list(sorted(every), 5)}): their errors would flatter it.\n"
        f"Leave them out with seen=drop, or keep and mark them with seen=allow.{same}"
    )
