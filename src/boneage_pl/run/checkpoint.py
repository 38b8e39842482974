"""Read a checkpoint: tensors and plain values only."""

import pickle
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zipfile import ZIP_STORED, BadZipFile, ZipFile

import torch
from torch import Tensor, nn

from boneage_pl.errors import BoneageError
from boneage_pl.run.checkpoint_record import check_record
from boneage_pl.run.older import of_today


@dataclass
class Checkpoint:
    """A checkpoint's weights and the plain values it carries (see `train.describe_run`)."""

    path: Path
    weights: dict[str, Tensor]
    record: dict[str, Any]
    training: dict[str, Any] = field(default_factory=dict)  # what Lightning goes on from

    def let_go(self) -> None:
        """Forget the tensors, which keep the file mapped, once they have been copied."""
        self.weights, self.training = {}, {}


# What Lightning goes on from, and as what.
TRAINING: dict[str, type] = {
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
        check_record(record)
        record["config"] = of_today(record["config"])
        if not all(isinstance(value, Tensor) for value in weights.values()):
            raise TypeError("tensors in its weights")
        return Checkpoint(path, weights, record, {key: content.get(key) for key in TRAINING})
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


def check_kinds(values: dict[str, Any], kinds: dict[str, type]) -> None:
    """Raise `KeyError` or `TypeError` for a value that is missing or of another kind."""
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


def rescales(network: nn.Module) -> bool:
    """Whether a network's backbone re-scales its input, as one with ImageNet's weights does."""
    return bool(getattr(getattr(network, "backbone", None), "transform_input", False))


def load_weights(network: nn.Module, checkpoint: Checkpoint, model: dict[str, Any]) -> None:
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
    if checkpoint.record["transform_input"] or rescales(network):
        network.get_submodule("backbone").transform_input = checkpoint.record["transform_input"]


def _override(key: str, value: Any) -> str:
    return f"data.image_size={value}" if key == "image_size" else f"model.{key}={value}"
