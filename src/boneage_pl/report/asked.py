"""Which radiographs checkpoints are asked about, and which of them they have been trained on."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from boneage_pl.data.depth import bits
from boneage_pl.data.frame import Frame, Resampling
from boneage_pl.data.images import read_originals
from boneage_pl.data.place import Place
from boneage_pl.data.preparation import prepare_images
from boneage_pl.data.problems import add_bad_images, check_choice, first_ten
from boneage_pl.data.source import draw, store_folder
from boneage_pl.data.split_source import restore_split
from boneage_pl.data.store import Examined, ImageStore
from boneage_pl.data.table import examine_table
from boneage_pl.errors import BoneageError
from boneage_pl.report.answers import Read
from boneage_pl.report.seen import chose_epoch, seen_by, without_seen
from boneage_pl.report.stress import ways_of
from boneage_pl.run.checkpoint import Checkpoint
from boneage_pl.run.record import Record

log = logging.getLogger(__name__)

# What a checkpoint remembers of its data, and an evaluation without data of its own takes from it.
_REMEMBERED = ("root", "table", "columns", "age_unit", "known", "on_bad_image")
_OTHER = ("data", "data.root", "data.table")  # what names other data


@dataclass
class Asked:
    """Radiographs with known ages.

    Args:
        place: where they are.
        own: whether they are the validation images of the checkpoints' own split.
        synthetic: whether they were drawn.
        table: `id, male, bone_age, path` of every usable row, one an image.
        rows: those that are asked, in the split's order where it is a split's.
        stores: the prepared images by square.
        images: what is known of them, by id.
        seen: ids that show an image which a checkpoint was trained on.
        left_out: how many of them are not among the rows.
        chose_epoch: how many rows show images that chose the epoch of a checkpoint.
    """

    place: Place
    own: bool
    synthetic: bool
    table: pd.DataFrame
    rows: pd.DataFrame
    stores: dict[Frame, ImageStore]
    images: Examined
    seen: set[str]
    left_out: int
    chose_epoch: int

    @property
    def words(self) -> str:
        """What they are, in a report's sentence."""
        images = "the validation images of its own run" if self.own else "every image of the table"
        return f"{images} but {self.left_out} that were trained on" if self.left_out else images

    def ways(self, frame: Frame) -> dict[str, Read]:
        """Return the ways that the images are shown in a stress test, in a square."""
        paths = dict(zip(self.table["id"], self.table["path"], strict=True))
        used = {i: bits(depth, self.images.levels) for i, depth in self.images.depths.items()}

        def redone(resampling: Resampling) -> Read:
            return partial(read_originals, paths, replace(frame, resampling=resampling), used)

        return ways_of(self.stores[frame].read, redone)


def asked_about(
    config: DictConfig, checkpoints: Sequence[Checkpoint], rivals: Sequence[Checkpoint] = ()
) -> Asked:
    """Return what `subset`, `data` and `seen` of a configuration say that checkpoints are asked about.

    Args:
        config: of the evaluation.
        checkpoints: whose own split it may be.
        rivals: others that are asked too.

    Raises:
        BoneageError: see `examine_table` and `prepare_images`; checkpoints of several splits asked about
            their own; images that one was trained on, unless they are asked for.
    """
    typed = {o.lstrip("+~").split("=")[0] for o in HydraConfig.get().overrides.task}
    other = bool(typed.intersection(_OTHER))
    own = (config.subset or ("all" if other else "validation")) == "validation"
    data = _data(config, checkpoints[0].record, typed, another="data.root" in typed and not own)
    place = Place.configured(data)
    if data.get("generate") and typed.intersection(("data", "data.root")):
        draw(instantiate(data.generate), place.root)
    everyone = [*checkpoints, *rivals]
    table, stores = _images(data, place, [c.record.frame for c in everyone])
    images = stores[checkpoints[0].record.frame].images
    rows = _own_rows(checkpoints, table, images) if own else table[["id", "male", "bone_age"]]
    by_id = config.seen != "content"
    seen = seen_by(everyone, rows, stores, by_id=by_id)
    trained = set().union(*seen.values())
    rows = without_seen(config.seen, rows, seen, trained)
    left_out = len(trained.difference(rows["id"]))
    synthetic = checkpoints[0].record.synthetic if own else bool(data.get("generate"))
    chose = chose_epoch(checkpoints, rows, stores, by_id=by_id)
    return Asked(place, own, synthetic, table, rows, stores, images, trained, left_out, chose)


def _data(config: DictConfig, record: Record, typed: set[str], *, another: bool) -> DictConfig:
    """Return the configuration of the data: the checkpoint's own, but for what is typed; or `another`."""
    if another or "data" in typed:
        return config.data
    remembered = {name: record.config["data"].get(name, config.data.get(name)) for name in _REMEMBERED}
    if record.root and Path(record.root).exists():  # the training may have been in another folder than this
        remembered["root"] = record.root
    store = record.config["data"].get("store")
    if store and Path(store).is_dir():  # a file of a stranger's makes no folder
        remembered["store"] = store
    data = config.data.copy()
    OmegaConf.set_struct(data, False)
    data.update({**remembered, "generate": None})  # a file of a stranger's draws nothing
    for key in (key for key in typed if key.startswith("data.")):
        OmegaConf.update(data, key.removeprefix("data."), OmegaConf.select(config, key))
    return data


def _images(
    data: DictConfig, place: Place, frames: list[Frame]
) -> tuple[pd.DataFrame, dict[Frame, ImageStore]]:
    """Return the table's usable rows, and their prepared images by square."""
    table, problems = examine_table(place)
    folder = store_folder(data.store, place.root)
    workers = data.prepare_workers
    stores = {
        frame: prepare_images(table, place.root, folder, frame, workers) for frame in dict.fromkeys(frames)
    }
    images = stores[frames[0]].images
    usable = add_bad_images(problems, table, images.bad, images.contents)
    if problems and check_choice(data.on_bad_image) == "error":
        raise problems.error()
    if problems:
        log.warning("%d rows or images are left out:\n%s", len(problems), problems.told())
    if usable.empty:
        raise BoneageError(f"{problems.source}: no row can be used.")
    problems.tell(log)
    return usable[["id", "male", "bone_age", "path"]].reset_index(drop=True), stores


def _own_rows(checkpoints: Sequence[Checkpoint], table: pd.DataFrame, images: Examined) -> pd.DataFrame:
    """Return the validation rows of the checkpoints' split, as often as it has each."""
    first, *others = checkpoints
    record: dict[str, Any] = first.record.split
    for other in others:
        if sorted(other.record.split["validation"]) != sorted(record["validation"]):
            raise BoneageError(
                f"{first.path} and {other.path} have different validation images.\n"
                "Ask them about images that neither was trained on: subset=all seen=drop, or data.root=."
            )
    split = restore_split(record, table)
    rows = split.loc[split["subset"] == "validation", ["id", "male", "bone_age"]].reset_index(drop=True)
    changed = [i for i in rows["id"].unique() if images.hashes[i] != record["hashes"][i]]
    if changed:
        raise BoneageError(
            f"{len(changed)} of the {rows['id'].nunique()} images of the checkpoint's split are not the "
            f"files it knew (id {first_ten(changed, 5)}).\n"
            "Use the data.root that it was trained on; or, if these are other radiographs, subset=all."
        )
    return rows
