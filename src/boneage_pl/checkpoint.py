"""Read a checkpoint: tensors and plain values only."""

import logging
import pickle
import shutil
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zipfile import ZIP_STORED, BadZipFile, ZipFile

import torch
from torch import Tensor, nn

from boneage_pl.errors import BoneageError
from boneage_pl.model.network import BoneAgeNet
from boneage_pl.runs import BEST, LAST, PREVIOUS

log = logging.getLogger(__name__)


@dataclass
class Checkpoint:
    """A checkpoint's weights and the plain values it carries (see `train.describe_run`)."""

    path: Path
    weights: dict[str, Tensor]
    record: dict[str, Any]
    training: dict[str, Any] = field(default_factory=dict)  # what Lightning goes on from


# What a record must hold, and as what.
_RECORD: dict[str, type] = {
    "version": str,
    "experiment": str,
    "config": dict,
    "model": dict,
    "image_size": int,
    "precision": str,
    "transform_input": bool,
    "split": dict,
    "epoch": int,
    "validation": dict,
}
_SPLIT: dict[str, type] = {"protocol": str, "edges": list, "train": list, "validation": list, "hashes": dict}
_TRAINING: dict[str, type] = {
    "epoch": int,
    "global_step": int,
    "loops": dict,
    "optimizer_states": list,
    "lr_schedulers": list,
}


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint of this project; what it pickles beyond tensors and plain values is never run.

    Raises:
        BoneageError: not a checkpoint, damaged, or not one of this project's.
    """
    try:
        _check_archive(path)
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        weights = {
            name.removeprefix("network."): value
            for name, value in content["state_dict"].items()
            if name.startswith("network.")
        }
        record = content["boneage_pl"]
        _check_kinds(record, _RECORD)
        _check_kinds(record["split"], _SPLIT)
        if not all(isinstance(value, Tensor) for value in weights.values()):
            raise TypeError("tensors in its weights")
        return Checkpoint(path, weights, record, {key: content.get(key) for key in _TRAINING})
    except pickle.UnpicklingError as error:
        raise BoneageError(
            f"{path} holds more than tensors and plain values; nothing of it was run.\n"
            "A checkpoint of this project does not: do not trust that file."
        ) from error
    except (OSError, RuntimeError, ValueError, EOFError, BadZipFile, zlib.error, OverflowError) as error:
        raise BoneageError(f"{path} cannot be read as a checkpoint: {_first_line(error)}") from error
    except (KeyError, TypeError, AttributeError) as error:
        raise BoneageError(
            f"{path} is not a checkpoint of this project: it lacks {error}.\n"
            "Pass a run's folder, its checkpoints/best.ckpt, or an experiment's name."
        ) from error


def _check_kinds(values: dict[str, Any], kinds: dict[str, type]) -> None:
    for key, kind in kinds.items():
        if not isinstance(values[key], kind):
            raise TypeError(f"a {kind.__name__} as {key}")


def _check_archive(path: Path) -> None:
    """Read a checkpoint's bytes once: PyTorch takes what was damaged on the disk for weights.

    Raises:
        ValueError: it is damaged, or its parts are compressed, as PyTorch's are not and a bomb's would be.
    """
    with ZipFile(path) as archive:
        if any(part.compress_type != ZIP_STORED for part in archive.infolist()):
            raise ValueError("its parts are compressed, which PyTorch's are not")
        if sum(part.file_size for part in archive.infolist()) > path.stat().st_size:
            raise ValueError("its parts overlap")
        if damaged := archive.testzip():
            raise ValueError(f"it is damaged, {damaged} first")


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def newest_state(run: Path) -> Checkpoint | None:
    """Return the newest whole checkpoint of a run, or `None` if it has saved none yet.

    A damaged one is named, and the one before it taken: the epochs since are trained again.

    Raises:
        BoneageError: there are checkpoints, and all are damaged.
    """
    there = [run / name for name in (LAST, PREVIOUS, BEST) if (run / name).exists()]
    for path in there:
        try:
            found = load_checkpoint(path)
            _check_epochs(found)
            return found
        except BoneageError as error:
            log.warning("%s\nThe one before it is used.", error)
    if there:
        raise BoneageError(f"{run}: none of its checkpoints can be read. Start the experiment anew.")
    return None


def _check_epochs(checkpoint: Checkpoint) -> None:
    epochs = checkpoint.record.get("epochs")
    whole = isinstance(epochs, list) and all(
        isinstance(row, dict) and set(row) >= {"epoch", "val_mae"} for row in epochs
    )
    start = checkpoint.record.get("start", 0)
    begun = start is None or (isinstance(start, dict) and set(start) == {"experiment", "ckpt", "val_mae"})
    if not whole or not begun:
        raise BoneageError(f"{checkpoint.path} does not say which epochs it has seen.")


def keep_best(run: Path, state: Checkpoint) -> None:
    """Make `best.ckpt` what it was when `state` was saved, where the run was cut off between the two."""
    errors = [row["val_mae"] for row in state.record["epochs"]]
    if not errors or any(error <= errors[-1] for error in errors[:-1]):
        return
    try:
        known: int | None = load_checkpoint(run / BEST).record["epoch"]
    except BoneageError:
        known = None
    if known != state.record["epoch"]:
        beside = (run / BEST).with_name("best.ckpt.tmp")
        beside.unlink(missing_ok=True)  # cut off there, it may be a second name of what is copied
        shutil.copyfile(state.path, beside)
        beside.replace(run / BEST)


def check_training_state(checkpoint: Checkpoint, network: nn.Module) -> None:
    """Raise `BoneageError` unless `checkpoint` holds what training `network` goes on from, in its shapes."""
    try:
        _check_kinds(checkpoint.training, _TRAINING)
        shapes = [parameter.shape for parameter in network.parameters()]
        (optimizer,) = checkpoint.training["optimizer_states"]
        for number, moments in optimizer["state"].items():
            if any(m.dim() and m.shape != shapes[number] for m in moments.values() if isinstance(m, Tensor)):
                raise ValueError("another shape")
        if not isinstance(checkpoint.training["loops"]["fit_loop"], dict):
            raise TypeError("the loop")
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise BoneageError(
            f"{checkpoint.path} lacks what training goes on from.\n"
            "Start a new run from its weights: ckpt= and that file."
        ) from error


def load_weights(network: BoneAgeNet, checkpoint: Checkpoint, model: dict[str, Any]) -> None:
    """Copy a checkpoint's weights into `network`, which the configuration `model` describes.

    Raises:
        BoneageError: the checkpoint was made with another configuration; says which and how to match it.
    """
    theirs = checkpoint.record["model"]
    # `weights` says where training once began; what is left of it is how the backbone reads its input
    differs = [key for key in model if key != "weights" and theirs.get(key) != model[key]]
    if differs:
        ours = ", ".join(f"{key} is {model[key]}" for key in differs)
        match = " ".join(_override(key, theirs.get(key)) for key in differs)
        raise BoneageError(
            f"ckpt={checkpoint.path} was trained with another network; here {ours}.\n"
            f"To match it, pass {match}"
        )
    try:
        network.load_state_dict(checkpoint.weights)
    except RuntimeError as error:
        raise BoneageError(
            f"{checkpoint.path} says that it was made with this network, and its weights do not fit:\n"
            f"{' '.join(str(error).split())[:300]}"
        ) from error
    network.backbone.transform_input = checkpoint.record["transform_input"]


def _override(key: str, value: Any) -> str:
    return f"data.image_size={value}" if key == "image_size" else f"model.{key}={value}"
