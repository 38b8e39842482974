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

PREFIX = "inference.network."  # of the network's weights in a checkpoint


def check_zip_integrity(path: Path) -> None:
    """Verify the checksums of a checkpoint, which PyTorch does not.

    Raises:
        ValueError: damaged, or compressed, as in a decompression bomb but not in PyTorch's files.
    """
    with ZipFile(path) as archive:
        entries = archive.infolist()
        if any(entry.compress_type != ZIP_STORED for entry in entries):
            raise ValueError("its entries are compressed")
        if sum(entry.file_size for entry in entries) > path.stat().st_size:
            raise ValueError("its entries overlap")
        if damaged := archive.testzip():
            raise ValueError(f"{damaged} is damaged")


@dataclass
class Checkpoint:
    """Content of a checkpoint; tensors are memory-mapped."""

    path: Path
    weights: dict[str, Tensor]
    metadata: CheckpointMetadata
    # state of optimizer, scheduler and loops (Lightning)
    training: dict[str, Any] = field(default_factory=dict)
    ood_statistics: Any = None  # see `boneage_pl.prediction.ood`; `None` before the end of the training

    def release(self) -> None:
        """Drop the tensors after they have been copied."""
        self.weights, self.training = {}, {}


# Lightning's training state and its types
TRAINING: dict[str, type] = {
    "epoch": int,
    "global_step": int,
    "loops": dict,
    "optimizer_states": list,
    "lr_schedulers": list,
}


def load_checkpoint(path: Path) -> Checkpoint:
    """Load a checkpoint or a safetensors export of one, memory-mapped.

    Only tensors and plain values are unpickled; no code is executed.

    Raises:
        BoneAgeError: not a checkpoint of this project, or damaged.
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
        training = {key: content.get(key) for key in TRAINING}
        return Checkpoint(path, weights, record, training, content.get("ood_statistics"))
    except pickle.UnpicklingError as error:
        raise BoneAgeError(
            f"{path} contains more than tensors and plain values, unlike checkpoints of this project.\n"
            "Nothing of it was executed. Do not trust the file."
        ) from error
    except (OSError, RuntimeError, ValueError, EOFError, BadZipFile, zlib.error, OverflowError) as error:
        raise BoneAgeError(f"{path} cannot be read as a checkpoint: {first_line(error)}") from error
    except (KeyError, TypeError, AttributeError) as error:
        raise BoneAgeError(
            f"{path} is not a checkpoint of this project: it lacks {error}.\n"
            "Pass a run's folder, its checkpoints/best.ckpt, or an experiment's name."
        ) from error


def load_for_inference(path: Path, trusted_config: Any = None) -> tuple[InferenceModule, Checkpoint]:
    """Return the inference module of a checkpoint, as in its run's validation, and the checkpoint.

    Only the project's own classes, and those in `trusted_config`, are instantiated.

    Args:
        path: checkpoint file; weights are memory-mapped.
        trusted_config: configuration typed by the user.

    Raises:
        BoneAgeError: see `load_checkpoint`, `check_trusted_targets` and `build_network`.
    """
    checkpoint = load_checkpoint(path)
    config = checkpoint.metadata.config
    try:
        named = OmegaConf.create({group: config[group] for group in ("model", "loss", "transforms")})
        transforms: Any = OmegaConf.to_container(named.transforms, resolve=True)
        named.transforms = {"validation": transforms.get("validation")}  # training transforms are not needed
        resolved = OmegaConf.to_container(named, resolve=True)  # an interpolation may yield a table
    except (OmegaConfBaseException, KeyError, ValueError, AttributeError) as error:
        raise BoneAgeError(f"{path}: its configuration cannot be resolved: {error}") from error
    check_trusted_targets(resolved, dict(iter_targets(trusted_config)))
    steps = instantiate(named.transforms.validation, "transforms.validation")
    network = build_network(checkpoint, named.model, mapped=True)
    loss = instantiate(named.loss, "loss")
    module = InferenceModule(network, Compose.from_config(steps, random=False), loss)
    checkpoint.release()
    return module, checkpoint


def build_network(checkpoint: Checkpoint, model: DictConfig, *, mapped: bool = False) -> nn.Module:
    """Build a network with a checkpoint's weights and normalization.

    Args:
        checkpoint: provides the weights.
        model: configuration of the network; its `normalization` overrides the checkpoint's.
        mapped: keep the weights memory-mapped, for inference.

    Raises:
        BoneAgeError: the network cannot be built, or the weights do not fit.
    """
    # initial weights are replaced: do not download or initialize them
    empty = mapped and str(model.get("_target_")).startswith("boneage_pl.")
    with torch.device("meta") if empty else nullcontext():
        network: nn.Module = instantiate(model, "model", **({"weights": None} if "weights" in model else {}))
    try:
        network.load_state_dict(checkpoint.weights, assign=empty)
    except RuntimeError as error:
        side, ours = checkpoint.metadata.config["model"].get("image_size"), model.get("image_size")
        if side != ours:  # layer widths may depend on it, as in the published network
            raise BoneAgeError(
                f"ckpt={checkpoint.path} has weights for image_size {side}; here it is {ours}.\n"
                f"Pass data.image_size={side}"
            ) from error
        raise BoneAgeError(
            f"{checkpoint.path}: the weights do not fit the configured network:\n"
            f"{' '.join(str(error).split())[:300]}"
        ) from error
    if get_input_spec(network) != checkpoint.metadata.input:
        if model.get("normalization") is None:
            network.input = checkpoint.metadata.input  # type: ignore[assignment]
        else:
            log.warning("%s was trained with another input normalization than this run", checkpoint.path)
    return network


def check_same_architecture(checkpoint: Checkpoint, model: dict[str, Any]) -> None:
    """Reject a checkpoint whose network differs from the configuration `model`.

    A different image size is left to `build_network`, since the weights may fit.

    Raises:
        BoneAgeError: with the differences and the matching options.
    """
    stored = checkpoint.metadata.config["model"]
    # These change no weight's shape, except the image size, which `build_network` checks.
    ignored = ("weights", "allow_download", "image_size", "normalization", "dropout")
    differs = [key for key in model if key not in ignored and stored.get(key) != model[key]]
    if differs:
        here = ", ".join(f"{key} is {model[key]}" for key in differs)
        match = " ".join(f"model.{key}={stored.get(key)}" for key in differs)
        raise BoneAgeError(
            f"ckpt={checkpoint.path} has another network; here {here}.\nTo match it, pass {match}"
        )
