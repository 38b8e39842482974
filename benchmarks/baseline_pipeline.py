"""A plain implementation of the published description: the baseline of the benchmarks.

Float32, contiguous, PyTorch's defaults; the loader decodes, flips, resizes, crops and normalizes each sample.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import Dataset
from torchvision.transforms import v2

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def transform(size: int) -> v2.Compose:
    return v2.Compose(
        [
            v2.RandomHorizontalFlip(0.5),
            v2.Resize(size),
            v2.CenterCrop(size),
            v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True)]),
            v2.Normalize(mean=MEAN, std=STD),
        ]
    )


class Files(Dataset):
    """Full-size image files, for the input pipeline."""

    def __init__(self, paths: Sequence[Path], size: int) -> None:
        self.paths = paths
        self.transform = transform(size)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor, Tensor]:
        image = Image.open(self.paths[i]).convert("RGB")
        return self.transform(image), torch.tensor(float(i % 2)), torch.tensor(float(i % 228))


class Decoded(Files):
    """Decoded and resized images, so that decoding does not limit the training step."""

    def __init__(self, images: Sequence[Image.Image], size: int) -> None:
        super().__init__([], size)
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor, Tensor]:
        image = self.images[i].convert("RGB")
        return self.transform(image), torch.tensor(float(i % 2)), torch.tensor(float(i % 228))


def step(
    network: nn.Module, optimizer: torch.optim.Optimizer, batch: Sequence[Tensor], device: torch.device
) -> float:
    image, male, months = (part.to(device) for part in batch)
    optimizer.zero_grad()
    loss = F.l1_loss(network(image, male).squeeze(1), months)
    loss.backward()
    optimizer.step()
    return loss.item()  # a plain loop prints the running mean
