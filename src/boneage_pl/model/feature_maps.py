"""Find a network's feature maps and hook into them."""

from types import TracebackType

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from boneage_pl.model.input_spec import get_input_spec

CELLS_PER_SIDE = 4  # a side: what of a map is where; our choice, and measured: see docs/PREDICTION.md
_EARLY = 8  # times smaller than the image, at most
_LATE = 8  # cells a side, at least; our choice: fewer show no part of a hand


def feature_map_sizes(network: nn.Module, side: int) -> dict[str, int]:
    """Return the side of each feature map, by the name of the module whose output it is, in their order.

    Modules inside one whose output is a map are left out, as they may be one branch of several, except in an
    `nn.Sequential`.

    Args:
        network: image and male → output; it is run once, on black.
        side: of the images in pixels.
    """
    sizes: dict[str, int] = {}
    hooks = []
    for name, module in network.named_modules():

        def note(_: nn.Module, __: object, output: object, name: str = name) -> None:
            if isinstance(output, Tensor) and output.dim() == 4 and output.shape[1] > 1:
                sizes.pop(name, None)
                sizes[name] = min(output.shape[2:])

        hooks.append(module.register_forward_hook(note))
    place = next(network.parameters())
    try:
        with torch.inference_mode():
            black = torch.zeros(1, get_input_spec(network).channels, side, side, device=place.device)
            network(black.to(place.dtype), torch.zeros(1, device=place.device))
    finally:
        for hook in hooks:
            hook.remove()
    closed = {name for name in sizes if not isinstance(network.get_submodule(name), nn.Sequential)}
    return {name: cells for name, cells in sizes.items() if name and not closed & set(_parents(name))}


def _parents(name: str) -> list[str]:
    """Return the names of the modules that hold one, but for the network itself."""
    parts = name.split(".")
    return [".".join(parts[:count]) for count in range(1, len(parts))]


def ood_layer(network: nn.Module, side: int) -> str | None:
    """Return the last map of at least an eighth of the image's side: edges and textures, and where they are.

    Deeper maps were trained to ignore much of what distinguishes a hand from other things. `None` for a
    network without such maps.
    """
    names = [name for name, cells in feature_map_sizes(network, side).items() if cells * _EARLY >= side]
    return names[-1] if names else None


def gradcam_layer(network: nn.Module, side: int) -> str | None:
    """Return the last map of at least 8 × 8 cells, or else the largest; `None` where there is none."""
    maps = feature_map_sizes(network, side)
    names = [name for name, cells in maps.items() if cells >= _LATE]
    return names[-1] if names else max(maps, key=lambda name: maps[name], default=None)


class LayerReached(Exception):  # noqa: N818 - as StopIteration, no error
    """Ends a forward pass of which the rest is not needed."""


class FeatureHook:
    """Keeps a module's last output, averaged over 4 × 4 cells, while its block is open.

    Args:
        network: that the module is part of.
        name: of the module, whose output is a map [B, C, h, w].
        stop: end every forward pass at the module, by `LayerReached`.

    Raises:
        AttributeError: there is no such module.
    """

    def __init__(self, network: nn.Module, name: str, *, stop: bool = False) -> None:
        self.module, self.stop = network.get_submodule(name), stop
        self.features = torch.empty(0)  # float32 [B, C · 16], on the CPU

    def __enter__(self) -> "FeatureHook":
        self._hook = self.module.register_forward_hook(self._keep)
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._hook.remove()

    def _keep(self, _: nn.Module, __: object, output: object) -> None:
        if not isinstance(output, Tensor) or output.dim() != 4:  # a checkpoint may name any module
            self.features = torch.empty(0, 0)
            return
        self.features = (
            F.adaptive_avg_pool2d(output.float(), CELLS_PER_SIDE).flatten(1).cpu()
        )  # [B, C, h, w] → [B, C · 16]
        if self.stop:
            raise LayerReached
