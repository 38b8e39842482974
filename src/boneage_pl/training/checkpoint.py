"""Load checkpoints and check their integrity."""

import logging
import pickle
import zlib
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zipfile import ZIP_STORED, BadZipFile, ZipFile

import torch
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torch import Tensor, nn

from boneage_pl.cli.instantiate import instantiate
from boneage_pl.data.transforms.compose import Compose
from boneage_pl.errors import BoneAgeError, first_line
from boneage_pl.model.inference import InferenceModule
from boneage_pl.model.input_spec import get_input_spec
from boneage_pl.training.metadata import CheckpointMetadata
from boneage_pl.training.safetensors_io import SUFFIX, load_shared_weights
from boneage_pl.training.trusted_targets import check_trusted_targets, iter_targets

log = logging.getLogger(__name__)

PREFIX = "inference.network."  # before the names of a network's weights in a checkpoint


def check_zip_integrity(path: Path) -> None:
    """Read a checkpoint's bytes once and compare their checksums, which PyTorch does not.

    Raises:
        ValueError: it is damaged, or its parts are compressed, as PyTorch's are not and a bomb's would be.
    """
    with ZipFile(path) as archive:
        parts = archive.infolist()
        if any(part.compress_type != ZIP_STORED for part in parts):
            raise ValueError("its parts are compressed, which PyTorch's are not")
        if sum(part.file_size for part in parts) > path.stat().st_size:
            raise ValueError("its parts overlap")
        if damaged := archive.testzip():
            raise ValueError(f"it is damaged, {damaged} first")


@dataclass
class Checkpoint:
    """A checkpoint's content; its tensors keep the file mapped."""

    path: Path
    weights: dict[str, Tensor]
    metadata: CheckpointMetadata
    training: dict[str, Any] = field(
        default_factory=dict
    )  # Lightning's state of optimizer, scheduler and loops
    ood_statistics: Any = None  # see `boneage_pl.prediction.ood`; `None` before the training has ended

    def release(self) -> None:
        """Drop the tensors, once they have been copied."""
        self.weights, self.training = {}, {}


