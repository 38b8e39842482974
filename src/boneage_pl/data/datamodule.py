"""The LightningDataModule: table → split → images → batches."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import pandas as pd
import torch
from torch.utils.data import DataLoader

from boneage_pl.batch import Batch
from boneage_pl.data.images import hash_images
from boneage_pl.data.samples import EpochOrder, Radiographs
from boneage_pl.data.split import Protocol, age_edges, make_split
from boneage_pl.data.split_source import (
    check_overlap,
    check_unchanged,
    describe_split,
    read_split,
    restore_split,
)
from boneage_pl.data.table import read_table
from boneage_pl.errors import BoneageError
from boneage_pl.hardware import default_workers


class BoneAgeData(L.LightningDataModule):
    """Radiographs with sex and bone age, split by the published protocol.

    Args:
        root: folder of the data; any layout that `read_table` recognises.
        image_size: side of the square images in pixels.
        batch_size: images a batch.
        protocol, age_bins, samples_per_group, validation_share, seed: as in `make_split`; the seed also
            decides order and flips.
        split_file: a run's split.csv to use exactly, instead of drawing one.
        new_split: with `origin`, draw a split instead of using the checkpoint's.
        allow_overlap: with `origin`, accept validation images that the checkpoint trained on.
        workers: loader processes; `None` chooses from the machine's cores.
        generate: draws the data into `root` first (the phantom).
        origin: the split record of the checkpoint that training starts from.

    After `setup`: `table` (a row an image), `split` (a row a sample), `record` (the split as plain values).
    """

    def __init__(
        self,
        root: str,
        image_size: int = 500,
        batch_size: int = 32,
        protocol: Protocol = "disjoint",
        age_bins: int = 10,
        samples_per_group: int = 400,
        validation_share: float = 0.25,
        split_file: str | None = None,
        new_split: bool = False,
        allow_overlap: bool = False,
        workers: int | None = None,
        seed: int = 0,
        generate: Callable[[Path], None] | None = None,
        origin: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if not str(root):
            raise BoneageError(
                "data.root is empty: name a folder, and see whether BONEAGE_DATA is set to nothing."
            )
        self.root = Path(str(root)).expanduser()
        self.image_size = image_size
        self.batch_size = batch_size
        self.how: dict[str, Any] = {
            "protocol": protocol,
            "age_bins": age_bins,
            "samples_per_group": samples_per_group,
            "validation_share": validation_share,
            "seed": seed,
        }
        self.split_file = split_file
        self.allow_overlap = allow_overlap
        self.workers = default_workers() if workers is None else workers
        self.seed = seed
        self.generate = generate
        self.origin = origin
        self.use_origin = origin is not None and split_file is None and not new_split
        self._ready = False

    def prepare_data(self) -> None:
        """Draw the data where they are synthetic; returns at once where they are there."""
        if self.generate is not None:
            self.generate(self.root)

    def setup(self, stage: str | None = None) -> None:  # noqa: ARG002
        """Read and check the table, and divide it.

        Raises:
            BoneageError: see `read_table`, `make_split` and `check_overlap`.
        """
        if self._ready:  # Lightning calls this again before validate and before fit
            return
        self.table = read_table(self.root)
        split, how, edges = self._divide()
        images = self.table[self.table["id"].isin(split["id"])]
        hashes = hash_images(images)
        if self.origin is not None and not self.allow_overlap:
            if self.use_origin:
                check_unchanged(hashes, self.origin["hashes"])
            else:
                check_overlap(split, hashes, self.origin)
        self.record = describe_split(split, hashes, **how, edges=edges)
        paths = dict(zip(images["id"], images["path"], strict=True))
        self.split = split
        self.paths = split["id"].map(paths)
        self._ready = True

    def _divide(self) -> tuple[pd.DataFrame, dict[str, Any], list[float]]:
        if self.use_origin and self.origin is not None:
            how = {key: self.origin[key] for key in self.how}
            return restore_split(self.origin, self.table), how, self.origin["edges"]
        edges = age_edges(self.table["bone_age"], self.how["age_bins"])
        if self.split_file is not None:
            split = read_split(Path(self.split_file), self.table)
            return split, {**self.how, "protocol": f"file {self.split_file}"}, edges
        return make_split(self.table, **self.how), self.how, edges

    @property
    def validation_rows(self) -> pd.DataFrame:
        """The validation rows (`id, male, bone_age`) in the order that `val_dataloader` serves them in."""
        return self._side("validation")[["id", "male", "bone_age"]]

    def train_dataloader(self) -> DataLoader[Batch]:
        """Return the training rows in an order of their own each epoch."""
        dataset = self._dataset("train", train=True)
        return self._loader(dataset, EpochOrder(len(dataset), self.seed))

    def val_dataloader(self) -> DataLoader[Batch]:
        """Return the validation rows, always in the split's order."""
        dataset = self._dataset("validation", train=False)
        return self._loader(dataset, EpochOrder(len(dataset), seed=None))

    def _dataset(self, subset: str, *, train: bool) -> Radiographs:
        rows = self._side(subset)
        return Radiographs(rows, self.paths[rows.index], self.image_size, train=train, seed=self.seed)

    def _side(self, subset: str) -> pd.DataFrame:
        return self.split[self.split["subset"] == subset]

    def _loader(self, dataset: Radiographs, order: EpochOrder) -> DataLoader[Batch]:
        return DataLoader(
            dataset,
            batch_size=self.batch_size,
            sampler=order,
            num_workers=self.workers,
            persistent_workers=self.workers > 0,
            pin_memory=torch.cuda.is_available(),
        )
