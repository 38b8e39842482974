"""Layers of the heads: GeM pooling, sex fusion, float32 linear."""

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

MIN_VALUE = 1e-6  # what GeM takes for black: its root has no slope at 0


class Float32Linear(nn.Linear):
    """A linear layer in float32, whatever the rest is in: bfloat16's step is half a month from 64 on."""

    def forward(self, input: Tensor) -> Tensor:
        """Map [B, F] → float32 [B, N]; float64 where all is."""
        with torch.autocast(input.device.type, enabled=False):
            kind = torch.promote_types(self.weight.dtype, torch.float32)
            return linear(input.to(kind), self.weight.to(kind), self.bias.to(kind))


def is_depthwise(network: nn.Module) -> bool:
    """Whether a network has convolutions that look at each channel alone."""
    return any(isinstance(m, nn.Conv2d) and m.groups == m.in_channels > 1 for m in network.modules())


class GeM(nn.Module):
    """Generalized-mean pooling with a power that is learned, from 3 on (Radenović et al., TPAMI 2019).

    1 would be the mean, and the higher it is, the nearer it comes to the maximum.
    """

    def __init__(self) -> None:
        super().__init__()
        self.power = nn.Parameter(torch.full((1,), 3.0))

    def forward(self, maps: Tensor) -> Tensor:
        """Pool [B, C, h, w] → [B, C, 1, 1], in float32."""
        with torch.autocast(maps.device.type, enabled=False):
            powers = maps.float().clamp(min=MIN_VALUE).pow(self.power.float())
            return powers.mean((2, 3), keepdim=True).pow(1 / self.power.float()).to(maps.dtype)


class SexConcat(nn.Module):
    """The sex through a layer of its own, beside the features: as published, with 32 units.

    Args:
        features: F, those of a radiograph.
        units: U, of the sex.
    """

    def __init__(self, features: int, units: int) -> None:
        super().__init__()
        self.units = nn.Linear(1, units)
        self.width = features + units

    def forward(self, features: Tensor, male: Tensor) -> Tensor:
        """Join [B, F] and [B] → [B, F + U]."""
        return torch.cat([features, self.units(male.to(features.dtype).unsqueeze(1))], dim=1)


class SexFiLM(nn.Module):
    """Each feature scaled by the sex (FiLM without its shift; Perez et al., AAAI 2018); by 1 at the start."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.scale = nn.Linear(1, features, bias=False)
        nn.init.zeros_(self.scale.weight)
        self.width = features

    def forward(self, features: Tensor, male: Tensor) -> Tensor:
        """Scale [B, F] by the sex [B] → [B, F]: girls' features one way, boys' the other."""
        return features * (1 + self.scale(2 * male.to(features.dtype).unsqueeze(1) - 1))