# Lightning's state, and its types
TRAINING: dict[str, type] = {
    "epoch": int,
    "global_step": int,
    "loops": dict,
    "optimizer_states": list,
    "lr_schedulers": list,
}


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint of this project, or a safetensors export of one; the file stays mapped.

    What a file pickles beyond tensors and plain values is never run.

    Raises:
        BoneAgeError: not a checkpoint, damaged, or not one of this project's.
    """
    try:
        if path.suffix == SUFFIX:
            weights, values, ood_statistics = load_shared_weights(path)
            return Checkpoint(path, weights, CheckpointMetadata.from_dict(values), {}, ood_statistics)
        check_zip_integrity(path)
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        weights = {
            name.removeprefix(PREFIX): value
            for name, value in content["state_dict"].items()
            if name.startswith(PREFIX)
        }
        record = CheckpointMetadata.from_dict(content["boneage_pl"])
        if not all(isinstance(value, Tensor) for value in weights.values()):
            raise TypeError("tensors in its weights")
        rest = {key: content.get(key) for key in TRAINING}
        return Checkpoint(path, weights, record, rest, content.get("ood_statistics"))
    except pickle.UnpicklingError as error:
        raise BoneAgeError(
            f"{path} holds more than tensors and plain values; nothing of it was run.\n"
            "A checkpoint of this project does not: do not trust that file."
        ) from error
    except (OSError, RuntimeError, ValueError, EOFError, BadZipFile, zlib.error, OverflowError) as error:
        raise BoneAgeError(f"{path} cannot be read as a checkpoint: {first_line(error)}") from error
    except (KeyError, TypeError, AttributeError) as error:
        raise BoneAgeError(
            f"{path} is not a checkpoint of this project: it lacks {error}.\n"
            "Pass a run's folder, its checkpoints/best.ckpt, or an experiment's name."
        ) from error


def load_for_inference(path: Path, trusted_config: Any = None) -> tuple[InferenceModule, Checkpoint]:
    """Return the module that predicts as a checkpoint's run did in its validation, and the checkpoint.

    Nothing is built that does not belong to the project in its place, or to `trusted_config`.

    Args:
        path: of the checkpoint; its weights are mapped, not copied.
        trusted_config: a configuration that the user has typed; the objects that it names may be built too.

    Raises:
        BoneAgeError: see `load_checkpoint`, `check_trusted_targets` and `build_network`.
    """
    checkpoint = load_checkpoint(path)
    config = checkpoint.metadata.config
    try:
        named = OmegaConf.create({group: config[group] for group in ("model", "loss", "transforms")})
        transforms: Any = OmegaConf.to_container(named.transforms, resolve=True)
        named.transforms = {"validation": transforms.get("validation")}  # the training's are not needed
        resolved = OmegaConf.to_container(named, resolve=True)  # an interpolation may make a table of a text
    except (OmegaConfBaseException, KeyError, ValueError, AttributeError) as error:
        raise BoneAgeError(f"{path}: its configuration cannot be resolved: {error}") from error
    check_trusted_targets(resolved, dict(iter_targets(trusted_config)))
    steps = instantiate(named.transforms.validation, "transforms.validation")
    network = build_network(checkpoint, named.model, mapped=True)
    loss = instantiate(named.loss, "loss")
    module = InferenceModule(network, Compose.from_config(steps, random=False), loss)
    checkpoint.release()  # the network has them
    return module, checkpoint


def build_network(checkpoint: Checkpoint, model: DictConfig, *, mapped: bool = False) -> nn.Module:
    """Build the network that `model` describes, with a checkpoint's weights and normalization.

    Args:
        checkpoint: whose weights are loaded.
        model: the configuration; a `normalization` in it replaces the checkpoint's.
        mapped: whether the weights may stay in the file, for inference.

    Raises:
        BoneAgeError: it cannot be built, or the weights do not fit it.
    """
    # weights that are replaced at once need not be fetched, and those of our own network not even drawn
    empty = mapped and str(model.get("_target_")).startswith("boneage_pl.")
    with torch.device("meta") if empty else nullcontext():
        network: nn.Module = instantiate(model, "model", **({"weights": None} if "weights" in model else {}))
    try:
        network.load_state_dict(checkpoint.weights, assign=empty)
    except RuntimeError as error:
        side, ours = checkpoint.metadata.config["model"].get("image_size"), model.get("image_size")
        if side != ours:  # a width may follow from it, as the published network's does
            raise BoneAgeError(
                f"ckpt={checkpoint.path} was trained with another network; here image_size is {ours}, "
                f"which its weights do not fit.\nTo match it, pass data.image_size={side}"
            ) from error
        raise BoneAgeError(
            f"{checkpoint.path}: its weights do not fit the network that it names:\n"
            f"{' '.join(str(error).split())[:300]}"
        ) from error
    if get_input_spec(network) != checkpoint.metadata.input:
        if model.get("normalization") is None:
            network.input = checkpoint.metadata.input  # type: ignore[assignment]
        else:
            log.warning("%s was trained with another input normalization than this run's", checkpoint.path)
    return network


def check_same_architecture(checkpoint: Checkpoint, model: dict[str, Any]) -> None:
    """Refuse a checkpoint of another network than the configuration `model` describes.

    One of another image size is left to `build_network`: its weights may fit.

    Raises:
        BoneAgeError: saying what differs and which options match it.
    """
    theirs = checkpoint.metadata.config["model"]
    # None of these changes a weight's shape, but for the image size, which `build_network` checks.
    apart = ("weights", "allow_download", "image_size", "normalization", "dropout")
    differs = [key for key in model if key not in apart and theirs.get(key) != model[key]]
    if differs:
        ours = ", ".join(f"{key} is {model[key]}" for key in differs)
        match = " ".join(f"model.{key}={theirs.get(key)}" for key in differs)
        raise BoneAgeError(
            f"ckpt={checkpoint.path} was trained with another network; here {ours}.\n"
            f"To match it, pass {match}"
        )
