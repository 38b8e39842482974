"""A small network without batch-dependent layers, for tests of divided batches."""

from typing import Any

import torch
from torch import nn

from tests.helpers.tiny_models import Tiny


class Frozen(Tiny):
    def __init__(self, image_size: int, **options: Any) -> None:
        super().__init__(image_size, **options)
        for layer in self.modules():
            if isinstance(layer, nn.Dropout):
                layer.p = 0.0
            if isinstance(layer, nn.BatchNorm2d):  # statistics of random images
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
