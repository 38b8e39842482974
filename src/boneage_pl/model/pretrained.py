"""Find and read pretrained weights."""

import argparse
import hashlib
import logging
import pickle
import socket
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from boneage_pl.errors import BoneAgeError, first_line

log = logging.getLogger(__name__)

IMAGENET = "imagenet"
_SUFFIXES = (".pth", ".pt", ".safetensors")
_WRAPPERS = ("state_dict_ema", "model_ema", "state_dict", "model")  # timm's, Lightning's, torchvision's
_TIMEOUT = 20  # seconds without a byte, our choice


def read_state_dict(weights: str, names: Collection[str]) -> dict[str, Tensor]:
    """Read a state dict, or the one in a training checkpoint of timm, torchvision or Lightning.

    Only tensors and plain values are unpickled.

    Args:
        weights: path of a .pth, .pt or .safetensors file.
        names: parameter names of the network; a common prefix in the file is removed.

    Raises:
        BoneAgeError: missing file, or not a file of weights.
    """
    file = Path(weights)
    if file.suffix not in _SUFFIXES:
        raise BoneAgeError(
            f"model.weights={file}: must be null, {IMAGENET}, or a file ending in {', '.join(_SUFFIXES)}."
        )
    try:
        if file.suffix == ".safetensors":
            content: Any = load_file(file)
        else:
            with torch.serialization.safe_globals([argparse.Namespace]):  # options in timm's checkpoints
                content = torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise BoneAgeError(f"model.weights: no such file: {file}.") from error
    except pickle.UnpicklingError as error:
        raise BoneAgeError(
            f"model.weights: {file} contains more than tensors; nothing was executed. If it is yours, save\n"
            "only the weights: torch.save(model.state_dict(), 'weights.pth')."
        ) from error
    except (OSError, RuntimeError, ValueError, EOFError, SafetensorError) as error:
        raise BoneAgeError(f"model.weights: {file} cannot be read: {first_line(error)}") from error
    if isinstance(content, dict):
        content = next((content[k] for k in _WRAPPERS if isinstance(content.get(k), dict)), content)
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise BoneAgeError(f"model.weights: {file} is not a dictionary of tensors by name.")
    first = next(iter(names))
    prefixes = [name.removesuffix(first) for name in content if f".{name}".endswith(f".{first}")]
    prefix = min(prefixes, key=len, default="")
    return {name.removeprefix(prefix): value for name, value in content.items() if name.startswith(prefix)}


def load_weights(
    network: nn.Module, weights: dict[str, Tensor], source: str, left_out: Collection[str]
) -> None:
    """Load weights into a network, except those of the layers `left_out`.

    Raises:
        BoneAgeError: missing, unexpected or differently shaped weights.
    """
    dropped = tuple(f"{layer}." for layer in left_out)
    kept = {name: value for name, value in weights.items() if not name.startswith(dropped)}
    try:
        missing, unexpected = network.load_state_dict(kept, strict=False)
    except RuntimeError as error:
        raise BoneAgeError(
            f"model.weights: weights of {source} do not fit: {' '.join(str(error).split())[:300]}"
        ) from error
    missing = [name for name in missing if not name.startswith(dropped)]
    if missing or unexpected:
        which = [f"{len(names)} are {what} ({', '.join(names[:3])} …)" for what, names in
                 (("missing", missing), ("unexpected", unexpected)) if names]  # fmt: skip
        raise BoneAgeError(f"model.weights: weights of {source} do not fit: {'; '.join(which)}")
    names = ", ".join(sorted(weights.keys() - kept.keys()))
    log.info("weights of %s%s", source, f"; skipped: {names}" if names else "")


def fetch_file(url: str, allow_download: bool) -> Path:
    """Return torch.hub's cached file of weights, downloaded if needed.

    Args:
        url: with the first digits of the file's SHA-256 in its name, as torchvision's have.
        allow_download: whether to download it.

    Raises:
        BoneAgeError: not available, or damaged.
    """
    file = Path(torch.hub.get_dir(), "checkpoints", Path(url).name)
    digest = file.stem.rpartition("-")[2]
    if file.exists():
        with file.open("rb") as content:
            if not hashlib.file_digest(content, "sha256").hexdigest().startswith(digest):
                raise BoneAgeError(
                    f"model.weights={IMAGENET}: {file} is damaged or incomplete.\n"
                    "Delete it to download it again, or copy it from another machine."
                )
        return file
    if not allow_download:
        raise unavailable([str(file)], allow_download)
    log.info("downloading %s to %s", url, file)
    try:
        with download_timeout():
            file.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(url, str(file), digest)
    except (OSError, RuntimeError) as error:  # no network, or another hash
        raise unavailable([str(file), f"{url} ({first_line(error)})"], allow_download) from error
    return file


def unavailable(places: list[str], allow_download: bool) -> BoneAgeError:
    """Return the error for ImageNet weights that are not in `places`."""
    tried = "could not be downloaded" if allow_download else "model.allow_download=false"
    return BoneAgeError(
        f"model.weights={IMAGENET}: the weights are not on this machine and {tried}.\n"
        + "".join(f"  {place}\n" for place in places)
        + "Copy the file there, or pass model.weights=<file>, or model.weights=null for random weights."
    )


@contextmanager
def download_timeout() -> Iterator[None]:
    """Set a timeout for connections without one, such as torch.hub's."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_TIMEOUT)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
