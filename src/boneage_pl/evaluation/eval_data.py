"""Select the images of an evaluation and apply the leakage policy."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from boneage_pl.data.cache.build import open_dataset
from boneage_pl.data.cache.store import ImageCache, ImageIndex
from boneage_pl.data.images.radiograph import load_resized
from boneage_pl.data.images.resize import ReadPixels, Resampling, ResizeSpec
from boneage_pl.data.phantom import generate_if_missing
from boneage_pl.data.split_record import SeenImages, split_from_dict
from boneage_pl.data.tables.spec import DatasetSpec, resolve_cache_dir
from boneage_pl.data.tables.validate import format_list
from boneage_pl.errors import BoneAgeError
from boneage_pl.evaluation.robustness import build_conditions
from boneage_pl.training.checkpoint import Checkpoint
from boneage_pl.training.metadata import CheckpointMetadata

log = logging.getLogger(__name__)


def find_overlap(
    checkpoints: Sequence[Checkpoint],
    rows: pd.DataFrame,
    stores: dict[ResizeSpec, ImageCache],
    images_of: Callable[[dict[str, Any]], SeenImages],
    *,
    by_id: bool,
) -> dict[Path, set[str]]:
    """Return, by checkpoint, the ids of rows that show images of its split.

    Args:
        checkpoints: the checkpoints.
        rows: `id`.
        stores: cached images by preprocessing.
        images_of: selects images of a split record.
        by_id: whether equal ids mean the same image.
    """
    overlap = {}
    for checkpoint in checkpoints:
        images = stores[checkpoint.metadata.resize_spec].images
        overlap[checkpoint.path] = images_of(checkpoint.metadata.split).overlap(
            rows["id"], images.file_sha256, images.pixel_sha256, by_id=by_id
        )
    return overlap


def apply_leakage_policy(choice: str, rows: pd.DataFrame, seen: dict[Path, set[str]]) -> pd.DataFrame:
    """Return the rows to evaluate under a leakage policy.

    Args:
        choice: value of `leakage=`.
        rows: candidates.
        seen: ids of training images, by checkpoint.

    Raises:
        BoneAgeError: training images are not allowed, or all rows are excluded.
    """
    leaked = set().union(*seen.values())
    if not leaked or choice == "allow":
        return rows
    if choice == "exclude":
        rows = rows[~rows["id"].isin(leaked)].reset_index(drop=True)
        log.info("%d training images are excluded", len(leaked))
        if rows.empty:
            raise BoneAgeError("leakage=exclude: all images are training images.")
        return rows
    trained = ", ".join(str(path) for path, ids in seen.items() if ids)
    same = "\nIf equal ids are different children here, use leakage=content_only."
    raise BoneAgeError(
        f"{len(leaked)} of the {rows['id'].nunique()} images are training images of {trained} "
        f"(id {format_list(sorted(leaked), 5)}), so the MAE would be optimistic.\n"
        "Exclude them with leakage=exclude, or keep and mark them with leakage=allow."
        + (same if choice == "error" else "")
    )


# Options taken from the checkpoint unless other data are given.
_DATA_OPTIONS = ("root", "table", "columns", "age_unit", "sheet", "on_invalid")
# Options that always come from the checkpoint.
_CHECKPOINT_OPTIONS = [
    f"data.{name}"
    for name in (
        *("image_size", "resize_mode", "split_protocol", "age_bins", "samples_per_group", "val_fraction"),
        *("fold", "split_file", "split_from", "split_seed", "allow_leakage"),
    )
]
_OTHER_DATA = ("data", "data.root", "data.table")  # options that select other data


@dataclass
class EvaluationSet:
    """Radiographs with known ages.

    Args:
        spec: their location.
        own: whether they are the validation images of the checkpoints' split.
        synthetic: whether they are synthetic.
        table: `id, male, bone_age, path` of all usable rows, one per image.
        rows: rows to evaluate, in the order of the split if there is one.
        stores: cached images by preprocessing.
        images: index of the images, by id.
        seen: ids of training images of a checkpoint.
        num_excluded: number of these that are excluded from the rows.
        rows_seen_in_validation: number of rows that show validation images of a checkpoint, which selected
            its epoch and calibrated its intervals.
    """

    spec: DatasetSpec
    own: bool
    synthetic: bool
    table: pd.DataFrame
    rows: pd.DataFrame
    stores: dict[ResizeSpec, ImageCache]
    images: ImageIndex
    seen: set[str]
    num_excluded: int
    rows_seen_in_validation: int

    @property
    def describe(self) -> str:
        """Description for a report."""
        images = "the validation images of its own run" if self.own else "every image of the table"
        return f"{images} except {self.num_excluded} training images" if self.num_excluded else images

    def conditions(self, frame: ResizeSpec) -> dict[str, ReadPixels]:
        """Return the conditions of a robustness test, see `build_conditions`."""
        paths = dict(zip(self.table["id"], self.table["path"], strict=True))

        def resample(resampling: Resampling) -> ReadPixels:
            return partial(load_resized, paths, replace(frame, resampling=resampling), self.images.bit_depths)

        return build_conditions(self.stores[frame].read, resample)


def select_evaluation_set(
    config: DictConfig, checkpoints: Sequence[Checkpoint], rivals: Sequence[Checkpoint] = ()
) -> EvaluationSet:
    """Return the evaluation set that `subset`, `data` and `leakage` of a configuration select.

    Args:
        config: the evaluation's configuration.
        checkpoints: the evaluated checkpoints.
        rivals: checkpoints to compare with, on the same images.

    Raises:
        BoneAgeError: see `load_table` and `build_cache`; checkpoints with different validation images;
            training images that the policy does not allow.
    """
    typed = {o.lstrip("+~").split("=")[0] for o in HydraConfig.get().overrides.task}
    if ignored := sorted(typed.intersection(_CHECKPOINT_OPTIONS)):
        raise BoneAgeError(
            f"{ignored[0]}=: an evaluation uses the checkpoint's split and image size. Leave it out."
        )
    other = bool(typed.intersection(_OTHER_DATA))
    own = (config.subset or ("all" if other else "validation")) == "validation"
    data = _data(config, checkpoints[0].metadata, typed, another="data.root" in typed and not own)
    spec = DatasetSpec.from_config(data)
    if data.get("phantom") and typed.intersection(("data", "data.root")):
        generate_if_missing(instantiate(data.phantom), spec.root)
    all_checkpoints = [*checkpoints, *rivals]
    table, stores = _images(data, spec, [c.metadata.resize_spec for c in all_checkpoints])
    images = stores[checkpoints[0].metadata.resize_spec].images
    rows = _own_rows(checkpoints, table, images) if own else table[["id", "male", "bone_age"]]
    by_id = config.leakage != "content_only"
    seen = find_overlap(all_checkpoints, rows, stores, SeenImages.training_images, by_id=by_id)
    trained = set().union(*seen.values())
    rows = apply_leakage_policy(config.leakage, rows, seen)
    excluded = len(trained.difference(rows["id"]))
    synthetic = checkpoints[0].metadata.synthetic if own else bool(data.get("phantom"))
    validation = partial(SeenImages.from_side, subset="validation")
    selected = set().union(*find_overlap(checkpoints, rows, stores, validation, by_id=by_id).values())
    validated = int(rows["id"].isin(selected).sum())
    return EvaluationSet(spec, own, synthetic, table, rows, stores, images, trained, excluded, validated)


def _data(config: DictConfig, record: CheckpointMetadata, typed: set[str], *, another: bool) -> DictConfig:
    """Return the data configuration: the checkpoint's with typed options, or `config.data` for other data."""
    if another or "data" in typed:
        return config.data
    stored = {name: record.config["data"].get(name, config.data.get(name)) for name in _DATA_OPTIONS}
    if record.root and Path(record.root).exists():  # absolute, whatever the working folder was
        stored["root"] = record.root
    cache_dir = record.config["data"].get("cache_dir")
    if cache_dir and Path(cache_dir).is_dir():  # an untrusted file creates no folder
        stored["cache_dir"] = cache_dir
    data = config.data.copy()
    OmegaConf.set_struct(data, False)
    data.update({**stored, "phantom": None})  # an untrusted file generates nothing
    for key in (key for key in typed if key.startswith("data.")):
        OmegaConf.update(data, key.removeprefix("data."), OmegaConf.select(config, key))
    return data


