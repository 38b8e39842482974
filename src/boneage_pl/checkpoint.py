"""Read a checkpoint: tensors and plain values only."""

import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from boneage_pl.errors import BoneageError
from boneage_pl.model.network import BoneAgeNet


@dataclass
class Checkpoint:
    """A checkpoint's weights and the plain values it carries (see `train.describe_run`)."""

    path: Path
    weights: dict[str, Tensor]
    record: dict[str, Any]


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint of this project; what it pickles beyond tensors and plain values is never run.

    Raises:
        BoneageError: not a checkpoint, damaged, or not one of this project's.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        weights = {
            name.removeprefix("network."): value
            for name, value in content["state_dict"].items()
            if name.startswith("network.")
        }
        return Checkpoint(path, weights, content["boneage_pl"])
    except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError) as error:
        raise BoneageError(
            f"ckpt={path} cannot be read as a checkpoint: {str(error).splitlines()[0]}"
        ) from error
    except (KeyError, TypeError, AttributeError) as error:
        raise BoneageError(
            f"ckpt={path} is not a checkpoint of this project: it lacks {error}.\n"
            "Pass a run's folder, its checkpoints/best.ckpt, or an experiment's name."
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
    network.load_state_dict(checkpoint.weights)
    network.backbone.transform_input = checkpoint.record["transform_input"]


def _override(key: str, value: Any) -> str:
    return f"data.image_size={value}" if key == "image_size" else f"model.{key}={value}"
