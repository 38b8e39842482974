"""Select the images of an evaluation, and apply the leakage policy."""

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
from boneage_pl.data.tables.validate import check_on_invalid, drop_invalid_images, format_list
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
    """Return, by checkpoint, the ids of rows that show images of its split record.

    Args:
        checkpoints: whose images are searched.
        rows: `id`.
        stores: the prepared images by square.
        images_of: which images of a split record.
        by_id: whether an id is the same child in both.
    """
    overlap = {}
    for checkpoint in checkpoints:
        images, seen = stores[checkpoint.metadata.resize_spec].images, images_of(checkpoint.metadata.split)
        overlap[checkpoint.path] = seen.overlap(
            rows["id"], images.file_sha256, images.pixel_sha256, by_id=by_id
        )
    return overlap


def apply_leakage_policy(choice: str, rows: pd.DataFrame, seen: dict[Path, set[str]]) -> pd.DataFrame:
    """Return the rows to evaluate: all if none was trained on, or if `choice` allows it.

    Args:
        choice: the leakage policy, `leakage`.
        rows: candidates.
        seen: ids that were trained on, by checkpoint.

    Raises:
        BoneAgeError: some were trained on and may not, or all are excluded.
    """
    every = set().union(*seen.values())
    if not every or choice == "allow":
        return rows
    if choice == "exclude":
        rows = rows[~rows["id"].isin(every)].reset_index(drop=True)
        log.info("%d images that were trained on are left out", len(every))
        if rows.empty:
            raise BoneAgeError("Nothing is left: every image was trained on.")
        return rows
    trained = ", ".join(str(path) for path, ids in seen.items() if ids)
    same = "\nIf they are other children under the same ids: leakage=content_only."
    raise BoneAgeError(
        f"{len(every)} of the {rows['id'].nunique()} images were trained on by {trained} "
        f"(id {format_list(sorted(every), 5)}): their errors would flatter it.\n"
        "Leave them out with leakage=exclude, or keep and mark them with leakage=allow."
        + (same if choice == "error" else "")
    )


# Options that an evaluation without data of its own takes from the checkpoint.
_DATA_OPTIONS = ("root", "table", "columns", "age_unit", "sheet", "on_invalid")
# what an evaluation takes from the checkpoint alone
_CHECKPOINT_OPTIONS = [
    f"data.{name}"
    for name in (
        *("image_size", "resize_mode", "split_protocol", "age_bins", "samples_per_group", "val_fraction"),
        *("fold", "split_file", "split_from", "split_seed", "allow_leakage"),
    )
]
_OTHER_DATA = ("data", "data.root", "data.table")  # what names other data


@dataclass
class EvaluationSet:
    """Radiographs with known ages.

    Args:
        spec: where they are.
        own: whether they are the validation images of the checkpoints' own split.
        synthetic: whether they were drawn.
        table: `id, male, bone_age, path` of every usable row, one an image.
        rows: to evaluate, in the split's order if it is a split's.
        stores: the prepared images by square.
        images: what is known of them, by id.
        seen: ids that show an image which a checkpoint was trained on.
        num_excluded: how many of them are not among the rows.
        rows_seen_in_validation: how many rows show images that validated a checkpoint: they selected its
            epoch and calibrated its intervals.
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
        """What they are, in a report's sentence."""
        images = "the validation images of its own run" if self.own else "every image of the table"
        return f"{images} but {self.num_excluded} that were trained on" if self.num_excluded else images

    def conditions(self, frame: ResizeSpec) -> dict[str, ReadPixels]:
        """Return the conditions of a robustness test, see `build_conditions`, in a square."""
        paths = dict(zip(self.table["id"], self.table["path"], strict=True))

        def resample(resampling: Resampling) -> ReadPixels:
            return partial(load_resized, paths, replace(frame, resampling=resampling), self.images.bit_depths)

        return build_conditions(self.stores[frame].read, resample)