def _images(
    data: DictConfig, spec: DatasetSpec, frames: list[ResizeSpec]
) -> tuple[pd.DataFrame, dict[ResizeSpec, ImageCache]]:
    """Return the table's usable rows and their cached images by preprocessing."""
    index = open_dataset(spec)
    folder = resolve_cache_dir(data.cache_dir, spec.root)
    caches = {frame: index.build_cache(folder, frame, data.cache_workers) for frame in dict.fromkeys(frames)}
    return index.usable_rows(caches[frames[0]].images, data.on_invalid), caches


def _own_rows(checkpoints: Sequence[Checkpoint], table: pd.DataFrame, images: ImageIndex) -> pd.DataFrame:
    """Return the validation rows of the checkpoints' split, with repeats."""
    first, *others = checkpoints
    record: dict[str, Any] = first.metadata.split
    for other in others:
        if sorted(other.metadata.split["validation"]) != sorted(record["validation"]):
            raise BoneAgeError(
                f"{first.path} and {other.path} have different validation images.\n"
                "Evaluate them on other images: subset=all leakage=exclude, or data.root=."
            )
    split = split_from_dict(record, table)
    rows = split.loc[split["subset"] == "validation", ["id", "male", "bone_age"]].reset_index(drop=True)
    changed = [i for i in rows["id"].unique() if images.file_sha256[i] != record["file_sha256"][i]]
    if changed:
        raise BoneAgeError(
            f"{len(changed)} of the {rows['id'].nunique()} images of the checkpoint's split have changed "
            f"since the training (id {format_list(changed, 5)}).\n"
            "Give the data.root of the training, or, for other radiographs, subset=all."
        )
    return rows
