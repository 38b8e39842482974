"""The published network with BatchNorm's statistics frozen, so that a batch's halves and the whole agree."""

from typing import Any

import torch
from torch import nn

from boneage_pl.model.network import BoneAgeNet


class Frozen(BoneAgeNet):
    def __init__(self, image_size: int, **options: Any) -> None:
        super().__init__(image_size, **options)
        layers = [m for m in self.modules() if isinstance(m, nn.BatchNorm2d)]
        for layer in layers:  # statistics of the random weights, or a hundred layers would overflow
            layer.momentum = None
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            self(torch.rand(8, 3, image_size, image_size, generator=generator), torch.zeros(8))
        self.train()

    def train(self, mode: bool = True) -> "Frozen":
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self
