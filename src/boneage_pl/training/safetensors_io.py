"""Save and load shared weights: safetensors with the metadata as JSON."""

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from boneage_pl.training.metadata import CheckpointMetadata
from boneage_pl.utils.files import atomic_path, atomic_write

SUFFIX = ".safetensors"
FORMAT = "boneage_pl weights 2"
_TENSOR = "tensor"  # the key under which the JSON file names one


def save_shared_weights(
    path: Path,
    weights: Mapping[str, Tensor],
    record: CheckpointMetadata,
    ood_statistics: Any,
    kind: torch.dtype | None = None,
) -> None:
    """Write `path` and the JSON file of its name.

    Folders of this machine are left out of the record: of a path that begins at the root its last part stays.

    Args:
        path: of the tensors, ending with `.safetensors`.
        weights: of the network, by name.
        record: what the checkpoint says of itself.
        ood_statistics: what it knows of its images, see `boneage_pl.prediction.ood`; or nothing.
        kind: what the network's matrices and filters are stored as; they are computed with as float32.
    """
    tensors = {f"network.{name}": _check_stored(value, kind) for name, value in weights.items()}
    known = _map_values(ood_statistics, lambda at, value: _add_tensor(tensors, f"familiar{at}", value))
    with atomic_path(path) as beside:
        try:
            save_file(tensors, beside, metadata={"format": "pt"})
        except SafetensorError as error:  # what the library makes of a full disk
            raise OSError(str(error)) from error
        digest = _digest(beside)
    metadata = {
        "format": FORMAT,
        "sha256": digest,
        "record": _map_values({**record.to_dict(), "root": ""}, lambda _, value: _without_folder(value)),
        "ood_statistics": known,
    }
    atomic_write(read_metadata(path), json.dumps(metadata) + "\n")
    shutil.copymode(read_metadata(path), path)  # the library's own is for its owner alone


def load_shared_weights(path: Path) -> tuple[dict[str, Tensor], Any, Any]:
    """Return the network's weights by name, mapped, and the plain values of record and `familiar`.

    Raises:
        ValueError: the files are not what `save_shared_weights` has written together.
        OSError: one of them cannot be read.
    """
    beside = read_metadata(path)
    if not beside.is_file():
        raise ValueError(f"{beside.name} is not beside it, which says what it holds")
    try:
        metadata = json.loads(beside.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{beside.name} beside it is no JSON file ({error})") from error
    if not isinstance(metadata, dict) or metadata.get("format") != FORMAT:
        raise ValueError(f"{beside.name} beside it is of something else")
    if _digest(path) != metadata.get("sha256"):
        raise ValueError(f"it is damaged, or {beside.name} beside it belongs to another file")
    try:
        tensors = load_file(path)
    except SafetensorError as error:
        raise ValueError(f"it is no safetensors file ({error})") from error

    def found(_: str, value: Any) -> Any:
        return tensors[value[_TENSOR]] if isinstance(value, dict) and set(value) == {_TENSOR} else value

    start = "network."
    weights = {
        name.removeprefix(start): value.float() if value.dtype == torch.float16 else value
        for name, value in tensors.items()
        if name.startswith(start)
    }
    return weights, metadata.get("record"), _map_values(metadata.get("ood_statistics"), found)


def read_metadata(path: Path) -> Path:
    """Return the JSON file that belongs to a file of tensors."""
    return path.with_suffix(".json")


def _check_stored(value: Tensor, kind: torch.dtype | None) -> Tensor:
    """Return a tensor as it is stored, a copy.

    What has one dimension stays as it is, for it takes no room: biases, and what BatchNorm knows of each
    channel, whose variance may be beyond float16's 65,504 (in three layers after 30 epochs at
    0.01). So does what is too large otherwise.
    """
    if kind and value.is_floating_point() and value.ndim > 1:
        smaller = value.to(kind)
        value = smaller if smaller.isfinite().all() else value
    return value.detach().contiguous().clone()  # two names of one tensor become two


def _add_tensor(tensors: dict[str, Tensor], name: str, value: Any) -> Any:
    if not isinstance(value, Tensor):
        return value
    tensors[name] = _check_stored(value, None)
    return {_TENSOR: name}


def _map_values(node: Any, change: Callable[[str, Any], Any], at: str = "") -> Any:
    """Return plain values with what `change` makes of each, given where it stands."""
    node = change(at, node)
    if isinstance(node, dict):
        return {key: _map_values(value, change, f"{at}.{key}") for key, value in node.items()}
    if isinstance(node, list | tuple):
        return [_map_values(value, change, f"{at}.{key}") for key, value in enumerate(node)]
    return node


def _without_folder(value: Any) -> Any:
    if isinstance(value, str) and "\n" not in value:
        for path in (PurePosixPath(value), PureWindowsPath(value)):
            if path.is_absolute() or value.startswith("~"):
                return path.name
    return value


def _digest(path: Path) -> str:
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
