"""Source of a run's split: drawn, from a file, or the checkpoint's."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import pandas as pd

from boneage_pl.data.cache.store import ImageIndex
from boneage_pl.data.groups import age_edges
from boneage_pl.data.sampling import Sampling, balanced
from boneage_pl.data.split import count_draws, draws_each_epoch, make_split
from boneage_pl.data.split_record import (
    SeenImages,
    check_images_unchanged,
    check_no_leakage,
    describe_population,
    read_split,
    split_from_dict,
    split_to_dict,
)
from boneage_pl.errors import BoneAgeError

SplitFrom = Literal["checkpoint", "new", "new_keep_train"]


@dataclass(frozen=True)
class SplitSource:
    """Options that define a split of a table.

    Args:
        options: `protocol, age_bins, samples_per_group, val_fraction, fold, seed` of `make_split`.
        sampler: number of training rows per group, see `make_split`.
        file: a run's split.csv to use.
        origin: split record of the initial checkpoint.
        split_from: with `origin`, whether to use its split; `new_keep_train` draws a new one that keeps its
            training images in the training set.
        allow_leakage: with `origin`, allow its training images in validation.

    Raises:
        BoneAgeError: unknown `split_from`.
    """

    options: dict[str, Any]
    sampler: Sampling = balanced
    file: str | None = None
    origin: dict[str, Any] | None = None
    split_from: SplitFrom = "checkpoint"
    allow_leakage: bool = False

    def __post_init__(self) -> None:
        if self.split_from not in get_args(SplitFrom):
            choices = ", ".join(get_args(SplitFrom))
            raise BoneAgeError(f"data.split_from={self.split_from}: choose from {choices}.")

    @property
    def stored(self) -> dict[str, Any] | None:
        """The checkpoint's split record, if it is used."""
        return self.origin if self.file is None and self.split_from == "checkpoint" else None

    def make(
        self,
        table: pd.DataFrame,
        contents: Mapping[str, str] | None = None,
        hashes: Mapping[str, str] | None = None,
    ) -> tuple[pd.DataFrame, dict[str, Any]]:
        """Return the split of a table, see `make_split`, and its options with `edges` and `draws`.

        Args:
            table: of the images.
            contents, hashes: SHA-256 of cached pixels and files by id, if known.

        Raises:
            BoneAgeError: see `make_split`, `read_split` and `split_from_dict`.
        """
        if stored := self.stored:
            how = {key: stored[key] for key in (*self.options, "draws", "edges") if key in stored}
            return split_from_dict(stored, table), how
        how = {**self.options, "edges": age_edges(table["bone_age"], self.options["age_bins"])}
        if self.file is not None:
            return read_split(Path(self.file), table), {**how, "protocol": f"file {self.file}"}
        trained: set[str] = set()
        if self.origin is not None and self.split_from == "new_keep_train":
            images = SeenImages.training_images(self.origin)
            trained = images.overlap(table["id"], hashes or {}, contents or {})
        split = make_split(
            table, **self.options, pixel_sha256=contents, sampler=self.sampler, training_images=trained
        )
        if draws_each_epoch(how["protocol"], self.sampler):
            draws = count_draws(split, self.sampler, how["samples_per_group"], how["val_fraction"])
            how["draws"] = [list(pair) for pair in draws.items()]
        return split, how

    def record(
        self, split: pd.DataFrame, how: dict[str, Any], table: pd.DataFrame, images: ImageIndex
    ) -> dict[str, Any]:
        """Check a split for leakage and return it as plain values, see `split_to_dict`.

        Raises:
            BoneAgeError: see `check_images_unchanged` and `check_no_leakage`.
        """
        drawn = set(split["id"])
        used = {i: images.file_sha256[i] for i in table["id"] if i in drawn}
        if self.origin is not None and not self.allow_leakage:
            if self.stored:
                check_images_unchanged(used, self.origin["file_sha256"])
            else:
                check_no_leakage(split, images, self.origin)
        population = describe_population(table, split, how["edges"])
        return split_to_dict(split, used, images.pixel_sha256, self.origin, **how, population=population)
