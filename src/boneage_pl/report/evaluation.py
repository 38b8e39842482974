"""Checkpoints asked about radiographs with known ages."""

import json
import logging
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from numpy.typing import NDArray
from omegaconf import DictConfig, ListConfig, OmegaConf

from boneage_pl.data.frame import Frame, Pixels
from boneage_pl.data.place import Place
from boneage_pl.data.preparation import prepare_images
from boneage_pl.data.problems import add_bad_images, check_choice
from boneage_pl.data.source import draw, store_folder
from boneage_pl.data.split_source import restore_split
from boneage_pl.data.store import ImageStore
from boneage_pl.data.table import examine_table
from boneage_pl.errors import BoneageError
from boneage_pl.machine.home import path_of
from boneage_pl.machine.progress import progress
from boneage_pl.model.inference import predict
from boneage_pl.report.measures import answers_table
from boneage_pl.report.page import with_interval
from boneage_pl.report.writer import About, write_report
from boneage_pl.run.checkpoint import Checkpoint, load, load_checkpoint
from boneage_pl.run.runs import find_checkpoint, shortest

log = logging.getLogger(__name__)

BATCH = 32  # images asked at once
SIDES = {"val": "validation", "train": "train"}
_WORDS = {
    "val": "the validation images of its own run",
    "train": "the images that it was trained on",
    "all": "every image of the table that it was trained from",
    "table": "the images of another table",
}


def evaluate_checkpoints(config: DictConfig) -> Path:
    """Ask the checkpoints that `ckpt` names, write the report, and return its folder.

    Raises:
        BoneageError: see `load_checkpoint`, `examine_table` and `prepare_images`; checkpoints of several
            splits asked about their own; images that one was trained on, unless they are asked for.
    """
    names = list(config.ckpt) if isinstance(config.ckpt, ListConfig) else [config.ckpt]
    if not names:
        raise BoneageError("ckpt=[]: name at least one checkpoint.")
    checkpoints = [load_checkpoint(find_checkpoint(str(name), Path(config.outputs))) for name in names]
    place = _place(config, checkpoints[0])
    table, stores = _images(config, place, [c.record.frame for c in checkpoints])
    hashes = next(iter(stores.values())).images.hashes
    rows = _rows(config.subset, checkpoints, table, hashes)
    seen = _seen(checkpoints, rows, hashes, other=config.subset == "table")
    rows = _without_seen(config, rows, seen)

    typed = OmegaConf.to_container(config, resolve=False)
    answered = [_ask(c.path, stores[c.record.frame].read, rows, typed) for c in checkpoints]
    predicted = np.mean(answered, axis=0)
    answers = answers_table(rows, predicted, checkpoints[0].record.split["edges"], hashes, seen)
    about = About(
        title=_title(checkpoints, config.subset),
        subset=_WORDS[config.subset],
        data=str(place.root),
        checkpoints=[str(shortest(c.path.resolve())) for c in checkpoints],
        record=checkpoints[0].record,
        chose_epoch=config.subset == "val",
        balanced=config.subset in SIDES,
        run=_run_of(checkpoints[0].path),
    )
    folder = _folder(config, checkpoints[0].path)
    largest = stores[max(stores, key=lambda frame: frame.side)]
    write_report(folder, about, answers, largest.read)
    _tell(about.title, json.loads((folder / "metrics.json").read_text()))
    log.info("report\n  %s", folder / "report.html")
    return folder


def _tell(title: str, numbers: dict[str, Any]) -> None:
    mae, rows, images = with_interval(numbers["overall"]["mae"]), numbers["rows"], numbers["images"]
    log.info("%s\n  MAE %s months, 95 %% interval over images; %d rows, %d images", title, mae, rows, images)
    if numbers["natural"]:
        log.info("  %s at the source table's ages and sexes", with_interval(numbers["natural"]["mae"]))
    for baseline in numbers["baselines"]:
        log.info("  %s %s", with_interval(baseline["mae"]), baseline["name"])


def _place(config: DictConfig, first: Checkpoint) -> Place:
    """Return where the images are: in the folder that is named, or where the checkpoint was trained."""
    typed = any(o.startswith(("data=", "data.root=")) for o in HydraConfig.get().overrides.task)
    place = Place.configured(config.data if typed else first.record.config["data"])
    if typed and config.data.get("generate"):
        draw(instantiate(config.data.generate), place.root)
    return place


def _images(
    config: DictConfig, place: Place, frames: list[Frame]
) -> tuple[pd.DataFrame, dict[Frame, ImageStore]]:
    """Return the table's usable rows, and their prepared images by square."""
    table, problems = examine_table(place)
    folder = store_folder(config.data.store, place.root)
    workers = config.data.prepare_workers
    stores = {
        frame: prepare_images(table, place.root, folder, frame, workers) for frame in dict.fromkeys(frames)
    }
    images = stores[frames[0]].images
    usable = add_bad_images(problems, table, images.bad, images.contents)
    if problems and check_choice(config.data.on_bad_image) == "error":
        raise problems.error()
    if problems:
        log.warning("%d rows or images are left out:\n%s", len(problems), problems.told())
    if usable.empty:
        raise BoneageError(f"{problems.source}: no row can be used.")
    problems.tell(log)
    return usable.reset_index(drop=True), stores


