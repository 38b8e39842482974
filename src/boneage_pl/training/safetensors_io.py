"""Save and load weights as a safetensors file with the checkpoint's metadata in the header."""

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from boneage_pl.training.metadata import CheckpointMetadata
from boneage_pl.utils.files import atomic_path

SUFFIX = ".safetensors"
FORMAT = "boneage_pl weights 3"
_NETWORK = "network."
_TENSOR = "tensor"  # key of a reference to a tensor in the metadata


def save_shared_weights(
    path: Path,
    weights: Mapping[str, Tensor],
    record: CheckpointMetadata,
    ood_statistics: Any,
    kind: torch.dtype | None = None,
) -> None:
    """Write weights and metadata to a file; absolute paths are reduced to their last part.

    Args:
        path: ends with `.safetensors`.
        weights: of the network, by name.
        record: the checkpoint's metadata.
        ood_statistics: see `boneage_pl.prediction.ood`; or `None`.
        kind: storage dtype of matrices and filters, which are loaded as float32.

    Raises:
        OSError: the file cannot be written.
    """
    tensors = {f"{_NETWORK}{name}": _to_stored(value, kind) for name, value in weights.items()}

    def without_tensor(at: str, value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        tensors[f"ood_statistics{at}"] = _to_stored(value, None)
        return {_TENSOR: f"ood_statistics{at}"}

    header = {
        "record": _map_values({**record.to_dict(), "root": ""}, lambda _, value: _without_folder(value)),
        "ood_statistics": _map_values(ood_statistics, without_tensor),
        "sha256": _digest(tensors),
    }
    with atomic_path(path) as beside:
        try:
            save_file(tensors, beside, metadata={"format": "pt", FORMAT: json.dumps(header)})
        except SafetensorError as error:  # raised if the disk is full
            raise OSError(str(error)) from error
        beside.chmod(0o644)  # the library creates private files


def load_shared_weights(path: Path) -> tuple[dict[str, Tensor], Any, Any]:
    """Return the weights by name (memory-mapped), and metadata and OOD statistics as plain values.

    Raises:
        ValueError: not a file of `save_shared_weights`, or damaged.
        OSError: unreadable.
    """
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {}).get(FORMAT, "null"))
        tensors = load_file(path)
    except (SafetensorError, ValueError, RecursionError) as error:
        raise ValueError(f"not a safetensors file ({error})") from error
    if not isinstance(header, dict):
        raise ValueError("no metadata of boneage_pl")
    if _digest(tensors) != header.get("sha256"):
        raise ValueError("damaged")

    def with_tensor(_: str, value: Any) -> Any:
        return tensors[value[_TENSOR]] if isinstance(value, dict) and set(value) == {_TENSOR} else value

    weights = {
        name.removeprefix(_NETWORK): value.float() if value.dtype == torch.float16 else value
        for name, value in tensors.items()
        if name.startswith(_NETWORK)
    }
    return weights, header.get("record"), _map_values(header.get("ood_statistics"), with_tensor)


def _to_stored(value: Tensor, kind: torch.dtype | None) -> Tensor:
    """Return a copy of a tensor in its storage dtype.

    Vectors keep theirs: they are small, and a BatchNorm variance may exceed float16's 65,504 (in three layers
    after 30 epochs at 0.01). So do all tensors with such values.
    """
    if kind and value.is_floating_point() and value.ndim > 1:
        smaller = value.to(kind)
        value = smaller if smaller.isfinite().all() else value
    return value.detach().contiguous().clone()  # shared tensors become separate


def _map_values(node: Any, change: Callable[[str, Any], Any], at: str = "") -> Any:
    """Apply `change(path, value)` to every value of nested dictionaries and lists."""
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


def _digest(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode() + tensors[name].reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