def select_evaluation_set(
    config: DictConfig, checkpoints: Sequence[Checkpoint], rivals: Sequence[Checkpoint] = ()
) -> EvaluationSet:
    """Return the evaluation set that `subset`, `data` and `leakage` of a configuration select.

    Args:
        config: of the evaluation.
        checkpoints: whose own split it may be.
        rivals: other checkpoints, evaluated on the same images.

    Raises:
        BoneAgeError: see `load_table` and `build_cache`; checkpoints of several splits evaluated on
            their own; images that one was trained on, unless allowed.
    """
    typed = {o.lstrip("+~").split("=")[0] for o in HydraConfig.get().overrides.task}
    if ignored := sorted(typed.intersection(_CHECKPOINT_OPTIONS)):
        raise BoneAgeError(
            f"{ignored[0]}=: the checkpoint's split and image size are used in an evaluation. Leave it out."
        )
    other = bool(typed.intersection(_OTHER_DATA))
    own = (config.subset or ("all" if other else "validation")) == "validation"
    data = _data(config, checkpoints[0].metadata, typed, another="data.root" in typed and not own)
    place = DatasetSpec.from_config(data)
    if data.get("phantom") and typed.intersection(("data", "data.root")):
        generate_if_missing(instantiate(data.phantom), place.root)
    everyone = [*checkpoints, *rivals]
    table, stores = _images(data, place, [c.metadata.resize_spec for c in everyone])
    images = stores[checkpoints[0].metadata.resize_spec].images
    rows = _own_rows(checkpoints, table, images) if own else table[["id", "male", "bone_age"]]
    by_id = config.leakage != "content_only"
    seen = find_overlap(everyone, rows, stores, SeenImages.training_images, by_id=by_id)
    trained = set().union(*seen.values())
    rows = apply_leakage_policy(config.leakage, rows, seen)
    left_out = len(trained.difference(rows["id"]))
    synthetic = checkpoints[0].metadata.synthetic if own else bool(data.get("phantom"))
    validation = partial(SeenImages.from_side, subset="validation")
    selected = set().union(*find_overlap(checkpoints, rows, stores, validation, by_id=by_id).values())
    validated = int(rows["id"].isin(selected).sum())
    return EvaluationSet(place, own, synthetic, table, rows, stores, images, trained, left_out, validated)


def _data(config: DictConfig, record: CheckpointMetadata, typed: set[str], *, another: bool) -> DictConfig:
    """Return the configuration of the data: the checkpoint's own, but for what is typed; or `another`."""
    if another or "data" in typed:
        return config.data
    stored = {name: record.config["data"].get(name, config.data.get(name)) for name in _DATA_OPTIONS}
    if record.root and Path(record.root).exists():  # the training may have been in another folder than this
        stored["root"] = record.root
    store = record.config["data"].get("cache_dir")
    if store and Path(store).is_dir():  # an untrusted file creates no folder
        stored["cache_dir"] = store
    data = config.data.copy()
    OmegaConf.set_struct(data, False)
    data.update({**stored, "phantom": None})  # an untrusted file generates nothing
    for key in (key for key in typed if key.startswith("data.")):
        OmegaConf.update(data, key.removeprefix("data."), OmegaConf.select(config, key))
    return data


def _images(
    data: DictConfig, spec: DatasetSpec, frames: list[ResizeSpec]
) -> tuple[pd.DataFrame, dict[ResizeSpec, ImageCache]]:
    """Return the table's usable rows, and their prepared images by square."""
    index = open_dataset(spec)
    folder = resolve_cache_dir(data.cache_dir, spec.root)
    caches = {frame: index.build_cache(folder, frame, data.cache_workers) for frame in dict.fromkeys(frames)}
    images, issues = caches[frames[0]].images, index.issues
    usable = drop_invalid_images(issues, index.table, images.errors, images.pixel_sha256)
    if issues and check_on_invalid(data.on_invalid) == "raise":
        raise issues.error()
    if issues:
        log.warning("%d rows or images are left out:\n%s", len(issues), issues.summary())
    if usable.empty:
        raise BoneAgeError(f"{issues.source}: no row can be used.")
    return usable.reset_index(drop=True), caches


def _own_rows(checkpoints: Sequence[Checkpoint], table: pd.DataFrame, images: ImageIndex) -> pd.DataFrame:
    """Return the validation rows of the checkpoints' split, as often as it has each."""
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
            f"{len(changed)} of the {rows['id'].nunique()} images of the checkpoint's split are not the "
            f"files it knew (id {format_list(changed, 5)}).\n"
            "Use the data.root that it was trained on; or, if these are other radiographs, subset=all."
        )
    return rows