def _rows(
    subset: str, checkpoints: list[Checkpoint], table: pd.DataFrame, hashes: dict[str, str]
) -> pd.DataFrame:
    """Return `id, male, bone_age` of what is asked, in the split's order where it is a split's."""
    if subset not in SIDES:
        return table[["id", "male", "bone_age"]]
    side = SIDES[subset]
    record = checkpoints[0].record.split
    for other in checkpoints[1:]:
        if sorted(other.record.split[side]) != sorted(record[side]):
            raise BoneageError(
                f"{checkpoints[0].path} and {other.path} have different {side} images.\n"
                "Ask them about images that neither has: subset=table, or subset=all seen=drop."
            )
    split = restore_split(record, table)
    rows = split.loc[split["subset"] == side, ["id", "male", "bone_age"]].reset_index(drop=True)
    changed = [i for i in rows["id"].unique() if hashes[i] != record["hashes"][i]]
    if changed:
        raise BoneageError(
            f"{len(changed)} of the {rows['id'].nunique()} images of the checkpoint's split are not the "
            f"files it knew (id {', '.join(changed[:5])}{' …' if len(changed) > 5 else ''}).\n"
            "Use the data.root that it was trained on; or, if these are other radiographs, subset=table."
        )
    return rows


def _seen(
    checkpoints: list[Checkpoint], rows: pd.DataFrame, hashes: dict[str, str], *, other: bool
) -> set[str]:
    """Return the ids that show an image which any of the checkpoints was trained on.

    By content, and in the table that it was trained from by id too; in another one an id is another child.
    """
    splits = [c.record.split for c in checkpoints]
    ids = {i for split in splits for i in split["train"]}
    contents = {split["hashes"][i] for split in splits for i in split["train"]}
    return {i for i in rows["id"] if hashes[i] in contents or (not other and i in ids)}


def _without_seen(config: DictConfig, rows: pd.DataFrame, seen: set[str]) -> pd.DataFrame:
    if not seen or config.subset == "train" or config.seen == "mark":
        return rows
    if config.seen == "drop":
        rows = rows[~rows["id"].isin(seen)].reset_index(drop=True)
        log.info("%d images that were trained on are left out", len(seen))
        if rows.empty:
            raise BoneageError("Nothing is left: every image was trained on.")
        return rows
    listed = ", ".join(sorted(seen)[:5]) + (" …" if len(seen) > 5 else "")
    raise BoneageError(
        f"{len(seen)} of the {rows['id'].nunique()} images were trained on (id {listed}): their errors would "
        "flatter the checkpoint.\nLeave them out with seen=drop, or keep and mark them with seen=mark."
    )


def _ask(
    path: Path, read: Callable[[Sequence[str]], Pixels], rows: pd.DataFrame, repeated: Any
) -> NDArray[np.float64]:
    """Return one checkpoint's answers in months."""
    reader, record = load(path, repeated)
    once = rows.drop_duplicates("id")
    ids, male = once["id"].tolist(), once["male"].tolist()
    parts = [slice(start, start + BATCH) for start in range(0, len(ids), BATCH)]
    doing = f"asking {shortest(path.resolve())}"
    batches = ((read(ids[part]), male[part]) for part in progress(parts, len(parts), doing, "batches"))
    months = torch.cat(list(predict(reader, batches, record.precision))).numpy().astype(np.float64)
    return rows["id"].map(dict(zip(ids, months, strict=True))).to_numpy(np.float64)


def _title(checkpoints: list[Checkpoint], subset: str) -> str:
    experiments = list(dict.fromkeys(c.record.experiment for c in checkpoints))
    several = f"the mean of {len(checkpoints)} checkpoints of " if len(checkpoints) > 1 else ""
    return f"Bone age: {several}{', '.join(experiments)}, subset {subset}"


def _run_of(path: Path) -> dict[str, Any]:
    try:
        found = json.loads((path.parents[1] / "run.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, IndexError):
        return {}
    return found if isinstance(found, dict) and {"sessions", "data", "epochs"} <= set(found) else {}


def _folder(config: DictConfig, path: Path) -> Path:
    stamp = f"{config.subset}_{datetime.now():%Y-%m-%d_%H-%M-%S}"
    if config.out is not None:
        folder = path_of(str(config.out))
        if folder.exists() and any(folder.iterdir()):
            raise BoneageError(f"out={folder} holds something already, and nothing is written over.")
        return folder
    run = path.resolve().parents[1]
    if (run / ".hydra").is_dir():
        return shortest(run / f"report_{stamp}")
    return Path(config.outputs) / "evaluations" / stamp
