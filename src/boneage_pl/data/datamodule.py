"""LightningDataModule of a labeled set of hand radiographs."""

import logging
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import pandas as pd
import torch
from torch.utils.data import DataLoader

from boneage_pl.data.cache.build import DatasetIndex, open_dataset, relative_paths
from boneage_pl.data.cache.index import index_images
from boneage_pl.data.cache.store import ImageIndex
from boneage_pl.data.dataloaders import DataLoaderFactory, DeviceImages
from boneage_pl.data.dataset import Batch, check_shares
from boneage_pl.data.groups import missing_sex_note
from boneage_pl.data.images.bit_depth import describe_bit_depths
from boneage_pl.data.images.radiograph import load_resized
from boneage_pl.data.images.resize import ReadPixels, ResizeMode, ResizeSpec
from boneage_pl.data.phantom import generate_if_missing
from boneage_pl.data.sampling import Sampling, balanced
from boneage_pl.data.split import Protocol
from boneage_pl.data.split_source import SplitFrom, SplitSource
from boneage_pl.data.tables.spec import DatasetSpec, resolve_cache_dir
from boneage_pl.data.tables.validate import OnInvalid, check_on_invalid
from boneage_pl.errors import BoneAgeError

log = logging.getLogger(__name__)


class BoneAgeDataModule(L.LightningDataModule):
    """Radiographs with sex and bone age, split by the published protocol.

    Args:
        root: folder of the data, or its table; any layout that `load_table` recognizes.
        image_size: side of the square images in pixels.
        batch_size: images per optimizer step, for all processes and accumulated parts together.
        split_protocol, age_bins, samples_per_group, val_fraction, fold, seed: see `make_split`; the seed also
            determines order and augmentation.
        split_seed: seed of the split; `None` for `seed`.
        split_file: a run's split.csv to use.
        split_from, allow_leakage: with `origin`, see `SplitSource`.
        table, columns, age_unit, sheet: of the label table, see `DatasetSpec`.
        on_invalid: `raise` an error for unusable rows and images, or `skip` them.
        cache: read images from a cache, built on first use (see `build_cache`), or decode the original files
            for every sample. The tensors are identical.
        cache_dir: folder of the cache; `None` for `prepared/` inside `root`.
        cache_workers: number of decoding processes; `None` for one per core.
        num_workers: number of loader workers; `None` for `default_workers`.
        prefetch_factor: batches per worker; `None` for PyTorch's 2.
        pin_memory: pin batches in memory; `None` for yes with a GPU.
        persistent_workers: keep workers between epochs.
        on_device: keep the images in the training device's memory, without workers; `None` for yes on a GPU
            if they need at most a quarter of it. The tensors are identical.
        resize_mode: see `ResizeSpec`.
        phantom: generates synthetic data into `root` first.
        sampler: number of training rows per group, see `boneage_pl.data.sampling`.
        origin: split record of the initial checkpoint.
        index: the data set, if it has been read already.

    After `setup`: `table` (a row per image), `split` (a row per sample), `record` (the split as plain
    values), `skipped` (skipped rows: `id, problem, where`).
    """

    def __init__(
        self,
        root: str,
        image_size: int = 500,
        batch_size: int = 32,
        split_protocol: Protocol = "disjoint",
        age_bins: int = 10,
        samples_per_group: int = 400,
        val_fraction: float = 0.25,
        fold: int = 1,
        split_file: str | None = None,
        split_from: SplitFrom = "checkpoint",
        allow_leakage: bool = False,
        table: str | None = None,
        columns: Mapping[str, Any] | None = None,
        age_unit: str | None = None,
        sheet: str | None = None,
        on_invalid: OnInvalid = "raise",
        cache: bool = True,
        cache_dir: str | None = None,
        cache_workers: int | None = None,
        num_workers: int | None = None,
        prefetch_factor: int | None = None,
        pin_memory: bool | None = None,
        persistent_workers: bool = True,
        on_device: bool | None = None,
        seed: int = 0,
        split_seed: int | None = None,
        resize_mode: ResizeMode = "crop",
        phantom: Callable[[Path], None] | None = None,
        sampler: Sampling = balanced,
        origin: dict[str, Any] | None = None,
        index: DatasetIndex | None = None,
    ) -> None:
        super().__init__()
        self.spec = DatasetSpec.from_options(root, table, columns, age_unit, sheet)
        self.root = self.spec.root
        self.resize_spec = ResizeSpec(image_size, resize_mode)
        self.loaders = DataLoaderFactory(
            batch_size,
            seed,
            image_size,
            cache,
            num_workers,
            prefetch_factor,
            pin_memory,
            persistent_workers,
            on_device,
        )
        self.device_images: DeviceImages | None = None
        split_options = {
            "protocol": split_protocol,
            "age_bins": age_bins,
            "samples_per_group": samples_per_group,
            "val_fraction": val_fraction,
            "fold": fold,
            "seed": seed if split_seed is None else split_seed,
        }
        self.split_source = SplitSource(split_options, sampler, split_file, origin, split_from, allow_leakage)
        self.on_invalid = check_on_invalid(on_invalid)
        self.cache = cache
        self.cache_dir = resolve_cache_dir(cache_dir, self.root)
        self.cache_workers = cache_workers
        self.phantom = phantom
        self._dataset_index = index
        self._ready = False

    def prepare_data(self) -> None:
        """Generate synthetic data and build the image cache, unless they exist.

        Raises:
            BoneAgeError: see `load_table` and `build_cache`.
        """
        if self.phantom is not None:
            generate_if_missing(self.phantom, self.root)
        index = self._index()
        if self.cache and index.cache is None:
            if not index.issues:
                self.split_source.make(index.table)  # reject invalid splits before decoding
            index.cache = index.build_cache(self.cache_dir, self.resize_spec, self.cache_workers)

    def setup(self, stage: str | None = None) -> None:  # noqa: ARG002
        """Check the table and all images, and split the usable ones.

        Raises:
            BoneAgeError: see `load_table`, `make_split` and `check_no_leakage`; or unusable rows and images
                with `on_invalid="raise"`.
        """
        if self._ready:  # Lightning calls this before validate and fit
            return
        index = self._index()
        self.read, images = self._source(index)
        self.bit_depths = images.bit_depths
        self.table = index.usable_rows(images, self.on_invalid)
        stored = self.split_source.stored
        if stored and (lost := index.issues.filter({*stored["train"], *stored["validation"]})):
            raise BoneAgeError(
                f"{len(lost)} images of the checkpoint's split are unusable.\n{lost.summary()}\n"
                "Get them again, or draw a new split with data.split_from=new."
            )
        self.skipped = index.issues.table()
        depths = describe_bit_depths((f.bit_depth for f in images.files.values()), images.bit_depths)
        for note in filter(None, (missing_sex_note(self.table), depths)):
            log.info("%s", note)
        self.split, how = self.split_source.make(self.table, images.pixel_sha256, images.file_sha256)
        self.record = self.split_source.record(self.split, how, self.table, images)
        self.draws = dict(how["draws"]) if how.get("draws") else None
        self._ready = True

    def _index(self) -> DatasetIndex:
        """Return the data set's index, read once per process."""
        if self._dataset_index is None:
            folder = self.cache_dir if self.cache else None
            self._dataset_index = open_dataset(self.spec, folder, self.resize_spec)
        return self._dataset_index

    def _source(self, index: DatasetIndex) -> tuple[ReadPixels, ImageIndex]:
        """Return the function that reads pixels by id, and the index of the images."""
        if not self.cache:
            relative = relative_paths(index.table, self.root)
            images = index_images(relative, self.root, self.resize_spec, self.cache_workers)
            paths = dict(zip(index.table["id"], index.table["path"], strict=True))
            return partial(load_resized, paths, self.resize_spec, images.bit_depths), images
        if index.cache is None:
            raise BoneAgeError(
                f"No current image cache in {self.cache_dir}.\n"
                "Build it with  python -m boneage_pl.prepare data.root=<folder>  and the same options."
            )
        return index.cache.read, index.cache.images

    @property
    def validation_rows(self) -> pd.DataFrame:
        """The validation rows (`id, male, bone_age`) in the order of `val_dataloader`."""
        return self._subset("validation")[["id", "male", "bone_age"]]

    @property
    def epoch_rows(self) -> int:
        """Number of training rows per epoch."""
        return sum(self.draws.values()) if self.draws else len(self._subset("train"))

    def check_shares(self, processes: int, parts: int) -> None:
        """Raise `BoneAgeError` if the training batches cannot be divided equally (see `check_shares`)."""
        check_shares(self.epoch_rows, self.loaders.batch_size, processes, parts)

    def steps(self, parts: int = 1, limit: float | None = None, processes: int = 1) -> int:
        """Return the number of optimizer steps per epoch, see `DataLoaderFactory.steps`."""
        return self.loaders.steps(self.epoch_rows, parts, limit, processes)

    def train_dataloader(self) -> DataLoader[Batch]:
        """Return the training loader, shuffled each epoch."""
        return self._loader("train")

    def val_dataloader(self) -> DataLoader[Batch]:
        """Return the validation loader, in the split's order."""
        return self._loader("validation")

    def _loader(self, subset: str) -> DataLoader[Batch]:
        if self.device_images is None:
            ids = list(self.split["id"].unique())
            self.device_images = self.loaders.device_images(ids, self.read, self.trainer)
        train = subset == "train"
        draws = self.draws if train else None
        images, trainer = self.device_images, self.trainer
        return self.loaders.loader(self._subset(subset), self.read, images, trainer, train=train, draws=draws)

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        """Move a batch to the device, where its images may already be."""
        batch = super().transfer_batch_to_device(batch, device, dataloader_idx)
        return {**batch, "image": self.device_images[batch["image"]]} if self.device_images else batch

    def _subset(self, subset: str) -> pd.DataFrame:
        return self.split[self.split["subset"] == subset]
