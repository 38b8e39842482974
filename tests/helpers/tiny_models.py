"""Networks, losses and callbacks for tests; they train in milliseconds."""

import resource
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from numpy.typing import NDArray
from torch import Tensor, nn

from boneage_pl.model.input_spec import InputSpec


class Tiny(nn.Module):
    """A network with dropout, whose random numbers a resumed run must reproduce."""

    def __init__(self, image_size: int, **_: Any) -> None:
        super().__init__()
        self.image_size = image_size
        self.backbone = nn.Sequential(
            nn.Conv2d(3, 8, 5, 4), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(4)
        )
        self.hidden = nn.Sequential(nn.Flatten(), nn.Dropout(0.2), nn.Linear(128, 32), nn.ReLU())
        self.age = nn.Linear(33, 1)

    def forward(self, image: Tensor, male: Tensor) -> Tensor:
        kind = self.age.weight.dtype
        hidden = self.hidden(self.backbone(image)).to(kind)
        return self.age(torch.cat([hidden, male.to(kind).unsqueeze(1)], dim=1))


class Gray(nn.Module):
    """A network with one input channel that predicts probabilities of three ages."""

    def __init__(self, **_: Any) -> None:
        super().__init__()
        self.input = InputSpec(mean=(0.4,), std=(0.2,))
        self.image = nn.Sequential(nn.Conv2d(1, 4, 9, 8), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten())
        self.age = nn.Linear(17, 3)

    def forward(self, image: Tensor, male: Tensor) -> Tensor:
        return self.age(torch.cat([self.image(image), male.unsqueeze(1)], dim=1))


class Ages(nn.Module):
    """The loss of a network with three outputs."""

    def __init__(self, months: list[float]) -> None:
        super().__init__()
        self.register_buffer("ages", torch.tensor(list(months), dtype=torch.float32))

    def decode_months(self, output: Tensor) -> Tensor:
        return output.softmax(1) @ self.ages

    def forward(self, output: Tensor, bone_age: Tensor) -> Tensor:
        return (self.decode_months(output) - bone_age).square().mean()


class Darker:
    """An augmentation that returns floating-point pixels."""

    num_random = 1

    def __init__(self, most: float) -> None:
        self.most = most

    def __call__(self, images: Tensor, random: Tensor) -> Tensor:
        return images / 255 * (1 - self.most * random).view(-1, 1, 1, 1)


def natural(images: NDArray[np.int64], rows: int) -> NDArray[np.int64]:
    """A sampler that draws each image once."""
    return images * rows // images.sum()


class Brake(Callback):
    """Slows steps down."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds

    def on_train_batch_end(self, *_: Any) -> None:
        time.sleep(self.seconds)


class FullDisk(Callback):
    """Limits the size of files that rank 0 can write in the last epoch."""

    def on_train_epoch_start(self, trainer: Any, *_: Any) -> None:
        if trainer.is_global_zero and trainer.current_epoch == trainer.max_epochs - 1:
            _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, hard))


class Keys(Callback):
    """Prints the keys of each validation's random transforms."""

    def on_validation_batch_end(self, *arguments: Any) -> None:
        print("validation keys:", arguments[3]["key"].tolist(), flush=True)


class Plain(nn.Module):
    """A user's network without a backbone and with its own options."""

    def __init__(self, image_size: int, layers: int, residual: bool, **_: Any) -> None:
        super().__init__()
        self.options = image_size, layers, residual
        self.age = nn.Linear(1, 1)

    def forward(self, image: Tensor, male: Tensor) -> Tensor:
        return self.age(image.float().mean(dim=(1, 2, 3)).unsqueeze(1)) + male.unsqueeze(1)


class Maps(Callback):
    """Prints the checkpoints that the process has memory-mapped."""

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        if trainer.global_step == 1 or trainer.current_epoch == trainer.max_epochs - 1:
            lines = Path("/proc/self/maps").read_text().splitlines()
            print("mapped:", [line for line in lines if ".ckpt" in line] or "none", flush=True)
