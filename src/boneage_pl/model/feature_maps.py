"""Find feature maps of a network and hook into them."""

from types import TracebackType

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from boneage_pl.model.input_spec import get_input_spec

CELLS_PER_SIDE = 4  # grid of the pooled features; our choice, measured in docs/PREDICTION.md
_EARLY = 8  # largest reduction relative to the image
_LATE = 8  # smallest side in cells; our choice


def feature_map_sizes(network: nn.Module, side: int) -> dict[str, int]:
    """Return the side of each feature map by the name of its module, in order.

    Modules inside a module with a feature map are skipped, since they may be branches, except in
    `nn.Sequential`.

    Args:
        network: image and male → output; run once on a black image.
        side: of the images in pixels.
    """
    sizes: dict[str, int] = {}
    hooks = []
    for name, module in network.named_modules():

        def record(_: nn.Module, __: object, output: object, name: str = name) -> None:
            if isinstance(output, Tensor) and output.dim() == 4 and output.shape[1] > 1:
                sizes.pop(name, None)
                sizes[name] = min(output.shape[2:])

        hooks.append(module.register_forward_hook(record))
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
    """Return the names of a module's parents, except the network."""
    parts = name.split(".")
    return [".".join(parts[:count]) for count in range(1, len(parts))]


def ood_layer(network: nn.Module, side: int) -> str | None:
    """Return the last feature map with at least an eighth of the image's side; `None` if there is none.

    It represents edges, textures and their positions; deeper maps are trained to ignore much of what
    distinguishes hands from other objects.
    """
    names = [name for name, cells in feature_map_sizes(network, side).items() if cells * _EARLY >= side]
    return names[-1] if names else None


def gradcam_layer(network: nn.Module, side: int) -> str | None:
    """Return the last feature map of at least 8 × 8 cells, or else the largest; `None` if there is none."""
    maps = feature_map_sizes(network, side)
    names = [name for name, cells in maps.items() if cells >= _LATE]
    return names[-1] if names else max(maps, key=lambda name: maps[name], default=None)


class LayerReached(Exception):  # noqa: N818 - not an error, like StopIteration
    """Raised to end a forward pass early."""


class FeatureHook:
    """Context manager that stores the last output of a module, pooled to 4 × 4 cells.

    Args:
        network: contains the module.
        name: of the module, whose output is a feature map [B, C, h, w].
        stop: end forward passes at the module with `LayerReached`.

    Raises:
        AttributeError: no such module.
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
